#!/usr/bin/env bash
# The tests: `bash tests/run.sh` runs those that take under eight minutes on two cores, `bash tests/run.sh --all` runs all.
# `bash tests/run.sh tests/text -k round_trip` runs some: other arguments are those of pytest, in one process.
#
# ASRTOOL_CORPORA names a folder with corpora that some tests can use (yesno/, librispeech-train-clean-5/); without it they
# are skipped, saying so.
set -euo pipefail
cd "$(dirname "$0")/.."
. local/path.sh
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # this checkout is what is tested, whichever asrtool is installed
python3 -c 'import pytest, hypothesis, xdist' 2>/dev/null || {
    echo "tests/run.sh: error: pytest, pytest-xdist and hypothesis are needed; python3 -m pip install -e '.[tests]'" >&2
    exit 2
}
# Two processes, each with whole files: the tests of a file share what its fixtures make. In the order of the folders, so
# that the longest files (egs/) do not come last, when one process would wait for the other.
if [ $# = 0 ] || [ "$*" = --all ]; then set -- tests -n 2 --dist loadfile --no-loadscope-reorder "$@"; fi
exec python3 -m pytest -q -rs --import-mode=importlib --durations=10 "$@"
