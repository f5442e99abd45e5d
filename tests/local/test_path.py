"""path.sh provides asrtool, installs nothing if asrtool can be imported, and never ends the shell that sources it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
. ../../local/path.sh
echo "root=$ASRTOOL_ROOT"
asrtool --version | head -n 1
bash -c 'asrtool --version' | head -n 1
"""
OLD = '#!/bin/sh\ncase "$*" in *version_info*) exit 1 ;; --version) echo Python 3.9.1 ;; *) exit 1 ;; esac\n'
NO_VENV = '#!/bin/sh\ncase "$*" in *version_info*) exit 0 ;; *) echo "No module named venv" >&2; exit 1 ;; esac\n'
# A virtual environment whose pip always fails, and prints which step it was asked for.
NO_PIP = """#!/bin/bash
case "$*" in
*version_info*) exit 0 ;;
"-m venv"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python3" ;;
"-m pip --version") exit 0 ;;
"-m pip install"*) echo "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES ($*)" >&2; exit 1 ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def shell(tmp_path):
    """shell(python3) returns the finished bash that sources path.sh of a checkout with a space in its name.

    `python3` is the text of the only program of that name in PATH; with None there is no such program.
    """
    checkout, tools = tmp_path / "my clone", tmp_path / "tools"
    (checkout / "local").mkdir(parents=True)
    tools.mkdir()
    for name in ("local/path.sh", "constraints.txt", "setup.py"):
        shutil.copy(ROOT / name, checkout / name)
    for name in ("bash", "sh", "dirname", "cat", "cksum", "cut", "sed", "uname", "mkdir", "cp", "rm"):
        (tools / name).symlink_to(shutil.which(name))

    def run(python3, before=""):
        if python3:
            (tools / "python3").write_text(python3)
            (tools / "python3").chmod(0o755)
        script = f'{before}\n. "{checkout}/local/path.sh"\necho "status=$?"\necho "PATH=$PATH"\necho shell still here\n'
        command = [shutil.which("bash"), "-c", script]
        return subprocess.run(command, env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60)

    run.path = f"PATH={tools}"
    return run


def test_an_importable_asrtool_is_used(bash, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    done = bash(SCRIPT)
    assert (done.returncode, done.stderr) == (0, "")
    root, direct, inherited = done.stdout.splitlines()
    assert root == f"root={tmp_path}" and direct == inherited and "asrtool" in direct
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # no .venv


def test_without_python_the_message_names_what_to_install(bash, tmp_path, environment):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    environment["PATH"] = str(tools)
    done = bash(SCRIPT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "path.sh: no python3 in PATH; install Python 3.11 or newer\n"


@pytest.mark.parametrize(
    "python3, last_line",
    [
        (None, "no python3 in PATH; install Python 3.11 or newer"),
        (OLD, "python3 is Python 3.9.1; asrtool needs 3.11 or newer: put one first in PATH"),
        (NO_VENV, "cannot make a virtual environment; install python3's venv package (Debian: python3-venv)"),
        (NO_PIP, "installation failed; see above, fix the cause and call again: it continues"),
    ],
)
def test_the_shell_that_sources_it_stays_open_and_unchanged(shell, python3, last_line):
    done = shell(python3)
    assert done.stdout.splitlines() == ["status=2", shell.path, "shell still here"]
    assert done.stderr.splitlines()[-1] == f"path.sh: {last_line}"


@pytest.mark.parametrize("python3", [None, OLD, NO_VENV, NO_PIP])
def test_a_script_with_set_e_stops(shell, python3):
    done = shell(python3, before="set -euo pipefail")
    assert (done.returncode, done.stdout) == (2, "")


def test_the_reason_why_pip_failed_is_shown_for_every_step(shell):
    err = shell(NO_PIP).stderr
    assert "torch==2" in err and "+cpu" in err and "no torch for the CPU alone, see above" in err
    hashed = [line for line in err.splitlines() if "--require-hashes" in line]
    assert len(hashed) == 2 and "--only-binary :all:" in hashed[0] and "--only-binary" not in hashed[1]
    assert "building the others from their sources" in err and err.count("DO NOT MATCH THE HASHES") == 3


@pytest.mark.skipif(not shutil.which("dash"), reason="no dash")
def test_another_shell_is_told_to_start_bash(tmp_path):
    script = f'. "{ROOT}/local/path.sh"; echo "status=$?"'
    done = subprocess.run(["dash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "path.sh: this shell is not bash; start bash and source it there\n"
    assert done.stdout == "status=2\n"


def test_the_root_is_the_checkout_of_the_file_whatever_cdpath_is(environment, tmp_path):
    (tmp_path / "local").mkdir()
    script = f'export CDPATH="{tmp_path}"; cd "{ROOT}"; . local/path.sh; echo "root=$ASRTOOL_ROOT"'
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"root={ROOT}\n", "")


@pytest.mark.parametrize(
    "script",
    [
        "egs/digits/run.sh",
        "egs/yesno/run.sh",
        "egs/librispeech/run.sh",
        "egs/librispeech/ablations.sh",
        "local/combine.sh",
    ],
)
def test_a_script_finds_its_own_folder_whatever_cdpath_is(environment, tmp_path, script):
    (tmp_path / script).parent.mkdir(parents=True)
    environment = {**environment, "CDPATH": str(tmp_path)}
    done = subprocess.run(
        ["bash", script, "--help"], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "") and f"bash {script} --" in done.stdout
