"""What a command may replace: sets keep their names, results of other options stay, scores go with their hypotheses."""

import json
import shutil
import subprocess
import sys

import pytest
from lhotse import CutSet

from asrtool.data.lhotse_sets import open_cuts
from asrtool.decoding.partial_results import DecodedBatches, DecodingTimes, PartialResults
from asrtool.decoding.result_folder import set_names, write_result
from asrtool.distributed import SINGLE_PROCESS
from asrtool.errors import UserError
from asrtool.readers import MAX_LINE_BYTES
from tests.tiny import make_experiment

FAST = ("--device", "cpu", "--workers", 0)


@pytest.fixture
def exp(experiment, tmp_path):
    """A copy of the experiment."""
    return shutil.copytree(experiment, tmp_path / "exp")


@pytest.fixture
def part(corpus, tmp_path):
    """part("a/test.jsonl.gz", 0, 3) -> a manifest of these cuts of the corpus"""

    def write(name, first=0, last=2, change=lambda cut: None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cuts = list(open_cuts(corpus))[first:last]
        for cut in cuts:
            change(cut)
        CutSet.from_cuts(cuts).to_file(path)
        return path

    return write


def ids(folder):
    return [json.loads(line)["id"] for line in (folder / "hyps.jsonl").read_text(encoding="utf-8").splitlines()]


def test_names_that_differ_after_a_dot_are_two_sets(exp, asr, part):
    first, second = part("test.clean.jsonl.gz", 0, 2), part("test.other.jsonl.gz", 2, 5)
    status, out, _ = asr("decode", exp, first, second, *FAST)
    assert status == 0 and [line.split()[0] for line in out.splitlines()] == ["test.clean", "test.other"]
    assert len(ids(exp / "decode/test.clean/greedy")) == 2 and len(ids(exp / "decode/test.other/greedy")) == 3


@pytest.mark.parametrize("command", ["decode", "stream"])
def test_two_sets_of_one_name_are_refused_before_any_work_unless_names_are_given(
    stream_experiment, tmp_path, asr, part, command
):
    exp = shutil.copytree(stream_experiment, tmp_path / "exp")
    cuts = part("a/test.jsonl.gz", 0, 2), part("b/test.jsonl.gz", 2, 5)
    status, out, err = asr(command, exp, *cuts, "--device", "cpu")
    assert status == 2 and out == "" and "have the same set name, 'test'" in err and err.count("\n") == 1
    assert not (exp / command).exists()
    assert asr(command, exp, *cuts, "--device", "cpu", "--name", "one", "--name", "two")[0] == 0
    assert [len(ids(exp / command / name / "greedy")) for name in ("one", "two")] == [2, 3]


@pytest.mark.parametrize(
    "names", [["a"], ["a", "b", "c"], ["a", "a"], ["a", ".."], ["a", ""], ["a", "b/c"], ["a", "\n"]]
)
def test_names_that_cannot_be_folders_are_refused(tmp_path, names):
    with pytest.raises(UserError):
        set_names([tmp_path / "x.jsonl", tmp_path / "y.jsonl"], names)


@pytest.mark.parametrize(
    "change", ["checkpoint", "--method", "--beam", "cuts", "nbest"]
)  # fmt: skip
def test_a_result_of_other_options_is_not_replaced(exp, asr, part, change):
    first = part("a/test.jsonl.gz", 0, 2)
    (exp / "checkpoints/other.pt").write_bytes((exp / "checkpoints/best.pt").read_bytes())
    base = ("decode", exp, first, *FAST, "--method", "prefix")
    other = {
        "checkpoint": (*base, "--checkpoint", exp / "checkpoints/other.pt"),
        "--beam": (*base, "--beam", 2),
        "nbest": (*base, "--nbest", 2),
        "cuts": ("decode", exp, part("b/test.jsonl.gz", 2, 5), *FAST, "--method", "prefix"),
        "--method": (*base, "--method", "greedy"),
    }[change]
    assert asr(*base)[0] == 0
    before = (exp / "decode/test/prefix/hyps.jsonl").read_bytes()
    status, out, err = asr(*other)
    if change == "--method":  # another folder, and the same result again
        assert status == 0 and (exp / "decode/test/greedy/hyps.jsonl").is_file()
        return
    assert status == 2 and out == "" and err.count("\n") == 1 and change.strip("-") in err
    assert "--tag NAME" in err and "--overwrite" in err
    assert (exp / "decode/test/prefix/hyps.jsonl").read_bytes() == before
    assert asr(*other, "--tag", "new")[0] == 0 and (exp / "decode/test/prefix-new/hyps.jsonl").is_file()
    assert (exp / "decode/test/prefix/hyps.jsonl").read_bytes() == before
    assert asr(*other, "--overwrite")[0] == 0 and asr(*other)[0] == 0


def test_the_same_command_replaces_its_result_also_after_more_training(exp, asr, part, tiny_config, tokenizer_file):
    cuts = part("test.jsonl.gz")
    assert asr("decode", exp, cuts, *FAST)[0] == 0
    make_experiment(exp, tiny_config(), tokenizer_file, bias=3.0)
    assert asr("decode", exp, cuts, *FAST)[0] == 0


def test_an_option_without_effect_on_the_method_does_not_make_another_result(exp, asr, part):
    cuts = part("test.jsonl.gz")
    assert asr("decode", exp, cuts, *FAST, "--method", "greedy", "--method", "prefix", "--beam", 4)[0] == 0
    assert asr("decode", exp, cuts, *FAST, "--method", "greedy")[0] == 0


def test_hypotheses_without_recorded_options_are_not_replaced(exp, asr, part):
    mine = exp / "decode/test/greedy/hyps.jsonl"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    status, _, err = asr("decode", exp, part("test.jsonl.gz"), *FAST)
    assert status == 2 and "does not record" in err and mine.read_text() == "mine"


@pytest.mark.parametrize("command, facts", [("decode", "decode.json"), ("stream", "stream.json")])
def test_a_new_result_removes_the_scores_of_the_old_one(stream_experiment, tmp_path, asr, part, command, facts):
    exp = shutil.copytree(stream_experiment, tmp_path / "exp")
    cuts, folder = part("test.jsonl.gz"), exp / command / "test/greedy"
    assert asr(command, exp, cuts, "--device", "cpu")[0] == 0 and asr("score", folder)[0] == 0
    assert (folder / "wer.json").is_file()
    (folder / "notes.txt").write_text("mine")
    assert asr(command, exp, cuts, "--device", "cpu")[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted([".lock", facts, "hyps.jsonl", "notes.txt"])


def test_a_failure_to_write_keeps_the_old_result_and_its_scores(tmp_path):
    write_result(tmp_path, [{"id": "a", "ref": "a", "hyp": "a"}], "decode.json", {"run": 1})
    (tmp_path / "wer.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def rows():
        yield {"id": "b", "ref": "b", "hyp": "b"}
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="no space left"):
        write_result(tmp_path, rows(), "decode.json", {"run": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


HOLD = """
import sys, time
from asrtool.locks import write_lock
with write_lock(sys.argv[1], "asrtool decode"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("command", ["decode", "stream", "rescore"])
def test_a_second_writer_is_refused_with_the_process_of_the_first(stream_experiment, tmp_path, asr, part, command):
    exp = shutil.copytree(stream_experiment, tmp_path / "exp")
    cuts, source = part("test.jsonl.gz"), exp / "decode/test/prefix"
    folder = tmp_path / "out" if command == "rescore" else exp / command / "test/greedy"
    if command == "rescore":
        assert asr("decode", exp, cuts, *FAST, "--method", "prefix", "--nbest", 2)[0] == 0
    folder.mkdir(parents=True)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        given = (source, folder, "--mbr") if command == "rescore" else (exp, cuts, "--device", "cpu")
        status, _, err = asr(command, *given)
        lines = err.splitlines()
        assert status == 2 and f"in use by asrtool decode (process {holder.pid} on " in lines[-1]
    finally:
        holder.kill()
        holder.wait()
    assert asr(command, *given)[0] == 0  # the lock ends with its holder


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff", b"7", b'{"batches": 1}', b'{"batches": 1, "times": [], "rows": 0}']
    + [b'{"batches": 1, "times": {}, "rows": 1}\n' + rows for rows in (b"", b"7", b'{"id": 1}', b'{"id": "1"}\n{')],
)
def test_a_damaged_partial_result_is_decoded_again(tmp_path, damage):
    parts = PartialResults(tmp_path, "run", SINGLE_PROCESS)
    for number in range(3):
        parts.write(number, DecodedBatches(1, rows=[{"id": str(number)}]))
    (parts.folder / "0-000001.jsonl").write_bytes(damage)
    assert parts.resume() == (1, 1)
    assert sorted(path.name for path in parts.folder.iterdir()) == ["0-000000.jsonl"]  # nothing is counted twice
    parts.finish(2)
    with pytest.raises(UserError, match="0-000001.jsonl"):
        parts.read_rank(0)


def test_a_file_of_partial_results_has_no_limit_of_size(tmp_path, monkeypatch):
    monkeypatch.setattr("asrtool.readers.MAX_JSON_BYTES", 1000)
    parts = PartialResults(tmp_path, "run", SINGLE_PROCESS)
    rows = [{"id": str(number), "nbest": ["one two"] * 9} for number in range(100)]
    parts.write(0, DecodedBatches(3, DecodingTimes(audio=2.5), rows))
    parts.finish(1)
    assert parts.resume() == (1, 3)
    assert parts.read_rank(0) == [DecodedBatches(3, DecodingTimes(audio=2.5), rows)]


def test_a_row_that_no_reader_takes_is_refused_while_decoding(tmp_path):
    rows = [{"id": "short"}, {"id": "long", "hyp": "ä" * (MAX_LINE_BYTES // 2)}]
    with pytest.raises(UserError, match="hypotheses of long take more than 8 MB; give a smaller --nbest"):
        PartialResults(tmp_path, "run", SINGLE_PROCESS).write(0, DecodedBatches(1, rows=rows))


def test_damaged_lattices_are_named(tmp_path):
    parts = PartialResults(tmp_path, "run", SINGLE_PROCESS)
    parts.write(0, DecodedBatches(1, lattices=["a\n0 1 2\n\n"] * 50))
    parts.finish(1)
    path = parts.folder / "0-000000.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    with pytest.raises(UserError, match="0-000000.gz is damaged"):
        parts.join_lattices(tmp_path / "lat.gz")
    assert not (tmp_path / "lat.gz").exists()
