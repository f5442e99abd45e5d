"""Which commands import torch, lhotse and other packages that take seconds: only those that compute with them.

These are facts about `sys.modules`, not times. tools/bench/startup.py measures the CPU time of each command.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asrtool.cli import cli
from asrtool.config_file import save_config
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer

ROOT = Path(__file__).parents[2]
WORDS = "ONE TWO", "TWO THREE", "THREE ONE TWO", "ONE"


def run_all(commands: list[list[str]], folder: Path, **environment: str) -> list[dict]:
    """Returns the result of each of these commands, run one after another in one process (loaded_modules.py)."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "tests/cli/loaded_modules.py")],
        input=json.dumps(commands),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def command_paths(group=cli, path=()):
    """Yields the words of every command, groups included."""
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from command_paths(command, (*path, name))


@pytest.fixture
def material(tmp_path, write_audio, tiny_config, tokenizer_file) -> Path:
    """A folder with four utterances as a table, as a folder and as a Kaldi folder, a lexicon, and two results."""
    save_config(tiny_config(), tmp_path / "exp/config.yaml")
    save_tokenizer(load_tokenizer(tokenizer_file), tmp_path / "exp/tokenizer.json")
    rows = ["id,audio,text,speaker"]
    for number, words in enumerate(WORDS):
        write_audio(tmp_path / f"wav/u{number}.wav", seconds=0.5)
        (tmp_path / f"wav/u{number}.txt").write_text(words)
        rows.append(f"u{number},wav/u{number}.wav,{words},speaker{number % 2}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    kaldi = tmp_path / "kaldi"
    kaldi.mkdir()
    audio = (f"u{number} {tmp_path}/wav/u{number}.wav" for number in range(len(WORDS)))
    (kaldi / "wav.scp").write_text("\n".join(audio) + "\n")
    (kaldi / "text").write_text("".join(f"u{number} {words}\n" for number, words in enumerate(WORDS)))
    (tmp_path / "words.txt").write_text("".join(f"{word} {' '.join(word)}\n" for word in ("ONE", "TWO", "THREE")))
    for method in ("greedy", "prefix"):
        folder = tmp_path / "exp/decode/test" / method
        folder.mkdir(parents=True)
        lines = [{"id": f"u{n}", "ref": words, "hyp": "ONE TWO", "speaker": "a"} for n, words in enumerate(WORDS)]
        (folder / "hyps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


LIGHT_COMMANDS = """
prepare table table.csv data/all.jsonl.gz --audio-root .
prepare folder wav data/folder.jsonl.gz
prepare kaldi kaldi data/kaldi.jsonl.gz
prepare table table.csv data/slow.jsonl.gz --audio-root . --sampling-rate 8000 --resample
normalise data/all.jsonl.gz --propose rules.yaml
normalise data/all.jsonl.gz data/normalised.jsonl.gz --rules rules.yaml
split data/all.jsonl.gz data/split --dev-size 0.5 --test-size 0
lexicon data/all.jsonl.gz data/lexicon.txt --source words.txt
tokenizer data/all.jsonl.gz data/characters.json --type char
tokenizer data/all.jsonl.gz data/bpe.json --type bpe --vocab-size 12
tokenizer data/all.jsonl.gz data/phones.json --type phone --lexicon data/lexicon.txt
lm train data/all.jsonl.gz data/bigram.arpa.gz --order 2
lm prune data/bigram.arpa.gz data/small.arpa.gz --threshold 0.1
lm perplexity data/bigram.arpa.gz data/all.jsonl.gz
graph data/graph --tokenizer data/phones.json --lexicon data/lexicon.txt --lm data/bigram.arpa.gz
score exp/decode/test/greedy exp/decode/test/prefix
report exp
report exp --out RESULTS.md
"""


def test_no_help_imports_a_slow_package(tmp_path):
    paths = list(command_paths())
    assert len(paths) > 40
    results = run_all([[*path, "--help"] for path in paths], tmp_path)
    wrong = {" ".join(path): result for path, result in zip(paths, results, strict=True) if result["loaded"]}
    assert not wrong
    assert all(result["status"] == 0 for result in results)


def test_commands_without_a_model_import_no_slow_package(material):
    commands = [line.split() for line in LIGHT_COMMANDS.strip().splitlines()]
    results = run_all(commands, material)
    for words, result in zip(commands, results, strict=True):
        assert result["status"] == 0, (words, result["error"])
        assert result["loaded"] == [], words


def test_errors_of_such_commands_import_no_slow_package(tmp_path):
    missing = [["score", "nothing"], ["prepare", "table", "nothing.csv", "out.jsonl.gz"], ["lm", "train", "none", "x"]]
    for result in run_all(missing, tmp_path):
        assert result["status"] == 2 and result["loaded"] == []


@pytest.mark.parametrize("typed", ["dec", "decode --me", "train --set training.max_s"])
def test_what_a_shell_completes_imports_no_slow_package(tmp_path, typed):
    words = typed.split()
    environment = {
        "_ASRTOOL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["asrtool", *words]),
        "COMP_CWORD": str(len(words)),
    }
    assert run_all([[]], tmp_path, **environment)[0]["loaded"] == []


def test_training_and_decoding_import_scipys_filters_only_where_they_are_applied():
    """scipy.signal takes half as long to import as torch; it is for augmentation with rooms and telephone bands."""
    code = "import sys, asrtool.training.train, asrtool.decoding.decode; print('scipy.signal' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
