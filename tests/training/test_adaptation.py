"""Adaptation to speakers, and decoding with what it leaves."""

import json
import shutil

import pytest
import torch
from lhotse import CutSet

from asrtool import checkpoint
from asrtool.adapted_weights import weights_file
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.sampling import OrderedSampler
from asrtool.experiment import open_experiment
from asrtool.objectives.ctc import Ctc
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training.data_counts import unit_counts
from tests.tiny import equal, make_experiment

SPEAKERS = "abc"


@pytest.fixture(scope="module")
def trained(tiny_config, tokenizer_file, tmp_path_factory):
    """Experiments with random weights, by objective, with what their trainings would have counted."""
    folder = tmp_path_factory.mktemp("trained")
    for kind in ("ctc", "mmi", "ce"):
        data = {"exclude": str(folder / "of_the_training.txt")}  # it is on another machine
        make_experiment(folder / kind, tiny_config(objective={"kind": kind}, data=data), tokenizer_file, bias=0.0)
    config = tiny_config(objective={"kind": "mmi"})
    tokenizer = load_tokenizer(tokenizer_file)
    unit_counts(config.data, config.objective, tokenizer, folder / "mmi/unit_ngram.json")
    (folder / "ce/priors.json").write_text("[5, 1, 1, 1, 1]")
    return folder


@pytest.fixture
def exp(trained, tmp_path):
    """The one of CTC, with a place of its own."""
    return shutil.copytree(trained / "ctc", tmp_path / "exp")


def part(corpus, out, speaker, texts=None):
    """The cuts of one speaker as a manifest of their own, with other texts if there are `texts`."""
    cuts = [cut for cut in CutSet.from_file(corpus) if cut.supervisions[0].speaker in speaker]
    for cut in cuts if texts else ():
        cut.supervisions[0].text = texts[cut.id]
    CutSet.from_cuts(cuts).to_file(out)
    return out


def rows(folder):
    return [json.loads(line) for line in (folder / "hyps.jsonl").read_text().splitlines()]


def weights(folder, speaker):
    return checkpoint.load_checkpoint(weights_file(folder, speaker))["model"]


def dev_loss(experiment, corpus, file=None):
    """Mean CTC loss of the manifest's cuts."""
    opened = open_experiment(experiment, str(file) if file else "averaged")
    dataset = SpeechDataset(opened.config, opened.tokenizer, training=False)
    losses = [
        Ctc()(*opened.log_probs(batch), batch) for batch in load_batches(dataset, OrderedSampler(corpus, 20.0), 0)
    ]
    return float(torch.cat(losses).mean())


def test_the_weights_of_a_speaker_depend_on_that_speaker_only(asr, exp, corpus, tmp_path):
    options = ["--lr", 1e-2, "--batch-seconds", 5, "--epochs", 10, "--workers", 0]
    status, out, err = asr("adapt", exp, corpus, *options)
    assert (status, out) == (
        0,
        f"{exp}/adapted/cuts: 3 speakers, adapted on {sum_of(corpus) / 60:.1f} minutes of audio\n",
    )
    folder = exp / "adapted/cuts"
    before = checkpoint.load_checkpoint(exp / "checkpoints/best.pt")["model"]
    for speaker in SPEAKERS:
        own = part(corpus, tmp_path / f"{speaker}.jsonl.gz", speaker)
        assert dev_loss(exp, own, folder / f"{speaker}.pt") < 0.7 * dev_loss(exp, own)
        assert not equal(weights(folder, speaker), before)
        asr("adapt", exp, own, "--out", tmp_path / "alone", *options)
        assert equal(weights(tmp_path / "alone", speaker), weights(folder, speaker))
        facts = json.loads((folder / f"{speaker}.json").read_text())
        assert facts["utterances"] == 8 and facts["bad_steps"] == 0 and facts["steps"] >= 10


def sum_of(corpus):
    return sum(cut.duration for cut in CutSet.from_file(corpus))


def test_with_hyps_the_hypotheses_replace_the_texts_of_the_manifest(asr, exp, corpus, tmp_path):
    asr("decode", exp, corpus)
    hypotheses = {row["id"]: row["hyp"] for row in rows(exp / "decode/cuts/greedy")}
    assert any(hypotheses.values())
    changed = part(corpus, tmp_path / "labelled.jsonl.gz", SPEAKERS, hypotheses)
    asr("adapt", exp, corpus, "--hyps", exp / "decode/cuts/greedy", "--workers", 0)
    asr("adapt", exp, changed, "--workers", 0)
    asr("adapt", exp, corpus, "--out", exp / "adapted/true", "--workers", 0)
    for speaker in SPEAKERS:
        assert equal(weights(exp / "adapted/cuts", speaker), weights(exp / "adapted/labelled", speaker))
        assert not equal(weights(exp / "adapted/cuts", speaker), weights(exp / "adapted/true", speaker))


