#!/usr/bin/env bash
# Source this in bash: it provides the command `asrtool`, and a `python3` with the packages that asrtool needs. If it
# cannot, it prints the reason and returns 2: a script with `set -e` stops there, and a terminal stays open.
#
# If python3 can import asrtool, that installation is used. Otherwise .venv is made at the top of the checkout, once. All
# files from the package index are checked against the hashes in constraints.txt. The next call completes an interrupted
# installation, and updates it when constraints.txt or setup.py have changed.

asrtool_message() { echo "path.sh: $*" >&2; }

if [ -z "${BASH_VERSION:-}" ]; then
    asrtool_message "this shell is not bash; start bash and source it there"
    return 2
fi
ASRTOOL_ROOT=$(CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) # with CDPATH, cd may go elsewhere
export ASRTOOL_ROOT

# It runs in /, so that a checkout in the current folder does not count as an installation.
asrtool_importable() { (cd / && python3 -c 'import importlib.util as u, sys
sys.exit(not all(u.find_spec(m) for m in ("asrtool", "torch", "lhotse", "sentencepiece", "kaldialign", "pydantic")))'); }

asrtool_pip() { "$ASRTOOL_ROOT/.venv/bin/python3" -m pip install -q "$@"; }

# On Linux, torch from the package index comes with gigabytes of GPU libraries; PyTorch's own index has a build for the CPU.
asrtool_install_cpu_torch() {
    local version
    version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$ASRTOOL_ROOT/constraints.txt")
    if [ "$(uname)" != Linux ] || nvidia-smi >/dev/null 2>&1; then return 0; fi
    asrtool_message "installing torch $version for the CPU"
    asrtool_pip --no-deps "torch==$version+cpu" --extra-index-url https://download.pytorch.org/whl/cpu ||
        asrtool_message "no torch for the CPU alone, see above; taking the one with GPU libraries, some gigabytes"
}

# Wheels come first, because a source package runs its own code, with build tools that are not pinned. Not all packages
# have wheels for every Python (pocketsphinx 5.1.1 has none for 3.12).
asrtool_install_constraints() {
    local checked=(--no-deps --require-hashes -r "$ASRTOOL_ROOT/constraints.txt")
    asrtool_message "installing what constraints.txt lists"
    asrtool_pip "${checked[@]}" --only-binary :all: && return
    asrtool_message "not all of it as wheels, see above; building the others from their sources, with unpinned build tools"
    asrtool_pip "${checked[@]}"
}

# When the last step runs, everything is installed but the GPU libraries, whose exact versions torch names.
asrtool_install() {
    asrtool_install_cpu_torch
    asrtool_install_constraints && asrtool_pip --no-build-isolation -e "${ASRTOOL_ROOT}[recipes,audio,export,serve,microphone,wandb,mlflow,tests,docs]"
}

asrtool_make_venv() {
    local venv=$ASRTOOL_ROOT/.venv stamp
    stamp=$venv/installed-$(cat "$ASRTOOL_ROOT/constraints.txt" "$ASRTOOL_ROOT/setup.py" | cksum | cut -d' ' -f1)
    if [ ! -e "$stamp" ]; then
        if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            asrtool_message "python3 is $(python3 --version 2>&1); asrtool needs 3.11 or newer: put one first in PATH"
            return 2
        fi
        asrtool_message "no asrtool to import: making $venv (about 2 GB, some minutes, only once)"
        if ! "$venv/bin/python3" -m pip --version >/dev/null 2>&1 && ! python3 -m venv --clear "$venv"; then
            asrtool_message "cannot make a virtual environment; install python3's venv package (Debian: python3-venv)"
            return 2
        fi
        if ! asrtool_install; then
            asrtool_message "installation failed; see above, fix the cause and call again: it continues"
            return 2
        fi
        rm -f "$venv"/installed-*
        : >"$stamp"
        asrtool_message "installed"
    fi
    export PATH=$venv/bin:$PATH VIRTUAL_ENV=$venv
}

asrtool_provide() {
    if ! command -v python3 >/dev/null; then
        asrtool_message "no python3 in PATH; install Python 3.11 or newer"
        return 2
    fi
    asrtool_importable || asrtool_make_venv
}

asrtool() { python3 -m asrtool "$@"; }
export -f asrtool
asrtool_provide # the last command: its status is the status of sourcing this file
