"""Manifests that cannot be decoded as they are: what is wrong is named before any time is spent."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, Recording
from lhotse.supervision import AlignmentItem

from asrtool import checkpoint
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.sources import as_data_error
from asrtool.errors import DataError
from asrtool.experiment import check_finite, open_experiment
from asrtool.streaming import stream as streaming
from asrtool.streaming.latency import aligned_words
from tests.decoding.graphs import save_word_graph
from tests.tiny import RATE, tone


@pytest.fixture
def exp(stream_experiment, tmp_path):
    """A copy of the experiment that can stream."""
    return shutil.copytree(stream_experiment, tmp_path / "exp")


@pytest.fixture
def manifest(corpus, tmp_path):
    """manifest(change) -> the manifest of six cuts, after `change` of the list of them"""

    def write(change, name="test.jsonl.gz"):
        cuts = list(open_cuts(corpus))[:6]
        CutSet.from_cuts(change(cuts) or cuts).to_file(tmp_path / name)
        return tmp_path / name

    return write


def commands(exp, cuts, tmp_path):
    graph = save_word_graph(tmp_path / "graph", open_experiment(exp, device="cpu").tokenizer)
    return [
        ("decode", exp, cuts, "--device", "cpu"),
        ("stream", exp, cuts),
        ("align", exp, cuts, tmp_path / "out.jsonl.gz", "--device", "cpu"),
        ("tune", exp, cuts, "--graph", graph, "--device", "cpu"),
    ]


def test_an_id_that_occurs_twice_is_refused_by_all(exp, asr, corpus, tmp_path):
    cuts = [json.dumps(cut.to_dict()) for cut in open_cuts(corpus)][:4]
    (tmp_path / "dup.jsonl").write_text("\n".join([*cuts[:2], cuts[0], *cuts[2:]]) + "\n")
    for command in commands(exp, tmp_path / "dup.jsonl", tmp_path):
        status, out, err = asr(*command)
        assert status == 1 and out == "" and "a-00: duplicate id" in err, command
    assert not (tmp_path / "out.jsonl.gz").exists() and not (exp / "decode").exists()


def test_long_cuts_are_refused_by_name_before_they_are_read(exp, asr, manifest, tmp_path):
    def lengthen(cuts):
        cuts[1].duration = cuts[1].recording.duration = 7200.0
        cuts[1].recording.num_samples = 7200 * RATE
        cuts[1].supervisions[0].duration = 7200.0

    for command in commands(exp, manifest(lengthen), tmp_path):
        status, out, err = asr(*command)
        assert status == 1 and out == "" and "b-01: 120.0 minutes long, more than --max-minutes" in err, command


@pytest.mark.parametrize("minutes, status", [("0.04", 0), ("0.01", 1), ("nan", 2), ("0", 2), ("inf", 2)])
def test_the_limit_is_an_option(exp, asr, manifest, minutes, status):
    cuts = manifest(lambda cuts: cuts[:4])
    assert asr("decode", exp, cuts, "--device", "cpu", "--max-minutes", minutes)[0] == status


def test_cuts_beyond_what_the_model_was_trained_on_are_counted(exp, asr, manifest):
    text = (exp / "config.yaml").read_text()
    (exp / "config.yaml").write_text(text.replace("max_seconds: 30.0", "max_seconds: 2.0"))
    assert "max_seconds: 2.0" in (exp / "config.yaml").read_text()
    status, _, err = asr("decode", exp, manifest(lambda cuts: None), "--device", "cpu")
    long = sum(cut.duration > 2.0 for cut in open_cuts(manifest(lambda cuts: None)))
    assert status == 0 and long and f"{long} of 6 cuts" in err and "longer than 2 s, the longest" in err


@pytest.mark.parametrize("seconds", [0.001, 0.004])
def test_a_cut_without_a_frame_has_an_empty_hypothesis_and_is_named(exp, asr, manifest, tmp_path, seconds):
    def shorten(cuts):
        cuts[1].duration = cuts[1].supervisions[0].duration = seconds

    cuts = manifest(shorten)
    graph = save_word_graph(tmp_path / "graph", open_experiment(exp, device="cpu").tokenizer)
    for options in (["--method", "greedy", "--method", "prefix"], ["--method", "graph", "--graph", graph]):
        status, out, err = asr("decode", exp, cuts, "--device", "cpu", *options)
        assert status == 0 and "6 utterances" in out and "1 of 6 cuts are too short, with empty hypotheses: b-01" in err
    rows = [json.loads(line) for line in (exp / "decode/test/graph/hyps.jsonl").open()]
    (short,) = (row for row in rows if row["id"] == "b-01")
    assert short["hyp"] == "" and short["ref"] and short["words"] == short["units"] == [] and short["speaker"] == "b"
    assert asr("score", exp / "decode/test/graph")[0] == 0
    assert asr("stream", exp, cuts)[0] == 0
    status, _, err = asr("align", exp, cuts, tmp_path / "out.jsonl.gz", "--device", "cpu")
    assert status == 1 and "b-01: shorter than" in err and len(list(open_cuts(tmp_path / "out.jsonl.gz"))) < 6


def test_a_manifest_of_nothing_but_short_cuts_is_decoded(exp, asr, manifest):
    def shorten(cuts):
        for cut in cuts:
            cut.duration = cut.supervisions[0].duration = 0.002

    status, out, err = asr("decode", exp, manifest(shorten), "--device", "cpu", "--method", "prefix")
    assert status == 0 and "6 utterances" in out and "6 of 6 cuts are too short" in err


def test_cuts_without_transcripts_are_decoded_and_not_scored(exp, asr, manifest):
    def unlabelled(cuts):
        cuts[0].supervisions = []
        for cut in cuts[1:]:
            cut.supervisions[0].text = None

    cuts = manifest(unlabelled)
    for command in ("decode", "stream"):
        assert asr(command, exp, cuts, "--device", "cpu")[0] == 0
        status, out, err = asr("score", exp / command / "test/greedy")
        assert status == 2 and out == "" and "no reference words in 6 utterances" in err and err.count("\n") == 1


def test_utterances_without_reference_are_counted(exp, asr, manifest):
    def unlabelled(cuts):
        cuts[0].supervisions = []

    assert asr("decode", exp, manifest(unlabelled), "--device", "cpu")[0] == 0
    status, _, err = asr("score", exp / "decode/test/greedy")
    assert status == 0 and "1 of 6 utterances have no reference words" in err


def test_a_warning_is_logged_if_all_hypotheses_are_empty(asr, tmp_path):
    rows = [{"id": str(number), "ref": "a", "hyp": ""} for number in range(3)]
    (tmp_path / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "all 3 hypotheses are empty" in asr("score", tmp_path)[2]


@pytest.fixture
def overflowing(exp):
    """An experiment whose weights are finite, but whose log-probs are not."""
    path = exp / "checkpoints/best.pt"
    state = checkpoint.load_checkpoint(path)
    state["model"]["output.weight"] = torch.full_like(state["model"]["output.weight"], 3e38)
    checkpoint.save_checkpoint(path, state)
    return exp


@pytest.mark.parametrize("method", ["greedy", "prefix"])
@pytest.mark.parametrize("command", ["decode", "stream", "align"])
def test_cuts_with_log_probs_that_are_not_finite_are_named(overflowing, asr, manifest, tmp_path, command, method):
    options = [tmp_path / "out.jsonl.gz"] if command == "align" else ["--method", method]
    status, out, err = asr(command, overflowing, manifest(lambda cuts: None), *options, "--device", "cpu")
    assert status == 1 and out == "" and "the model's log-probs are not finite" in err and "a-00: " in err
    assert not list(overflowing.rglob("hyps.jsonl")) and not (tmp_path / "out.jsonl.gz").exists()


@pytest.mark.parametrize("command", ["decode", "stream"])
def test_a_command_that_stops_before_it_has_a_result_leaves_no_folder_for_it(overflowing, asr, manifest, command):
    """So that `asrtool score EXP/decode/*/greedy` only finds folders with hypotheses."""
    assert asr(command, overflowing, manifest(lambda cuts: None), "--device", "cpu")[0] == 1
    assert not (overflowing / command / "test" / "greedy").exists()


def test_a_failed_run_keeps_an_earlier_result(exp, asr, manifest):
    cuts = manifest(lambda cuts: None)
    assert asr("decode", exp, cuts, "--device", "cpu")[0] == 0
    before = (exp / "decode/test/greedy/hyps.jsonl").read_bytes()
    path = exp / "checkpoints/best.pt"
    state = checkpoint.load_checkpoint(path)
    state["model"]["output.weight"] = torch.full_like(state["model"]["output.weight"], 3e38)
    checkpoint.save_checkpoint(path, state)
    assert asr("decode", exp, cuts, "--device", "cpu")[0] == 1
    assert (exp / "decode/test/greedy/hyps.jsonl").read_bytes() == before


def test_if_no_cut_can_be_aligned_nothing_is_written(exp, asr, manifest, tmp_path):
    def without_transcripts(cuts):
        for cut in cuts:
            cut.supervisions[0].text = ""

    out, ctm = tmp_path / "out.jsonl.gz", tmp_path / "out.ctm"
    status, _, err = asr("align", exp, manifest(without_transcripts), out, "--ctm", ctm, "--device", "cpu")
    assert status == 1 and "none of the 6 cuts" in err and "a-00: no transcript" in err
    assert not out.exists() and not ctm.exists()


def test_padding_need_not_be_finite():
    log_probs = torch.zeros(2, 3, 4)
    log_probs[1, 2] = float("nan")
    check_finite(log_probs, torch.tensor([3, 2]), ["a", "b"])
    with pytest.raises(DataError, match="  b: "):
        check_finite(log_probs, torch.tensor([3, 3]), ["a", "b"])


def test_long_recordings_are_streamed_in_blocks(exp, asr, tmp_path, monkeypatch):
    sounds = [tone(300 * (1 + n % 9), 0.3, n) for n in range(20)]
    soundfile.write(tmp_path / "long.flac", np.concatenate(sounds), RATE)
    CutSet.from_cuts([Recording.from_file(tmp_path / "long.flac").to_cut()]).to_file(tmp_path / "long.jsonl.gz")
    texts = []
    for seconds in (60.0, 0.7):
        monkeypatch.setattr(streaming, "BLOCK_SECONDS", seconds)
        assert asr("stream", exp, tmp_path / "long.jsonl.gz")[0] == 0
        texts.append((exp / "stream/long/greedy/hyps.jsonl").read_text())
    assert texts[0] == texts[1] and json.loads(texts[0])["hyp"]


@pytest.mark.parametrize("what", ["GONE", "EMPTY", "FOLDER", "NAN"])
def test_files_that_cannot_be_streamed_are_refused_in_one_line(exp, asr, tmp_path, what):
    path = tmp_path / "x.wav"
    if what == "EMPTY":
        path.touch()
    elif what == "FOLDER":
        path.mkdir()
    elif what == "NAN":
        soundfile.write(path, np.array([0.1, np.nan] * 8000, dtype="float32"), RATE, subtype="FLOAT")
    status, _, err = asr("stream", exp, "--wav", path)
    assert status == 2 and err.count("\n") == 1 and "x.wav" in err, err


def test_an_alignment_without_times_names_its_cut(manifest):
    (cut, *_) = open_cuts(manifest(lambda cuts: None))
    for start in ("x", float("nan"), None, 10**400, [], {}):
        item = AlignmentItem("a", start, 1.0)
        cut.supervisions[0].alignment = {"word": [item]}
        with pytest.raises(DataError, match="a-00: its alignment"), as_data_error():
            aligned_words(cut)


def test_a_damaged_offline_result_does_not_stop_streaming(exp, asr, manifest):
    cuts = manifest(lambda cuts: None)
    assert asr("decode", exp, cuts, "--device", "cpu")[0] == 0
    (exp / "decode/test/greedy/decode.json").write_bytes(b"\xff")
    status, _, err = asr("stream", exp, cuts)
    assert status == 0 and "not compared with the offline decoding" in err
    assert (exp / "stream/test/greedy/hyps.jsonl").is_file()


def rename(names, sources=None):
    """A change of the recordings' ids, and of their files."""

    def change(cuts):
        for number, cut in enumerate(cuts):
            cut.recording.id = names[number % len(names)]
            if sources:
                cut.recording.sources[0].source = sources[number % len(sources)]

    return change


