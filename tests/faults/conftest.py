"""Shared fixtures of the fault tests: an experiment, language models, and small file systems."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from asrtool.text.tokenizer import load_tokenizer
from tests.decoding.graphs import save_word_graph
from tests.faults.commands import run
from tests.tiny import WORDS, make_experiment


@pytest.fixture(scope="session")
def given(corpus, tokenizer_file, tiny_config, tmp_path_factory) -> SimpleNamespace:
    """Returns inputs of all commands: cuts, tokenizer, exp (random weights), config, text, arpa, lexicon, ..."""
    folder = tmp_path_factory.mktemp("given")
    exp = make_experiment(folder / "exp", tiny_config(), tokenizer_file)
    text, arpa = folder / "text.txt", folder / "lm.arpa"
    text.write_text("one two three four\none two\nthree one\ntwo four one\n" * 3, encoding="utf-8")
    finished = run(folder, "lm", "train", text, arpa, "--order", 2)
    assert finished.status == 0, finished.printed
    (folder / "lexicon.txt").write_text("".join(f"{word} {word}\n" for word in WORDS), encoding="utf-8")
    rows = [f"{path},one two,{path.stem}\n" for path in sorted(corpus.parent.glob("*.flac"))]
    (folder / "table.csv").write_text("audio,text,id\n" + "".join(rows), encoding="utf-8")
    return SimpleNamespace(
        folder=folder,
        cuts=corpus,
        tokenizer=tokenizer_file,
        exp=exp,
        config=exp / "config.yaml",
        text=text,
        arpa=arpa,
        lexicon=folder / "lexicon.txt",
        table=folder / "table.csv",
        graph=save_word_graph(folder / "graph", load_tokenizer(tokenizer_file)),
    )


@pytest.fixture
def experiment_copy(given, tmp_path) -> Path:
    """Returns a copy of the experiment, for results of one test."""
    return Path(shutil.copytree(given.exp, tmp_path / "exp"))


@pytest.fixture
def mount(tmp_path) -> Iterator[Callable[..., Path]]:
    """mount("64k") returns a new, empty file system of that size; skips without the right to mount."""
    mounted: list[Path] = []

    def mount_tmpfs(size: str) -> Path:
        disk = tmp_path / f"disk{len(mounted)}"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        mounted.append(disk)
        return disk

    yield mount_tmpfs
    for disk in mounted:
        subprocess.run(["umount", "--lazy", disk], check=True)
