import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from asrtool.provenance import CHECKOUT, command_line, describe_provenance, git_state, provenance


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with a program, a document and one commit."""
    folder = tmp_path / "checkout"
    (folder / "asrtool").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "asrtool" / "code.py").write_text("1")
    (folder / "RESULTS.md").write_text("none")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def test_a_clean_checkout_has_its_commit(checkout):
    assert git_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize(
    ("name", "dirty"),
    [("asrtool/code.py", True), ("asrtool/new.py", True), ("RESULTS.md", False), ("data.txt", False)],
)
def test_only_changes_of_code_make_a_checkout_dirty(checkout, name, dirty):
    (checkout / name).write_text("2")
    assert git_state(checkout)["dirty"] == dirty


def test_a_package_inside_another_repository_has_no_commit(checkout, tmp_path):
    assert git_state(checkout / "asrtool") is None
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) is None


@pytest.mark.parametrize("program", ["/usr/bin/asrtool", "/x/asrtool/__main__.py", "asrtool"])
def test_the_command_line_is_quoted_for_a_shell(monkeypatch, program):
    arguments = ["train", "a b.yaml", "--set", "data.noise='x'"]
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    assert shlex.split(command_line()) == ["asrtool", *arguments]


def test_another_program_has_no_command_line(monkeypatch):
    for program in ("/usr/bin/pytest", "/x/asrtool/tool.py", "/x/other/__main__.py", "-c", ""):
        monkeypatch.setattr(sys, "argv", [program, "--password", "secret"])
        assert command_line() is None


def test_paths_are_relative_to_the_current_folder_or_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    here, conf = tmp_path / "exp" / "a", CHECKOUT / "egs" / "x.yaml"
    monkeypatch.setattr(sys, "argv", ["asrtool", str(conf), f"--exp={here}", f"{here},{here}", f"/else{here}"])
    assert command_line() == f"asrtool egs/x.yaml --exp=exp/a exp/a,exp/a /else{here}"


def test_provenance_is_described_in_a_word_or_two():
    assert describe_provenance({"git": {"commit": "0123456789abcdef", "dirty": True}}) == "0123456789 dirty"
    assert describe_provenance({"git": None, "version": "0.1.0"}) == "asrtool 0.1.0"
    assert describe_provenance({}) == "-"
    assert {"command", "version", "git"} == provenance().keys() and Path(CHECKOUT / "asrtool").is_dir()


@pytest.mark.parametrize(
    "made",
    [
        *({"git": {"dirty": 10**18, "commit": "5ace68c021"}}, {"git": {"commit": "5ace68c021", "dirty": "x" * 99}}),
        *({"git": {"commit": 3}}, {"git": 3}, {"git": {}}, {"git": [1]}, {"version": 3}, {"version": "1" * 10**6}, {}),
    ],
)
def test_malformed_provenance_is_described_in_few_characters(made):
    assert len(describe_provenance(made)) < 60
