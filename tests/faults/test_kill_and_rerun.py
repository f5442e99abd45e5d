"""After SIGKILL at a random moment the repeated command gives the result of an undisturbed run."""

import gzip
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from asrtool.tensor_files import load_tensors
from tests.faults.commands import KILLED, Command, alive, children, contents, run, temporary, until
from tests.tiny import equal

KILLS = 3  # for each command


def prepare(given, folder):
    return "prepare", "table", given.table, folder / "out.jsonl.gz"


def features(given, folder):
    return "features", given.cuts, folder / "fb.jsonl.gz", "--num-bins", 20, "--jobs", 2, "--speeds", "0.9,1.0,1.1"


def tokenizer(given, folder):
    return "tokenizer", given.cuts, folder / "tokenizer.json", "--type", "char"


def language_model(given, folder):
    return "lm", "train", given.text, folder / "lm.arpa.gz"


def neural(given, folder):
    shape = ("--vocab-size", 14, "--dim", 8, "--layers", 1, "--heads", 2, "--batch", 32, "--epochs", 20)
    return "lm", "train-neural", given.text, folder / "lm.pt", *shape, "--device", "cpu"


def graph(given, folder):
    return "graph", folder / "graph", "--tokenizer", given.tokenizer, "--lm", given.arpa


def decode(given, folder):
    return "decode", folder / "exp", given.cuts, "--device", "cpu", "--workers", 0, "--batch-seconds", 3


def decode_graph(given, folder):
    return *decode(given, folder), "--method", "graph", "--graph", given.graph, "--jobs", 2, "--lattices"


def adapt(given, folder):
    options = ("--device", "cpu", "--workers", 0, "--epochs", 2)
    return "adapt", folder / "exp", given.cuts, "--out", folder / "adapted", *options


def transcribe(given, folder):
    options = ("--device", "cpu", "--vad", "none", "--format", "txt,json,ctm")
    return "transcribe", given.exp, given.cuts.parent, "--output-dir", folder / "out", *options


COMMANDS = {
    prepare: ("*.jsonl.gz",),
    features: ("fb.jsonl.gz", "*.lca"),
    tokenizer: ("tokenizer.json",),
    language_model: ("lm.arpa.gz",),
    neural: ("lm.pt",),
    graph: ("*.fst", "words.txt", "units.txt"),
    decode: ("hyps.jsonl",),
    decode_graph: ("hyps.jsonl", "lat.gz"),
    adapt: ("*.pt",),
    transcribe: ("*.txt", "*.json", "*.ctm"),
}


def results(folder: Path, patterns: tuple[str, ...]) -> dict[str, object]:
    """Returns the files that a command has written, without the times in gzip files and checkpoints."""
    files: dict[str, object] = dict(contents(folder, *patterns))
    for name in files:
        if name.endswith(".pt"):
            files[name] = load_tensors(folder / name, "weights", "")["model"]
        elif name.endswith(".gz"):
            files[name] = gzip.decompress(files[name])
    return files


def place(given, folder: Path) -> Path:
    """Makes a folder for results, with the experiment in it."""
    folder.mkdir()
    shutil.copytree(given.exp, folder / "exp")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_gives_the_same_result_when_it_is_repeated(given, tmp_path, command):
    draw, patterns = random.Random(command.__name__), COMMANDS[command]
    alone = place(given, tmp_path / "work")
    begin = time.monotonic()
    finished = run(tmp_path, *command(given, alone))
    assert finished.status == 0, finished.printed
    seconds, right = time.monotonic() - begin, results(alone, patterns)
    assert right
    killed = 0
    for _ in range(KILLS):
        shutil.rmtree(alone)  # the same paths each time, since manifests hold them
        folder = place(given, tmp_path / "work")
        running = Command(tmp_path, *command(given, folder))
        time.sleep(draw.uniform(0.1, 0.8) * seconds)
        workers = children(running.pid)
        running.signal(signal.SIGKILL)
        killed += running.wait().status == KILLED
        assert until(lambda workers=workers: not any(map(alive, workers)))  # they look for their parent each second
        begin = time.monotonic()
        finished = run(tmp_path, *command(given, folder))
        seconds = min(seconds, time.monotonic() - begin)
        assert finished.status == 0, finished.printed
        assert equal(results(folder, patterns), right)
        assert not temporary(folder)
    assert killed


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_sigterm_ends_a_command_with_143_and_leaves_no_temporary_file(given, tmp_path, command):
    draw = random.Random(command.__name__)
    statuses = []
    for number in range(KILLS):
        folder = place(given, tmp_path / f"work{number}")
        running = Command(tmp_path, *command(given, folder))
        time.sleep(draw.uniform(0.2, 0.8))
        running.signal(signal.SIGTERM)
        finished = running.wait(20)
        statuses.append(finished.status)
        assert finished.status in (0, 143, -signal.SIGTERM), finished.printed
        assert "Traceback" not in finished.printed, finished.printed
        assert finished.status != 143 or not temporary(folder), temporary(folder)
    assert statuses
