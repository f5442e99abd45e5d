"""The provenance of a result: the command, and the version of asrtool that ran it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import asrtool

CHECKOUT = Path(asrtool.__file__).resolve().parents[1]
GIT_SECONDS = 10.0  # limit for git, which takes milliseconds unless a network file system hangs


def provenance() -> dict:
    """Returns the entries `command`, `version` and `git` of a log or result file, the last two of asrtool."""
    return {"command": command_line(), "version": asrtool.__version__, "git": git_state(CHECKOUT)}


def command_line() -> str | None:
    """Returns the command line, quoted for a shell; None in a program other than asrtool.

    Paths below the current folder, or below asrtool's checkout, are shortened to relative ones. Environment variables
    are not included.
    """
    program = Path(sys.argv[0])
    if (program.parent.name if program.name == "__main__.py" else program.name) != "asrtool":
        return None
    return shlex.join(["asrtool", *map(_with_relative_paths, sys.argv[1:])])


def _with_relative_paths(argument: str) -> str:
    """Returns "--exp=exp/a" for "--exp=/current/folder/exp/a"."""
    for folder in (Path.cwd(), CHECKOUT):
        argument = re.sub(rf"(^|[=,]){re.escape(str(folder).rstrip('/'))}/", r"\1", argument)
    return argument


def git_state(folder: Path) -> dict | None:
    """Returns the commit that is checked out at `folder`, and whether code was changed since (`dirty`).

    Documents (*.md) and new files outside of asrtool/ do not count. None if `folder` is not the root of a working tree,
    as for an installed package, or if there is no git.
    """
    try:
        root, commit = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        changes = _git(folder, "--no-optional-locks", "status", "--porcelain", "--", ".", ":(exclude)*.md").splitlines()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if Path(root) != folder.resolve():
        return None
    is_dirty = any(not line.startswith("??") or line.startswith("?? asrtool/") for line in changes)
    return {"commit": commit, "dirty": is_dirty}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_SECONDS).stdout


def describe_provenance(entries: dict) -> str:
    """Returns "5ace68c021", or "5ace68c021 dirty" if code was changed since that commit; else the version."""
    git = entries.get("git")
    if isinstance(git, dict) and isinstance(git.get("commit"), str):
        commit = git["commit"][:10]
        return f"{commit} dirty" if git.get("dirty") is True else commit
    version = entries.get("version")
    return f"asrtool {version[:30]}" if isinstance(version, str) else "-"