def test_decode_uses_the_weights_of_each_speaker(asr, exp, corpus, tmp_path):
    asr("decode", exp, corpus)
    before = json.loads((exp / "decode/cuts/greedy/decode.json").read_text())
    asr("adapt", exp, corpus, "--hyps", exp / "decode/cuts/greedy", "--lr", 1e-2, "--workers", 0)
    status, _, _ = asr("decode", exp, corpus, "--adapted", exp / "adapted/cuts", "--batch-seconds", 6)
    results = {row["id"]: row for row in rows(exp / "decode/cuts/greedy_adapted")}
    assert status == 0 and len(results) == 24
    for speaker in SPEAKERS:
        own = part(corpus, tmp_path / f"{speaker}.jsonl.gz", speaker)
        asr("decode", exp, own, "--checkpoint", exp / f"adapted/cuts/{speaker}.pt", "--batch-seconds", 6)
        alone = rows(exp / f"decode/{speaker}/greedy")
        assert [(row["id"], row["hyp"], row["units"]) for row in alone] == [
            (name, row["hyp"], row["units"]) for name, row in sorted(results.items()) if row["speaker"] == speaker
        ]
    facts = json.loads((exp / "decode/cuts/greedy_adapted/decode.json").read_text())
    learnt = [json.loads((exp / f"adapted/cuts/{speaker}.json").read_text())["seconds"] for speaker in SPEAKERS]
    assert facts["rtf_before"] == pytest.approx(before["rtf"] + sum(learnt) / sum_of(corpus), abs=2e-5)
    assert facts["rtf"] > facts["rtf_before"]
    assert facts["adapted"] == str(exp / "adapted/cuts")


def test_a_second_round_uses_the_hypotheses_of_the_first_and_starts_from_the_same_weights(asr, exp, corpus):
    options = ["--lr", 1e-2, "--workers", 0]
    asr("decode", exp, corpus)
    asr("adapt", exp, corpus, "--hyps", exp / "decode/cuts/greedy", *options)
    asr("decode", exp, corpus, "--adapted", exp / "adapted/cuts")
    status, out, _ = asr("adapt", exp, corpus, "--hyps", exp / "decode/cuts/greedy_adapted", *options)
    assert status == 0 and out.startswith(f"{exp}/adapted2/cuts: ")
    asr("decode", exp, corpus, "--adapted", exp / "adapted2/cuts")
    facts = json.loads((exp / "decode/cuts/greedy_adapted2/decode.json").read_text())
    first = json.loads((exp / "decode/cuts/greedy_adapted/decode.json").read_text())
    assert facts["adapted_round"] == 2 and facts["rtf_before"] > first["rtf"]
    texts = {row["id"]: row["hyp"] for row in rows(exp / "decode/cuts/greedy_adapted")}
    asr("adapt", exp, part(corpus, exp / "labelled.jsonl.gz", SPEAKERS, texts), *options)
    assert equal(weights(exp / "adapted/labelled", "a"), weights(exp / "adapted2/cuts", "a"))


def test_decoding_with_other_weights_is_another_run(asr, exp, corpus):
    decode = ["decode", exp, corpus, "--adapted", exp / "adapted/cuts"]
    runs = set()
    for lr in (1e-3, 1e-2):
        asr("adapt", exp, corpus, "--lr", lr, "--workers", 0)
        asr(*decode)
        runs.add(json.loads((exp / "decode/cuts/greedy_adapted/decode.json").read_text())["run"])
    assert len(runs) == 2


def test_existing_weights_are_kept_and_missing_ones_are_written_bit_by_bit(asr, exp, corpus):
    folder = exp / "adapted/cuts"
    asr("adapt", exp, corpus, "--workers", 0)
    first = {speaker: weights(folder, speaker) for speaker in SPEAKERS}
    times = {speaker: (folder / f"{speaker}.pt").stat().st_mtime_ns for speaker in SPEAKERS}
    (folder / "b.json").unlink()  # as if it had been stopped before the end
    asr("adapt", exp, corpus, "--workers", 0)
    assert [s for s in SPEAKERS if (folder / f"{s}.pt").stat().st_mtime_ns != times[s]] == ["b"]
    assert equal({speaker: weights(folder, speaker) for speaker in SPEAKERS}, first)
    asr("adapt", exp, corpus, "--seed", 2, "--workers", 0)
    assert all((folder / f"{s}.pt").stat().st_mtime_ns != times[s] for s in SPEAKERS)


@pytest.mark.parametrize("options", [["--seed", 2], ["--lr", 1e-3], ["--epochs", 1]])
def test_weights_of_two_runs_are_not_decoded_together(asr, exp, corpus, tmp_path, options):
    """As after a run with other options that was interrupted; the same command again completes it."""
    asr("adapt", exp, corpus, "--workers", 0)
    asr("adapt", exp, corpus, "--workers", 0, *options, "--out", tmp_path / "other")
    for name in ("b.pt", "b.json"):
        shutil.copy(tmp_path / "other" / name, exp / "adapted/cuts" / name)
    status, _, err = asr("decode", exp, corpus, "--adapted", exp / "adapted/cuts")
    assert status == 2 and "has weights of 2 runs of `asrtool adapt`, such as the weights of b and c" in err
    assert len(err.splitlines()) == 1
    asr("adapt", exp, corpus, "--workers", 0, *options)
    assert asr("decode", exp, corpus, "--adapted", exp / "adapted/cuts")[0] == 0


