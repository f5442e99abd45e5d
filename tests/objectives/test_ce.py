"""Frame-level cross entropy, from alignments in a manifest to a loss."""

import json
import math

import pytest
import torch
from lhotse import CutSet
from lhotse.supervision import AlignmentItem

from asrtool.config_file import load_config, save_config
from asrtool.data.batch import NO_LABEL
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.sampling import OrderedSampler
from asrtool.errors import DataError
from asrtool.objectives.ce import CrossEntropy
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training.train import train
from tests.tiny import feature_batch, log_rows


@pytest.fixture
def aligned(tiny_config, tmp_path):
    """A configuration with aligned manifests: words of equal length fill each cut except for its first tenth."""
    cuts = list(CutSet.from_file(tiny_config().data.train))
    for cut in cuts:
        words = cut.supervisions[0].text.split()
        words = [words[0], *words]  # equal neighbours
        cut.supervisions[0].text = " ".join(words)
        each, begin = 0.9 * cut.duration / len(words), 0.1 * cut.duration
        items = [AlignmentItem(word, begin + n * each, each) for n, word in enumerate(words)]
        cut.supervisions[0].alignment = {"unit": items}
    CutSet.from_cuts(cuts).to_file(tmp_path / "aligned.jsonl.gz")
    path = str(tmp_path / "aligned.jsonl.gz")

    def make(**sections):
        sections = {"data": {"train": path, "dev": path}, "objective": {"kind": "ce"}} | sections
        return tiny_config(**sections)

    return make


@pytest.fixture
def batch(aligned):
    """The first batch of that manifest."""
    config = aligned()
    tokenizer = load_tokenizer(config.data.tokenizer)
    dataset = SpeechDataset(config, tokenizer, training=False)
    return next(iter(load_batches(dataset, OrderedSampler(config.data.dev, 10.0), 0))), tokenizer


def test_frames_are_labelled_with_their_aligned_unit_and_a_blank_between_equal_units(batch):
    batch, tokenizer = batch
    for row, length, text in zip(batch.labels, batch.feature_lens, batch.texts, strict=True):
        assert (row[length:] == NO_LABEL).all() and (row[:length] != NO_LABEL).all() and row[0] == 0
        assert [u for u in row[:length].unique_consecutive().tolist() if u] == tokenizer.encode(text)


def test_the_loss_is_the_sum_over_frames(batch):
    batch, tokenizer = batch
    objective, lens = CrossEntropy(4), (batch.feature_lens - 3) // 4
    log_probs = torch.randn(len(batch.ids), int(lens.max()), tokenizer.size).log_softmax(2)
    labels = objective.labels(batch, log_probs.shape[1])
    losses = objective(log_probs, lens, batch)
    for n, length in enumerate(lens.tolist()):
        direct = -sum(log_probs[n, t, labels[n, t]] for t in range(length))
        assert losses[n].item() == pytest.approx(direct.item(), rel=1e-5)
        assert labels[n, 3] == batch.labels[n, 14]
    even = CrossEntropy(4, smoothing=1 - 1e-9)(log_probs, lens, batch)
    assert even[0].item() == pytest.approx(-log_probs[0, : lens[0]].mean(1).sum().item(), rel=1e-4)


@pytest.mark.parametrize("frames", [16, 17, 18, 19])
def test_the_labels_of_an_utterance_do_not_depend_on_longer_ones(frames):
    """The middle of the last output frame may lie beyond the utterance."""

    def labels(lens):
        features, lens = torch.zeros(len(lens), max(lens), 1), torch.tensor(lens)
        batch = feature_batch(features, lens, 1.0)
        batch.labels = torch.full((len(lens), int(lens.max())), NO_LABEL)
        for row, length in zip(batch.labels, lens.tolist(), strict=True):
            row[:length] = torch.arange(length)
        return CrossEntropy(4).labels(batch, -(-frames // 4))[0]

    alone = labels([frames])
    assert torch.equal(labels([frames, 40]), alone) and alone.tolist()[:4] == [2, 6, 10, 14]
    assert alone[-1] == min(18, frames - 1) if frames > 16 else len(alone) == 4


def test_training_lowers_cross_entropy_and_writes_priors(aligned, tmp_path):
    train(aligned(training={"max_steps": 12, "lr": 0.01}), tmp_path / "exp", device="cpu")
    seconds = json.loads((tmp_path / "exp" / "priors.json").read_text())
    cuts = list(CutSet.from_file(aligned().data.train))
    assert sum(seconds) == pytest.approx(sum(cut.duration for cut in cuts), abs=0.1)
    assert seconds[0] == pytest.approx(0.1 * sum(seconds), rel=0.01) and all(seconds)
    losses = [row["loss"] for row in log_rows(tmp_path / "exp", "dev")]
    assert losses[-1] < losses[0] and all(math.isfinite(loss) for loss in losses)


def test_all_cuts_without_alignment_are_named(aligned, tiny_config, tmp_path):
    bare = tiny_config().data.train
    config = aligned(data={"train": str(bare), "dev": str(bare)})
    save_config(config, tmp_path / "c.yaml")
    with pytest.raises(DataError) as error:
        train(load_config(tmp_path / "c.yaml"), tmp_path / "exp", device="cpu")
    assert len(error.value.problems) == len(list(CutSet.from_file(bare)))
    assert all("asrtool align" in problem for problem in error.value.problems)


def test_a_start_that_was_refused_leaves_no_priors_to_the_next_one(aligned, tiny_config, tmp_path):
    bare = str(tiny_config().data.train)
    with pytest.raises(DataError, match="asrtool align"):
        train(aligned(data={"train": bare, "dev": bare}), tmp_path / "exp", device="cpu")
    train(aligned(training={"max_steps": 1, "validate_every": 1, "warmup_steps": 0}), tmp_path / "exp", device="cpu")
    seconds = json.loads((tmp_path / "exp" / "priors.json").read_text())
    assert seconds[0] == pytest.approx(0.1 * sum(seconds), rel=0.01)
