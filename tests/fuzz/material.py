"""Valid files for the drivers, written once by asrtool: a tiny corpus, a tokenizer, an experiment, language models.

The functions are cached: their files are shared, and a driver copies the files that it changes.
"""

import json
import shutil
import sys
from functools import cache
from pathlib import Path

import soundfile

from asrtool.cli import main
from asrtool.data.corpora import Utterance
from asrtool.data.manifest import write_manifest
from tests.fuzz.driver import LONGEST, Wrong
from tests.tiny import RATE, WORDS, make_config, make_experiment, make_tokenizer, tone

TEXT = ["one two three four", "one two", "two three one", "four", "three three two one", "one"]
FOLDERS: list[Path] = []  # where the files of this process are: see `use`
REFUSED = (1, 2)  # exit statuses: wrong data, a wrong request


def use(folder: Path) -> None:
    """Makes `folder` the folder of these files. It matters for repeating a finding, since manifests hold paths."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier process: a finding is repeated where it was found
    folder.mkdir(parents=True)
    FOLDERS[:] = [folder.resolve()]


def place() -> Path:
    """Returns the folder of these files."""
    return FOLDERS[0]


def asrtool(*arguments: object) -> int:
    """Runs a command in this process; returns its exit status. Raises its exception unless it is a refusal."""
    status = 0
    sys.argv = ["asrtool", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        status = stop.code or 0
        if status and status not in REFUSED:
            raise stop.__context__ or Wrong(f"exit status {status}") from None
    printed = getattr(sys.stderr, "getvalue", str)()
    if "Traceback" in printed or max(map(len, printed.splitlines()), default=0) > 2 * LONGEST:
        raise Wrong("stderr has a traceback, or a line that nobody reads")
    return status


def build(*arguments: object) -> None:
    """Runs a command that has to succeed, to write a valid file."""
    if asrtool(*arguments):
        raise RuntimeError(f"asrtool {' '.join(map(str, arguments))} failed")


@cache
def audio() -> list[Path]:
    """Returns three recordings of 0.5 s and more: FLAC, WAV and Ogg."""
    paths = [place() / name for name in ("a.flac", "b.wav", "c.ogg")]
    for number, path in enumerate(paths):
        soundfile.write(path, tone(500 * (number + 1), 0.5 + 0.1 * number), RATE)
    return paths


@cache
def manifest() -> Path:
    """Returns a manifest of an utterance of each recording, by two speakers."""
    utterances = [Utterance(p.stem, str(p), TEXT[n], speaker="xyx"[n]) for n, p in enumerate(audio())]
    write_manifest(utterances, place() / "cuts.jsonl.gz", jobs=1)
    return place() / "cuts.jsonl.gz"


@cache
def tokenizer() -> Path:
    """Returns a word tokenizer of four words."""
    return make_tokenizer(place())


@cache
def experiment() -> Path:
    """Returns an experiment with random weights."""
    config = make_config(manifest(), tokenizer())
    return make_experiment(place() / "exp", config, tokenizer())


@cache
def lexicon() -> Path:
    """Returns a lexicon of the words, one of which has two pronunciations."""
    lines = [f"{word} {' '.join(word)}" for word in WORDS] + ["one w u n"]
    (place() / "lexicon.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place() / "lexicon.txt"


@cache
def text() -> Path:
    """Returns sentences of the words."""
    (place() / "text.txt").write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    return place() / "text.txt"


@cache
def language_model(name: str) -> Path:
    """Returns a 3-gram of the sentences as .arpa, .arpa.gz or .npz."""
    build("lm", "train", text(), place() / name, "--order", 3)
    return place() / name


def copy(folder: Path, *sources: Path) -> list[Path]:
    """Copies files into `folder`, under their names; returns the copies."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(source, folder / source.name)) for source in sources]


def write(path: Path, value: object) -> Path:
    """Writes `value` as a JSON file, or a list as JSONL, by the suffix; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps(row) + "\n" for row in value] if path.suffix == ".jsonl" else [json.dumps(value)]
    path.write_text("".join(rows), encoding="utf-8")
    return path