@pytest.mark.parametrize("names, complaint", [
    (["one"], "one: the recording id of two files, "),
    (["my file", "b", "c", "d", "e", "f"], "'my file': a recording id with white space"),
    (["a\tb", "b", "c", "d", "e", "f"], "a recording id with white space"),
    (["a\nb", "b", "c", "d", "e", "f"], "a recording id with white space"),
    (["a\u00a0b", "b", "c", "d", "e", "f"], "a recording id with white space"),
])  # fmt: skip
def test_recordings_that_a_ctm_cannot_tell_apart_are_refused(exp, asr, manifest, tmp_path, names, complaint):
    cuts = manifest(rename(names))
    out, ctm = tmp_path / "out.jsonl.gz", tmp_path / "out.ctm"
    status, _, err = asr("align", exp, cuts, out, "--ctm", ctm, "--device", "cpu")
    assert status == 1 and complaint in err and not out.exists() and not ctm.exists()
    assert asr("align", exp, cuts, out, "--device", "cpu")[0] in (0, 1) and out.exists()


def test_cuts_of_one_recording_share_a_name_in_the_ctm(exp, asr, corpus, tmp_path):
    (cut, *_) = open_cuts(corpus)
    halves = [cut.with_id("h1"), cut.with_id("h2")]
    for half in halves:
        half.supervisions[0].text = "one"
    CutSet.from_cuts(halves).to_file(tmp_path / "halves.jsonl.gz")
    out, ctm = tmp_path / "out.jsonl.gz", tmp_path / "out.ctm"
    assert asr("align", exp, tmp_path / "halves.jsonl.gz", out, "--ctm", ctm, "--device", "cpu")[0] == 0
    assert [line.split()[0] for line in ctm.read_text().splitlines()] == 2 * [cut.recording_id]


