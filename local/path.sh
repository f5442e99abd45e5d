#!/usr/bin/env bash
# Source this: it provides `asrtool`, and a `python3` that has what asrtool needs.
# An asrtool that python3 can import is used as it is; otherwise .venv is made at the top of the checkout, once.
# An interrupted installation is finished by the next call; a change of constraints.txt or setup.py brings it up to date.

ASRTOOL_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ASRTOOL_ROOT

asrtool_say() { echo "path.sh: $*" >&2; }
asrtool_stop() { asrtool_say "$*"; exit 2; }

# From / so that the checkout in the current folder does not count as installed.
asrtool_importable() { (cd / && python3 -c 'import importlib.util as u, sys
sys.exit(not all(u.find_spec(m) for m in ("asrtool", "torch", "lhotse", "sentencepiece", "kaldialign", "pydantic")))'); }

asrtool_install_torch() {
    local version
    version=$(sed -n 's/^torch==//p' "$ASRTOOL_ROOT/constraints.txt")
    if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
        asrtool_say "installing torch $version for the GPU"
        python3 -m pip install -q "torch==$version"
        return
    fi
    asrtool_say "installing torch $version for CPU"  # the plain name would bring gigabytes of GPU libraries on Linux
    python3 -m pip install -q "torch==$version+cpu" 2>/dev/null ||
        python3 -m pip install -q "torch==$version+cpu" --extra-index-url https://download.pytorch.org/whl/cpu ||
        python3 -m pip install -q "torch==$version"
}

asrtool_make_venv() {
    local venv=$ASRTOOL_ROOT/.venv stamp
    stamp=$venv/installed-$(cat "$ASRTOOL_ROOT/constraints.txt" "$ASRTOOL_ROOT/setup.py" | cksum | cut -d' ' -f1)
    if [ ! -e "$stamp" ]; then
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
            asrtool_stop "python3 is $(python3 --version 2>&1); asrtool needs 3.11 or newer: put one first in PATH"
        asrtool_say "no asrtool to import: making $venv (about 1 GB, some minutes; a second call finds it)"
        "$venv/bin/python3" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$venv" ||
            asrtool_stop "cannot make a virtual environment; install python3's venv package (Debian: python3-venv)"
    fi
    export PATH=$venv/bin:$PATH VIRTUAL_ENV=$venv
    if [ ! -e "$stamp" ]; then
        asrtool_install_torch && asrtool_say "installing the rest from constraints.txt" &&
            python3 -m pip install -q -c "$ASRTOOL_ROOT/constraints.txt" -e "$ASRTOOL_ROOT[recipes,export,tests]" ||
            asrtool_stop "installation failed; see above, mend it and call again: it continues"
        rm -f "$venv"/installed-*
        : >"$stamp"
        asrtool_say "installed"
    fi
}

command -v python3 >/dev/null || asrtool_stop "no python3 in PATH; install Python 3.11 or newer"
asrtool_importable || asrtool_make_venv
asrtool() { python3 -m asrtool "$@"; }
export -f asrtool
