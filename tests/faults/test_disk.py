"""Full disks and read-only folders: one error line that names the path, and nothing lost or left behind."""

import shutil
import subprocess

import pytest

from tests.faults.commands import contents, run, temporary


def prepare(given, disk):
    return "prepare", "table", given.table, disk / "out.jsonl.gz"


def features(given, disk):
    return "features", given.cuts, disk / "fb.jsonl.gz", "--num-bins", 80, "--jobs", 1


def tokenizer(given, disk):
    return "tokenizer", given.cuts, disk / "tokenizer.json", "--type", "word"


def language_model(given, disk):
    return "lm", "train", given.text, disk / "lm.arpa"


def graph(given, disk):
    return "graph", disk / "graph", "--tokenizer", given.tokenizer, "--lm", given.arpa


def train(given, disk):
    return "train", given.config, "--exp", disk / "exp", "--device", "cpu"


def decode(given, disk):
    return "decode", disk / "exp", given.cuts, "--device", "cpu", "--workers", 0


def adapt(given, disk):
    return "adapt", given.exp, given.cuts, "--out", disk / "adapted", "--device", "cpu", "--workers", 0, "--epochs", 1


def transcribe(given, disk):
    options = ("--device", "cpu", "--vad", "none", "--format", "txt,json,ctm")
    return "transcribe", given.exp, given.cuts.parent, "--output-dir", disk / "out", *options


COMMANDS = [prepare, features, tokenizer, language_model, graph, train, decode, adapt, transcribe]


def put_experiment(given, disk, command):
    """Copies the experiment for `decode`, which writes into the experiment that it reads."""
    if command is decode:
        shutil.copytree(given.exp, disk / "exp", dirs_exist_ok=True)


def fill(disk, left):
    """Writes a file that leaves `left` bytes of the disk."""
    (disk / "other").write_bytes(b"x" * (shutil.disk_usage(disk).free - left))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("left", [0, 4096])
def test_a_full_disk_is_one_error_line_and_leaves_nothing_half_written(given, mount, tmp_path, command, left):
    disk = mount("4m")
    put_experiment(given, disk, command)
    fill(disk, left)
    before = contents(disk, "*")
    finished = run(tmp_path, *command(given, disk))
    if left and finished.status == 0:
        return  # its output fits
    assert finished.refused("space", str(disk)), finished.printed
    assert not temporary(disk)
    assert contents(disk, "*").items() >= before.items()


@pytest.mark.parametrize("command", [prepare, tokenizer, language_model, graph])
def test_a_full_disk_leaves_the_old_result_unchanged(given, mount, tmp_path, command):
    disk = mount("4m")
    assert run(tmp_path, *command(given, disk)).status == 0
    before = contents(disk, "*")
    fill(disk, 0)
    finished = run(tmp_path, *command(given, disk))
    assert finished.refused("space", str(disk)), finished.printed
    after = contents(disk, "*")
    assert {name: after[name] for name in before if name != ".lock"} == {n: before[n] for n in before if n != ".lock"}
    assert not temporary(disk)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_folder_is_one_error_line(given, mount, tmp_path, command):
    disk = mount("8m")
    put_experiment(given, disk, command)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    finished = run(tmp_path, *command(given, disk))
    assert finished.refused("ead-only", str(disk)), finished.printed


def test_a_full_temporary_folder_does_not_give_a_truncated_graph(given, mount, tmp_path):
    disk = mount("16k")
    fill(disk, 4096)
    words = "".join(f"-1 w{number}\n" for number in range(3000))
    arpa = tmp_path / "big.arpa"
    arpa.write_text(f"\\data\\\nngram 1=3002\n\n\\1-grams:\n-9 <s>\n-1 </s>\n{words}\\end\\\n", encoding="utf-8")
    (tmp_path / "lexicon.txt").write_text("".join(f"w{number} one two\n" for number in range(3000)), encoding="utf-8")
    options = ("--tokenizer", given.tokenizer, "--lm", arpa, "--lexicon", tmp_path / "lexicon.txt")
    finished = run(tmp_path, "graph", tmp_path / "graph", *options, before=("temporary_space", str(disk)))
    assert finished.refused("space", str(disk)), finished.printed
    assert not (tmp_path / "graph" / "graph.json").exists()


def test_transcribe_completes_after_a_full_disk(given, mount, tmp_path):
    disk = mount("4m")
    fill(disk, 40_000)  # for the outputs of some recordings
    finished = run(tmp_path, *transcribe(given, disk))
    assert finished.refused("space", str(disk)), finished.printed
    first = contents(disk / "out", "*.ctm")  # the last format that is written for a recording
    (disk / "other").unlink()
    finished = run(tmp_path, *transcribe(given, disk))
    assert finished.status == 0 and f", {len(first)} done before" in finished.printed, finished.printed
    after = contents(disk / "out", "*.ctm")
    assert 0 < len(first) < len(after) == 24 and after.items() >= first.items()
    assert len(contents(disk / "out", "*.txt", "*.json")) == 48 and not temporary(disk)