@pytest.mark.parametrize("out, ctm", [
    ("CUTS", None), ("out.txt", None), ("FOLDER", None), ("out.jsonl.gz", "CUTS"), ("out.jsonl.gz", "sound.wav"),
])  # fmt: skip
def test_outputs_of_align_that_would_replace_something_else_are_refused(exp, asr, manifest, tmp_path, out, ctm):
    cuts = manifest(lambda cuts: None)
    (tmp_path / "folder.jsonl.gz").mkdir()
    (tmp_path / "sound.wav").write_text("mine")
    before = cuts.read_bytes()
    places = {"CUTS": cuts, "FOLDER": tmp_path / "folder.jsonl.gz", None: None}
    out, ctm = (places.get(name, tmp_path / str(name)) for name in (out, ctm))
    status, _, err = asr("align", exp, cuts, out, *(["--ctm", ctm] if ctm else []), "--device", "cpu")
    assert status == 2 and "OUT is" in err and err.count("\n") == 1
    assert cuts.read_bytes() == before and (tmp_path / "sound.wav").read_text() == "mine"


def test_ids_with_white_space_cannot_be_keys_of_lattices(exp, asr, manifest, tmp_path):
    def rename_cut(cuts):
        return [cut.with_id(f"my {cut.id}") for cut in cuts]

    graph = save_word_graph(tmp_path / "graph", open_experiment(exp, device="cpu").tokenizer)
    cuts = manifest(rename_cut)
    options = ("--device", "cpu", "--method", "graph", "--graph", graph)
    status, _, err = asr("decode", exp, cuts, *options, "--lattices")
    assert status == 1 and "'my a-00': an id with white space" in err and not (exp / "decode").exists()
    assert asr("decode", exp, cuts, *options)[0] == 0


