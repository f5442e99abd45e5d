#!/usr/bin/env bash
# Writes constraints.txt: the exact versions of all packages that asrtool needs, with the SHA-256 of each of their files.
#
#   bash tools/lock.sh                             after a change of setup.py: keeps the current versions
#   bash tools/lock.sh --upgrade-package lhotse    also takes the newest lhotse
#   bash tools/lock.sh --upgrade                   takes the newest version of everything
#
# It needs uv (python3 -m pip install uv). Further options are passed to `uv pip compile`.
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")/.."
command -v uv >/dev/null || {
    echo "lock.sh: error: no uv in PATH; python3 -m pip install uv" >&2
    exit 2
}
exec uv pip compile setup.py --extra recipes --extra audio --extra export --extra serve --extra microphone \
    --extra wandb --extra mlflow --extra tests --extra docs --extra bench \
    --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
    --custom-compile-command "bash tools/lock.sh" --output-file constraints.txt "$@"
