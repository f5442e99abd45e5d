"""A folder that looks like a checkout to the commands of the documentation, with a tiny corpus and tiny trainings."""

import csv
import gzip
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from tests.docs.pages import PAGES, ROOT, Block, blocks
from tests.egs.recipes import TINY
from tests.tiny import RATE, tone

SETS = {"mine": 60, "mine-dev": 9, "mine-test": 9}  # table: utterances
WORD_SECONDS = 0.45
# Pages whose commands use what the commands of other pages have left; all others begin in a folder of their own.
CONTINUES = {
    "language.md": ["own_corpus.md"],
    "normalisation.md": ["own_corpus.md"],
    "objectives.md": ["own_corpus.md", "language.md"],
    "data_mixing.md": ["own_corpus.md"],
    "add_words.md": ["own_corpus.md", "language.md", "objectives.md"],
    "decoding.md": ["own_corpus.md", "language.md", "objectives.md"],
    "error_analysis.md": ["own_corpus.md", "language.md", "objectives.md"],
    "recognise.md": ["own_corpus.md", "language.md", "objectives.md"],
    "streaming.md": ["own_corpus.md", "language.md", "objectives.md"],
    "export.md": ["own_corpus.md", "language.md", "objectives.md", "streaming.md"],
    "packs.md": ["own_corpus.md", "language.md", "objectives.md", "decoding.md"],
    "python.md": ["own_corpus.md", "language.md", "objectives.md", "streaming.md"],
}
# Pages that run in the folder of another page: the recipe has then done its stages already.
SHARES = {"tutorial.md": "README.md"}
# Before the commands of a block: trainings become tiny, the digits recipe speaks a few words only, the tests do not run
# themselves, and nothing is installed.
PRELUDE = """
set -euo pipefail
asrtool() {
    case "$1 ${2-}" in
        "train "*) set -- "$@" %s ;;
        "lm train-neural") set -- "$@" --vocab-size 60 --dim 16 --layers 1 --heads 2 --epochs 1 ;;
    esac
    python3 -S "$PRELOADED" run "$SOCKET" "$@"
}
pip() { echo "nothing is installed in a test: pip $*"; }
bash() {
    case $1 in
        egs/digits/run.sh) command bash "$@" --train 24 --dev 8 --test 8 ;;
        tests/run.sh) ;;
        *) command bash "$@" ;;
    esac
}
"""


def tiny_settings() -> str:
    """Options of `asrtool train` that make any configuration train within seconds."""
    model = {**TINY["model"], "layers": 2}
    flat = {f"model.{key}": value for key, value in model.items() if key != "subsampling"}
    flat |= {"model.subsampling.channels": 4}
    flat |= {f"data.{key}": value for key, value in TINY["data"].items()}
    flat |= {f"training.{key}": value for key, value in TINY["training"].items()}
    return " ".join(f"--set {key}={value}" for key, value in flat.items())


def words() -> list[str]:
    """Words that CMUdict has, in upper case."""
    pocketsphinx = pytest.importorskip("pocketsphinx", reason="needs pocketsphinx, which has CMUdict")
    dictionary = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    known = [line.split()[0].upper() for line in dictionary.read_text(encoding="utf-8").splitlines() if line]
    return random.Random(1).sample([word for word in known if word.isalpha() and 3 <= len(word) <= 7], 300)


def write_tables(folder: Path, vocabulary: list[str]) -> None:
    """The tables of three sets with their recordings, tones of three speakers; a text; a longer recording."""
    draw = random.Random(2)
    (folder / "recordings").mkdir()
    for table, count in SETS.items():
        rows = []
        for number in range(count):
            text = draw.sample(vocabulary, draw.randint(2, 6))
            name = f"{'abc'[number % 3]}-{table}-{number:02d}"
            samples = np.concatenate([tone(300 + 40 * len(word), WORD_SECONDS, number) for word in text])
            soundfile.write(folder / "recordings" / f"{name}.flac", samples, RATE)
            rows.append([name, f"recordings/{name}.flac", " ".join(text), name[0]])
        with (folder / f"{table}.tsv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([["id", "audio", "text", "speaker"], *rows])
    shutil.copyfile(folder / "mine-test.tsv", folder / "recordings.tsv")
    soundfile.write(folder / "talk.wav", np.concatenate([tone(500, 2.0), 0.01 * tone(100, 2.0), tone(900, 1.0)]), RATE)
    with gzip.open(folder / "lm-text.txt.gz", "wt", encoding="utf-8") as file:
        file.writelines(" ".join(draw.choices(vocabulary, k=8)) + "\n" for _ in range(400))


def write_checkout(folder: Path, vocabulary: list[str]) -> Path:
    """The parts of this checkout that commands name, and the tiny corpus."""
    for name in ("egs", "local", "tools/slurm"):
        ignored = shutil.ignore_patterns("data", "exp", "download", ".done", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    conf = folder / "egs/digits/conf/transformer.yaml"
    config = yaml.safe_load(conf.read_text(encoding="utf-8"))
    for section, values in TINY.items():
        config[section] |= values
    conf.write_text(yaml.safe_dump(config), encoding="utf-8")
    write_tables(folder, vocabulary)
    return folder


def environment() -> dict[str, str]:
    """With the python that runs the tests first in PATH, and this checkout first in PYTHONPATH."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": paths}


def run_block(block: Block, folder: Path, server: Path) -> None:
    """Runs a block; an exit status other than 0 fails the test. `server` is the socket of preloaded.py."""
    variables = {**environment(), "PRELOADED": str(ROOT / "tests/preloaded.py"), "SOCKET": str(server)}
    command = ["bash", "-c", PRELUDE % tiny_settings() + block.text]
    if block.language == "python":
        command = [sys.executable, "-c", block.text]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=folder, env=variables, text=True, **output)
    assert done.returncode == 0, f"{block.page}:{block.line}\n{block.text}\n{done.stdout[-4000:]}"


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Path]:
    """The socket of a process that runs commands of asrtool (preloaded.py)."""
    path = tmp_path_factory.mktemp("server") / "socket"
    command = [sys.executable, "-m", "tests.preloaded", "serve", str(path)]
    with subprocess.Popen(command, cwd=ROOT, env=environment()) as process:
        while not path.exists() and process.poll() is None:
            time.sleep(0.1)
        yield path
        process.terminate()


@pytest.fixture(scope="session")
def run_page(tmp_path_factory, server) -> Callable[[str], None]:
    """run_page("decoding.md") runs the commands of a page once, after the commands of the pages that it continues."""
    vocabulary = words()
    folders: dict[str, Path] = {}
    begun: set[str] = set()
    done: set[str] = set()
    pages = {page.name: page for page in PAGES}

    def run(name: str) -> None:
        before = CONTINUES.get(name, [])
        for other in before:
            run(other)
        if name in done:
            return
        assert name not in begun, f"the commands of {name} have failed already"
        begun.add(name)
        together = "shared" if before or name == "own_corpus.md" else SHARES.get(name, name)
        if together not in folders:
            folders[together] = write_checkout(tmp_path_factory.mktemp("checkout"), vocabulary)
            if together == "shared":
                test_set = "asrtool prepare table mine-test.tsv data/test.jsonl.gz\n"
                run_block(Block(name, 0, "bash", test_set, None), folders[together], server)
        for block in blocks(pages[name], ("bash", "python")):
            if block.not_run is None:
                run_block(block, folders[together], server)
        done.add(name)

    return run