def test_an_empty_manifest_is_refused(exp, asr, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    for command in ("decode", "stream"):
        status, _, err = asr(command, exp, tmp_path / "empty.jsonl")
        assert status == 2 and "manifest is empty" in err


@pytest.mark.parametrize("command", ["decode", "stream"])
@pytest.mark.parametrize(
    "option", ["--insertion-penalty", "--lm-weight", "--blank-penalty", "--acoustic-scale", "--beam"]
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "x"])
def test_numbers_that_are_not_finite_are_refused(exp, asr, manifest, command, option, value):
    status, out, err = asr(command, exp, "none.jsonl.gz", option, value)
    assert status == 2 and option in err and err.count("\n") == 1


@pytest.mark.parametrize("command, option, value", [
    ("decode", "--nbest", 10**9), ("decode", "--jobs", 10**6), ("decode", "--workers", 10**6),
    ("decode", "--threads", 10**9), ("decode", "--batch-seconds", "nan"), ("stream", "--chunk-ms", "inf"),
    ("stream", "--chunk-ms", "1e-9"), ("stream", "--threads", 0), ("align", "--batch-seconds", "nan"),
    ("tune", "--rounds", 10**6), ("tune", "--lattice-beam", "inf"), ("rescore", "--weight", "nan"),
    ("rescore", "--context", 10**9), ("export", "--threads", 10**9),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(asr, command, option, value):
    needed = {"tune": ["--graph", "g"], "align": ["out.jsonl.gz"]}.get(command, [])
    status, _, err = asr(command, "exp", "cuts.jsonl.gz", *needed, option, value)
    assert status == 2 and option in err and err.count("\n") == 1
