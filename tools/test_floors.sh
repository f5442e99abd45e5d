#!/usr/bin/env bash
# Tries the lower bounds of setup.py: installs exactly those versions into a new virtual environment and runs the tests of
# the library with them.
#
#   bash tools/test_floors.sh [FOLDER]     FOLDER for the environment, a temporary one by default (about 6 GB: torch of
#                                          that age comes with its GPU libraries)
#
# Every requirement "name>=version" of setup.py is installed as name==version; requirements without a bound take what pip
# chooses. PYTHON is the interpreter, python3 by default; it must be the oldest that setup.py allows.
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
folder=${1:-$(mktemp -d)}
floors=$folder/floors.txt
mkdir -p "$folder"
"$PYTHON" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q "setuptools==84.2.1" "packaging"
"$folder/venv/bin/python" - >"$floors" <<'END'
import setuptools
from packaging.requirements import Requirement

captured = {}
setuptools.setup = lambda **arguments: captured.update(arguments)
exec(compile(open("setup.py").read(), "setup.py", "exec"))
for text in captured["install_requires"]:
    requirement = Requirement(text)
    lower = [clause.version for clause in requirement.specifier if clause.operator == ">="]
    print(f"{requirement.name}=={lower[0]}" if lower else requirement.name)
END
cat "$floors"
"$folder/venv/bin/python" -m pip install -q -r "$floors" pytest pytest-xdist hypothesis
exec env OMP_NUM_THREADS=1 "$folder/venv/bin/python" -m pytest -q -rs -n 2 --dist loadfile \
    tests/test_config.py tests/data tests/text tests/lm tests/graphs tests/models tests/objectives tests/training \
    tests/planning tests/decoding tests/streaming tests/scoring