def test_ranks_share_the_speakers(asr, exp, corpus, monkeypatch):
    asr("adapt", exp, corpus, "--out", exp / "adapted/alone", "--workers", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    printed = []
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        printed.append(asr("adapt", exp, corpus, "--workers", 0)[1])
        assert len(list((exp / "adapted/cuts").glob("*.pt"))) == {1: 1, 0: 3}[rank]
    assert printed[0] == "" and "3 speakers" in printed[1]
    for speaker in SPEAKERS:
        assert equal(weights(exp / "adapted/cuts", speaker), weights(exp / "adapted/alone", speaker))


@pytest.mark.parametrize("kind", ["mmi", "ce"])
def test_each_objective_adapts(asr, trained, corpus, tmp_path, kind):
    exp = shutil.copytree(trained / kind, tmp_path / kind)
    status, out, err = asr("adapt", exp, corpus, "--lr", 1e-2, "--batch-seconds", 5, "--workers", 0)
    assert status == 0, err
    facts = json.loads((exp / "adapted/cuts/a.json").read_text())
    assert facts["utterances"] == 8 and facts["bad_steps"] == 0
    own = part(corpus, tmp_path / "a.jsonl.gz", "a")
    assert dev_loss(exp, own, exp / "adapted/cuts/a.pt") < dev_loss(exp, own)
    for name in ("unit_ngram.json", "priors.json"):
        (exp / name).unlink(missing_ok=True)
    status, _, err = asr("adapt", exp, corpus, "--seed", 2)
    assert status == 2 and "missing, which the training wrote" in err and len(err.splitlines()) == 1


def test_a_speaker_with_empty_hypotheses_keeps_the_weights_of_the_model(asr, exp, corpus, tmp_path):
    asr("decode", exp, corpus)
    changed = [row | {"hyp": "" if row["speaker"] == "b" else row["hyp"]} for row in rows(exp / "decode/cuts/greedy")]
    (exp / "decode/cuts/greedy/hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    status, _, err = asr("adapt", exp, corpus, "--hyps", exp / "decode/cuts/greedy", "--workers", 0)
    assert status == 0 and "speaker b: nothing to adapt on" in err
    assert equal(weights(exp / "adapted/cuts", "b"), checkpoint.load_checkpoint(exp / "checkpoints/best.pt")["model"])


def test_with_separate_speakers_a_batch_has_one_speaker(corpus):
    separate = [[entry.id for entry in item.entries] for item in OrderedSampler(corpus, 8.0, separate_speakers=True)]
    assert all(len({name[0] for name in batch}) == 1 for batch in separate)
    together = [entry.id for item in OrderedSampler(corpus, 8.0) for entry in item.entries]
    assert sorted(name for batch in separate for name in batch) == sorted(together)
    assert len(separate) < 24


def test_a_speaker_name_that_cannot_be_a_file_name_is_encoded(tmp_path):
    assert weights_file(tmp_path, "../x/y").parent == tmp_path
    assert weights_file(tmp_path, "Ana María").name != weights_file(tmp_path, "Ana Maria").name


def nameless(corpus, out):
    cuts = list(CutSet.from_file(corpus))
    for cut in cuts:
        cut.supervisions[0].speaker = None
    CutSet.from_cuts(cuts).to_file(out)
    return out


def test_errors_are_one_line_or_a_list(asr, exp, corpus, tmp_path):
    asr("decode", exp, corpus)
    hyps = exp / "decode/cuts/greedy"
    no_speakers = nameless(corpus, tmp_path / "no_speakers.jsonl.gz")
    status, _, err = asr("adapt", exp, no_speakers)
    assert status == 1 and "24 cuts" in err and "no speaker" in err
    status, _, err = asr("adapt", exp, corpus, "--hyps", tmp_path / "nothing")
    assert status == 2 and "hypotheses not found" in err and len(err.splitlines()) == 1
    asr("adapt", exp, part(corpus, tmp_path / "few.jsonl.gz", "ab"), "--workers", 0)
    few, weights_of_a = exp / "adapted/few", exp / "adapted/few/a.pt"
    for options, message in (
        ([corpus, "--adapted", few], "no weights for speaker c"),
        ([corpus, "--adapted", tmp_path / "nothing"], "no weights for speaker a"),
        ([no_speakers, "--adapted", few], "names no speaker"),
        ([tmp_path / "few.jsonl.gz", "--adapted", few, "--checkpoint", weights_of_a], "another checkpoint"),
    ):
        status, _, err = asr("decode", exp, *options)
        assert status == 2 and message in err and len(err.splitlines()) == 1, err
    kept = rows(hyps)
    (hyps / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept[:-2]))
    status, _, err = asr("adapt", exp, corpus, "--hyps", hyps)
    assert status == 1 and "2 cuts" in err and "not among the hypotheses" in err
    (hyps / "hyps.jsonl").write_text("".join(json.dumps(row | {"token_type": "phones"}) + "\n" for row in kept))
    status, _, err = asr("adapt", exp, corpus, "--hyps", hyps)
    assert status == 2 and "phones, not words" in err
