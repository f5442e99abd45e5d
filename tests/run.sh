#!/usr/bin/env bash
# Runs the tests with local/path.sh's Python and, as a whole, in two processes; `pytest` does the same in one process.
#
#   bash tests/run.sh                               the fast tests: under eight minutes on two cores
#   bash tests/run.sh --all                         all tests
#   bash tests/run.sh tests/text -k round_trip      some tests; the arguments are those of pytest
#
# ASRTOOL_CORPORA names a folder with corpora for some of the tests (yesno/, librispeech-train-clean-5/); without it these
# tests are skipped, with a message.
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")/.."
. local/path.sh
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # commands that tests start run this checkout, not an installed asrtool
python3 -c 'import pytest, hypothesis, xdist' 2>/dev/null || {
    echo "tests/run.sh: error: pytest, pytest-xdist and hypothesis are needed; python3 -m pip install -e '.[tests]'" >&2
    exit 2
}
# Each process runs whole files, whose tests share fixtures, in the order of the folders: the longest files (egs/) do not
# come last, when one process would wait for the other.
# One thread each: two processes with two threads on two cores wait for each other most of the time.
if [ $# = 0 ] || [ "$*" = --all ]; then
    set -- -n 2 --dist loadfile --no-loadscope-reorder "$@"
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
exec python3 -m pytest -q -rs --durations=10 "$@"
