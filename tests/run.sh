#!/usr/bin/env bash
# All tests: `bash tests/run.sh`, or some: `bash tests/run.sh tests/text -k round_trip` (arguments of pytest).
#
# ASRTOOL_CORPORA names a folder with corpora that some tests can use (yesno/, librispeech-train-clean-5/); without it they
# are skipped, saying so.
set -euo pipefail
cd "$(dirname "$0")/.."
. local/path.sh
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} # this checkout is what is tested, whichever asrtool is installed
python3 -c 'import pytest, hypothesis' 2>/dev/null || {
    echo "tests/run.sh: error: pytest and hypothesis are missing; python3 -m pip install -e '.[tests]'" >&2
    exit 2
}
[ $# -gt 0 ] || set -- tests
exec python3 -m pytest -q -rs --import-mode=importlib --durations=10 "$@"
