"""What made a result: the command, and the version of asrtool that ran it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import asrtool

CHECKOUT = Path(asrtool.__file__).resolve().parents[1]
GIT_SECONDS = 10.0  # for an answer that takes milliseconds, but on a network's file system that hangs


def provenance() -> dict:
    """For a log or a file of facts: `command_line`, `version`, and `git`, the last two of asrtool."""
    return {"command": command_line(), "version": asrtool.__version__, "git": git_state(CHECKOUT)}


def command_line() -> str | None:
    """The command line as a shell takes it, without the folder that it was given in; None in another program.

    A path below that folder, or below asrtool's checkout, is written from there on. Environment variables are no part.
    """
    program = Path(sys.argv[0])
    if (program.parent.name if program.name == "__main__.py" else program.name) != "asrtool":
        return None
    return shlex.join(["asrtool", *map(_shortened, sys.argv[1:])])


def _shortened(argument: str) -> str:
    """ "--exp=/here/exp/a" as "--exp=exp/a"."""
    for folder in (Path.cwd(), CHECKOUT):
        argument = re.sub(rf"(^|[=,]){re.escape(str(folder).rstrip('/'))}/", r"\1", argument)
    return argument


def git_state(folder: Path) -> dict | None:
    """The commit that is checked out at `folder`, and whether anything that runs was changed since (`dirty`).

    A document (*.md) does not run, nor does a new file outside of asrtool/. None where `folder` is not the root of a
    working tree, as that of an installed package is not, and where there is no git.
    """
    try:
        root, commit = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        changes = _git(folder, "--no-optional-locks", "status", "--porcelain", "--", ".", ":(exclude)*.md").splitlines()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if Path(root) != folder.resolve():
        return None
    return {"commit": commit, "dirty": any(line[:2] != "??" or line.startswith("?? asrtool/") for line in changes)}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_SECONDS).stdout


def describe_provenance(made: dict) -> str:
    """The commit, shortened, and whether it is that alone; else the version: "5ace68c021", "5ace68c021 dirty"."""
    git, version = made.get("git"), made.get("version")
    if isinstance(git, dict) and isinstance(git.get("commit"), str):
        return git["commit"][:10] + (" dirty" if git.get("dirty") is True else "")
    return f"asrtool {version[:30]}" if isinstance(version, str) else "-"
