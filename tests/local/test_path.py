"""path.sh provides asrtool, and installs nothing where it can be imported."""

import shutil

SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
. ../../local/path.sh
echo "root=$ASRTOOL_ROOT"
asrtool --version
bash -c 'asrtool --version'
"""


def test_an_importable_asrtool_is_used_as_it_is(bash, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    done = bash(SCRIPT)
    assert (done.returncode, done.stderr) == (0, "")
    root, direct, inherited = done.stdout.splitlines()
    assert root == f"root={tmp_path}" and direct == inherited and "asrtool" in direct
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # no .venv


def test_without_python_the_next_thing_to_do_is_said(bash, tmp_path, environment):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    environment["PATH"] = str(tools)
    done = bash(SCRIPT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "path.sh: no python3 in PATH; install Python 3.11 or newer\n"
