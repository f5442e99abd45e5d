"""The versions that `asrtool --version` shows."""

from importlib.metadata import PackageNotFoundError, version

import pytest

import asrtool
from asrtool import versions


def test_asrtool_and_its_libraries_are_listed():
    lines = versions.version_lines()
    assert lines[0].split()[:2] == ["asrtool", asrtool.__version__]
    listed = dict(line.split(maxsplit=1) for line in lines[1:])
    assert listed["torch"] == version("torch") and listed["lhotse"] == version("lhotse")
    assert {"python", "kaldifst", "sentencepiece"} <= set(listed)


def test_a_library_that_is_missing_is_named(monkeypatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "version", missing)
    assert versions.version_of("k2") == "not installed"


@pytest.mark.parametrize("git, shown", [(None, ""), ({"commit": "0123456789abcdef", "dirty": False}, " (0123456789)")])
def test_the_commit_of_a_checkout_is_shown(monkeypatch, git, shown):
    monkeypatch.setattr(versions, "git_state", lambda _: git)
    assert versions.version_lines()[0] == f"asrtool {asrtool.__version__}{shown}"
