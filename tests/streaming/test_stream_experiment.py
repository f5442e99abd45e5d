"""Streaming a manifest: `asrtool stream` and what it writes."""

import json
import shutil

import pytest
from lhotse import CutSet
from lhotse.supervision import AlignmentItem

from asrtool.data.lhotse_objects import read_cut
from asrtool.data.lhotse_sets import open_cuts
from asrtool.experiment import open_experiment
from asrtool.files import file_hash
from asrtool.streaming.latency import algorithmic_latency, emission_delays
from asrtool.streaming.partial_hypothesis import WordEmission
from tests.decoding.graphs import save_word_graph
from tests.tiny import RATE, write_other_weights


@pytest.fixture
def exp(stream_experiment, tmp_path):
    """A copy of the experiment that can stream."""
    return shutil.copytree(stream_experiment, tmp_path / "exp")


def rows(folder):
    return [json.loads(line) for line in (folder / "hyps.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def few(corpus, tmp_path_factory):
    """Six of the corpus's recordings, aligned: every word ends where the next one begins, after 0.45 s."""
    cuts = []
    for cut in list(open_cuts(corpus))[:6]:
        words = cut.supervisions[0].text.split()
        items = [AlignmentItem(word, 0.1 + 0.45 * number, 0.45) for number, word in enumerate(words)]
        cut.supervisions[0].alignment = {"word": items}
        cuts.append(cut)
    path = tmp_path_factory.mktemp("few") / "few.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(path)
    return path


@pytest.mark.parametrize("method", ["greedy", "prefix", "graph"])
def test_streamed_words_are_those_of_decode(exp, asr, few, method):
    graph = ["--graph", save_word_graph(exp / "graph", open_experiment(exp, device="cpu").tokenizer)]
    options = ["--method", method, *(graph if method == "graph" else [])]
    assert asr("decode", exp, few, *options, "--device", "cpu", "--workers", 0)[0] == 0
    status, out, _ = asr("stream", exp, few, *options, "--chunk-ms", 130)
    assert status == 0 and "6 recordings, 6 utterances" in out and "100 % of" in out and "a chunk of 130 ms" in out
    found, expected = rows(exp / "stream/few" / method), rows(exp / "decode/few" / method)
    keys = ("id", "speaker", "ref", "hyp", "units")
    assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in expected]
    assert any(row["hyp"] for row in found)
    facts = json.loads((exp / "stream/few" / method / "stream.json").read_text(encoding="utf-8"))
    assert (facts["set"], facts["method"], facts["checkpoint"], facts["endpoints"]) == ("few", method, "best.pt", False)
    assert facts["command"].startswith("asrtool stream ") and {"version", "git"} <= facts.keys()
    assert facts["rtf"] > 0 and 0 < facts["compute_ms"]["median"] <= facts["compute_ms"]["max"]


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_checkpoint_that_changes_meanwhile_is_named_as_it_was(exp, asr, few, monkeypatch, change):
    """A training that runs links best.pt to another file, and removes the checkpoints of steps."""
    path = exp / "checkpoints/best.pt"
    sha256 = file_hash(path)

    def read_and_change(entry):
        if change == "removed":
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(b"other weights")
        return read_cut(entry)

    monkeypatch.setattr("asrtool.streaming.stream.read_cut", read_and_change)
    status, _, err = asr("stream", exp, few)
    assert status == 0, err
    assert json.loads((exp / "stream/few/greedy/stream.json").read_text())["checkpoint_sha256"] == sha256


def test_the_folder_can_be_scored_under_the_name_of_its_set(exp, asr, few):
    assert asr("stream", exp, few)[0] == 0
    status, out, _ = asr("score", exp / "stream/few/greedy")
    assert status == 0 and out.startswith("few WER")
    assert "Speakers, the highest rate first" in (exp / "stream/few/greedy/report.txt").read_text()
    assert sorted(path.name for path in (exp / "stream/few/greedy").iterdir())[-2:] == ["stream.json", "wer.json"]


def test_utterances_of_one_recording_are_joined(exp, asr, few):
    _, out, _ = asr("stream", exp, few, "--endpoint", "length=0.5")
    facts = json.loads((exp / "stream/few/greedy/stream.json").read_text(encoding="utf-8"))
    assert facts["endpoints"] and facts["utterances"] > 12 and f"6 recordings, {facts['utterances']} utterances" in out
    for row in rows(exp / "stream/few/greedy"):
        times = [at for _, at in row["units"]]
        assert times == sorted(times) and [unit for unit, _ in row["units"]] == row["hyp"].split()
    assert max(row["units"][-1][1] for row in rows(exp / "stream/few/greedy") if row["units"]) > 1


def test_delays_count_from_the_end_of_a_correctly_recognised_word():
    words = [("a", 1.0), ("b", 1.5), ("c", 2.0)]
    emissions = [WordEmission("a", 1.25, 1.75), WordEmission("x", 1.75, 1.75), WordEmission("c", 1.5, 2.5)]
    assert emission_delays(emissions, words) == [(0.25, 0.75), (-0.5, 0.5)]
    assert emission_delays([], words) == emission_delays(emissions, []) == []


def test_alignments_may_come_from_another_manifest(exp, asr, few, corpus, tmp_path):
    plain = tmp_path / "few.jsonl.gz"
    CutSet.from_cuts(list(open_cuts(corpus))[:6]).to_file(plain)
    assert "emission delay" not in asr("stream", exp, plain)[1]
    sources = ([few], [plain, "--alignments", few])
    with_own, with_other = (asr("stream", exp, *more, "--overwrite")[1] for more in sources)
    assert "emission delay" in with_own and "emission delay" in with_other


def test_the_latency_is_that_of_model_and_features(stream_experiment):
    experiment = open_experiment(stream_experiment, device="cpu")
    right, chunk = experiment.model.latency()
    assert algorithmic_latency(experiment) == {
        "max": 10 * (right + chunk) + 7.5,
        "mean": 10 * (right + (chunk + 4) / 2) + 7.5,
    }


def test_a_decoding_with_another_checkpoint_is_not_compared(exp, asr, few):
    assert asr("decode", exp, few, "--device", "cpu", "--workers", 0)[0] == 0
    write_other_weights(exp / "checkpoints/best.pt", exp / "checkpoints/other.pt")
    _, out, err = asr("stream", exp, few, "--checkpoint", exp / "checkpoints/other.pt")
    assert "offline" not in out and "is of best.pt, not of other.pt: not compared" in err
    shutil.move(exp / "checkpoints/other.pt", exp / "checkpoints/best.pt")
    _, out, err = asr("stream", exp, few, "--checkpoint", "best", "--overwrite")
    assert "offline" not in out and "is of other weights named best.pt: not compared" in err


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["CUTS", "--wav", "a.wav"], "give one input, --microphone, --pcm FORMAT, --wav FILE, or manifests of cuts"),
        ([], "give one input, --microphone, --pcm FORMAT, --wav FILE, or manifests of cuts; none is given"),
        (["--microphone", "--pcm", "16000"], "not --microphone and --pcm"),
        (["CUTS", "--json"], "--json has no effect without --microphone, --pcm or --wav"),
        (["CUTS", "--input-device", "1"], "--input-device has no effect without --microphone"),
        (["--wav", "a.wav", "--out", "x"], "--out has no effect without CUTS"),
        (["--wav", "a.wav", "--name", "x"], "--name has no effect without CUTS"),
        (["--wav", "a.wav", "--max-minutes", "1"], "--max-minutes has no effect here: it is for CUTS"),
        (["--pcm", "16000", "--max-minutes", "1"], "--max-minutes has no effect here: it is for CUTS"),
        (["--wav", "none.wav"], "no such audio file: none.wav"),
        (["--wav", "TEXT"], "not readable as audio"),
        (["--pcm", "8k"], "'8k' is not a PCM format"),
        (["none.jsonl.gz"], "manifest not found: none.jsonl.gz"),
        (["CUTS", "--endpoint", "silence=1"], "'silence=1' is not a condition"),
        (["CUTS", "--method", "graph"], "--method graph needs --graph FOLDER"),
        (["CUTS", "--method", "greedy", "--beam", "3"], "--beam has no effect on --method greedy"),
        (["CUTS", "--method", "graph", "--graph", "none"], "graph not found"),
        (["CUTS", "--alignments", "CORPUS"], "has no alignments of words; create them with `asrtool align`"),
    ],
)
def test_usage_errors_are_one_line(exp, asr, few, corpus, options, complaint):
    files = {"CUTS": few, "CORPUS": corpus, "TEXT": exp / "config.yaml"}
    status, out, err = asr("stream", exp, *[files.get(option, option) for option in options])
    assert status == 2 and out == "" and complaint in err and err.count("\n") == 1
    assert not (exp / "stream").exists()


def test_a_model_that_needs_the_whole_utterance_is_refused(asr, few, experiment):
    status, _, err = asr("stream", experiment, few)
    assert status == 2 and f"{experiment} cannot stream: model.mask is full" in err and err.count("\n") == 1


@pytest.mark.parametrize("problem", ["gone", "rate"])
def test_bad_audio_is_named_and_nothing_is_left(exp, asr, write_audio, few, tmp_path, problem):
    cuts = list(open_cuts(few))
    path = write_audio(tmp_path / "bad.flac", rate=8000 if problem == "rate" else RATE)
    cuts[1].recording.sources[0].source = str(path)
    if problem == "gone":
        path.unlink()
    else:
        cuts[1].recording.sampling_rate = 8000
    bad = tmp_path / "bad.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(bad)
    status, _, err = asr("stream", exp, bad)
    said = "8000 Hz, the model needs 16000 Hz" if problem == "rate" else "cannot read"
    assert status == 1 and f"{cuts[1].id}: {said}" in err
    assert not [path for path in (exp / "stream").rglob("*") if path.is_file()]
