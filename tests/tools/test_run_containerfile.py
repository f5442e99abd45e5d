"""The steps of the Containerfile can be run in a bare folder, and what they copy and run exists in the checkout."""

import subprocess

import pytest

from tests.tools.load import TOOLS, load_tool

ROOT = TOOLS.parent

CONTAINERFILE = """
# A comment, and a step that is continued.
FROM somewhere/python
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN apt-get update && false
WORKDIR /opt/tool
COPY pins.txt ./
COPY code/one.py code/
RUN test ! -e code/two.py \\
    && echo "${SECRET:-}" >seen
ENV PATH=/opt/tool/bin:$PATH
COPY . .
RUN greet
ENTRYPOINT ["greet"]
"""


@pytest.fixture
def tool(monkeypatch):
    return load_tool("run_containerfile", monkeypatch)


@pytest.fixture
def checkout(tmp_path, tool, monkeypatch):
    """A repository with a Containerfile, and a file that git does not track."""
    root = tmp_path / "checkout"
    (root / "code").mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "Containerfile").write_text(CONTAINERFILE)
    for name in ("pins.txt", "code/one.py", "code/two.py"):
        (root / name).write_text("")
    (root / "bin/greet").write_text("#!/bin/sh\npwd >greeting\n")
    (root / "bin/greet").chmod(0o755)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "not_tracked").write_text("")
    monkeypatch.setattr(tool, "ROOT", root)
    return root


def run(tool, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["run_containerfile.py", *map(str, arguments)])
    tool.main()


def test_steps_run_in_their_order_below_the_folder(tool, checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "of this shell")
    run(tool, monkeypatch, tmp_path / "image", "--run", "pwd >last")
    image = tmp_path / "image/opt/tool"
    assert sorted(path.name for path in image.iterdir()) == sorted(
        ["Containerfile", "bin", "code", "greeting", "last", "pins.txt", "seen"]
    )
    assert (image / "greeting").read_text().strip() == str(image)
    assert (image / "seen").read_text().strip() == ""


def test_a_step_that_fails_ends_the_run(tool, checkout, tmp_path, monkeypatch):
    (checkout / "Containerfile").write_text("RUN false\nRUN touch later\n")
    with pytest.raises(subprocess.CalledProcessError):
        run(tool, monkeypatch, tmp_path / "image")
    assert not (tmp_path / "image/later").exists()


@pytest.mark.parametrize("text, reason", [("COPY none.txt ./", "tracks no such file"), ("USER me", "does not know")])
def test_a_step_that_cannot_be_done_is_named(tool, checkout, tmp_path, monkeypatch, text, reason):
    (checkout / "Containerfile").write_text(text)
    with pytest.raises(ValueError, match=reason):
        run(tool, monkeypatch, tmp_path / "image")


def test_the_containerfile_names_files_of_the_checkout(tool):
    steps = list(tool.instructions((ROOT / "Containerfile").read_text()))
    assert {keyword for keyword, _ in steps} <= {"FROM", "SHELL", "RUN", "WORKDIR", "COPY", "ENV", "ENTRYPOINT"}
    copied = [source for keyword, arguments in steps if keyword == "COPY" for source in arguments.split()[:-1]]
    assert copied[-1] == "." and all((ROOT / source).exists() for source in copied)
    assert ("RUN", ". local/path.sh") in steps
