"""Lattice-free MMI as an objective, and a training with it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from asrtool.config import ObjectiveConfig
from asrtool.data.batch import Batch
from asrtool.errors import DataError, UserError
from asrtool.graphs.training_graphs import expand_topology
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.objectives.ce import CrossEntropy
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.mmi import Mmi, state_occupancy
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training.data_counts import unit_counts
from asrtool.training.train import train
from tests.tiny import log_rows

SENTENCES = ["a b", "b a c", "c", "a a b", "b b"]


@pytest.fixture
def tokenizer():
    return train_tokenizer("char", ["abc"])


@pytest.fixture
def batch(tokenizer):
    """One utterance for each sentence, the last without units."""
    targets = [torch.tensor(tokenizer.encode(s.replace(" ", ""))) for s in SENTENCES[:-1]] + [torch.tensor([]).long()]
    texts, lens = [s.replace(" ", "") for s in SENTENCES], torch.tensor([len(t) for t in targets])
    padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
    nothing = torch.zeros(len(targets), 1, 1)
    return Batch(
        ids=[*"12345"],
        texts=texts,
        features=nothing,
        feature_lens=lens,
        targets=padded,
        target_lens=lens,
        seconds=1.0,
    )


def objective(tokenizer, **settings):
    config = ObjectiveConfig(kind="mmi", **{"ctc_weight": 0.0, "leaky_hmm": 0.0, "min_count": 1} | settings)
    units = [tokenizer.encode(s.replace(" ", "")) for s in SENTENCES]
    return Mmi(
        config,
        tokenizer,
        UnitNgram(config.ngram_order, UnitNgram.count(units, config.ngram_order, 1)),
        torch.device("cpu"),
    )


@pytest.mark.parametrize("settings", [{}, {"topology": "modified"}, {"ngram_order": 1}, {"ngram_order": 2}])
def test_the_loss_is_positive_since_the_numerator_is_part_of_the_denominator(tokenizer, batch, settings):
    torch.manual_seed(1)
    log_probs = (3 * torch.randn(5, 7, tokenizer.size)).log_softmax(2)
    lens = torch.tensor([7, 7, 5, 6, 7])
    loss = objective(tokenizer, **settings)(log_probs, lens, batch)
    assert (loss[:4] > 0).all() and loss[4] == 0


def test_posteriors_of_all_sentences_add_up_to_one(tokenizer):
    """In one frame: the sentences "b" and "c", since "a" has never ended one."""
    log_probs, ones = torch.randn(1, 1, tokenizer.size).log_softmax(2).expand(2, -1, -1), torch.ones(2).long()
    units = torch.tensor([[2], [3]])
    batch = Batch(
        ids=[*"bc"],
        texts=[*"bc"],
        features=torch.zeros(2, 1, 1),
        feature_lens=ones,
        targets=units,
        target_lens=ones,
        seconds=1.0,
    )
    loss = objective(tokenizer, ngram_order=2)(log_probs, ones, batch)
    assert (-loss).exp().sum().item() == pytest.approx(1.0)


def test_utterances_with_too_few_frames_have_no_loss_and_no_gradient(tokenizer, batch):
    log_probs = torch.randn(5, 7, tokenizer.size).log_softmax(2).requires_grad_()
    loss = objective(tokenizer, ctc_weight=0.5)(log_probs, torch.tensor([1, 2, 3, 4, 5]), batch)
    assert loss[0] == 0 and loss[1] == 0 and loss[2] > 0
    loss.sum().backward()
    assert log_probs.grad[:2].abs().max() == 0 and log_probs.grad[2].abs().max() > 0
    assert torch.isfinite(log_probs.grad).all()


@pytest.mark.parametrize("settings", [{}, {"ctc_weight": 0.5}, {"topology": "modified"}, {"topology": "hmm"}])
def test_an_utterance_with_fewer_frames_than_any_path_of_the_denominator_has_no_loss(tokenizer, batch, settings):
    """Without units and with them; the shortest sentence of the denominator has two units here."""
    config = ObjectiveConfig(kind="mmi", **{"ctc_weight": 0.0, "leaky_hmm": 0.0} | settings)
    units = [tokenizer.encode(text) for text in ("ab", "bac", "aab", "bb")]
    mmi = Mmi(config, tokenizer, UnitNgram(4, UnitNgram.count(units, 4, 1)), torch.device("cpu"))
    outputs = 2 * tokenizer.size if config.topology == "hmm" else tokenizer.size
    log_probs = torch.randn(5, 7, outputs).log_softmax(2).requires_grad_()
    loss = mmi(log_probs, torch.tensor([1, 1, 1, 7, 1]), batch)
    assert loss[[0, 1, 4]].tolist() == [0.0] * 3 and loss.isfinite().all() and loss[3] > 0
    loss.sum().backward()
    assert log_probs.grad.isfinite().all() and log_probs.grad[[0, 1, 4]].abs().max() == 0


def test_a_leaky_hmm_allows_more_paths_in_the_denominator(tokenizer, batch):
    log_probs, lens = torch.randn(5, 7, tokenizer.size).log_softmax(2), torch.full((5,), 7)
    plain, leaky = (objective(tokenizer, leaky_hmm=weight)(log_probs, lens, batch)[:4] for weight in (0.0, 0.1))
    assert (leaky > plain).all()


def test_state_occupancy_follows_the_probabilities_of_units():
    graph = expand_topology(UnitNgram(1, UnitNgram.count([[1], [2], [1, 1]], order=1)).denominator_graph())
    occupancy = state_occupancy(graph)
    assert occupancy.sum() == pytest.approx(1.0) and (occupancy > 0).all()
    by_label = np.bincount(graph.label, occupancy)
    assert by_label[1] > by_label[2]  # 1 is three times as likely


def test_unit_counts_are_stored_in_the_experiment_folder(tiny_config, tmp_path):
    config = tiny_config(objective={"kind": "mmi"})
    from asrtool.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.data.tokenizer)
    counts = unit_counts(config.data, config.objective, tokenizer, tmp_path / "kept.json")
    assert json.loads((tmp_path / "kept.json").read_text()) == counts
    (tmp_path / "kept.json").write_text("[[[], [[1, 2]]]]")
    assert unit_counts(config.data, config.objective, tokenizer, tmp_path / "kept.json") == [[[], [[1, 2]]]]
    with pytest.raises(UserError, match="no transcript"):
        unit_counts(config.data, config.objective, train_tokenizer("char", ["%"]), tmp_path / "other.json")


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "{}", "3", "null", "[[]]", "[[[1], [[2, 3]]]]", "[[[], []]]", "[[[], [[1, 0]]]]", "[[[], [[1, -1]]]]"),
        *("[[[], [[1, true]]]]", '[[[], [["1", 1]]]]', "[[[], [[9, 1]]]]", "[[[], [[0, 1]]]]"),
        *("[[[], [[1, 1]]], [[], [[1, 1]]]]", "[[[], [[1, 1]]], [[-2], [[1, 1]]]]", "[[[], [[1, NaN]]]]"),
        *(
            f"[[[], [[1, {10**400}]]]]",
            "[" * 5000,
            b"\xff",
            "[[[], [[1, 1, 1]]]]",
            "[[[2, -1], [[1, 1]]], [[], [[1, 1]]]]",
        ),
    ],
)
def test_files_without_valid_unit_counts_are_refused_in_one_line(tiny_config, tmp_path, content):
    """Without the empty history the search for one would not end."""
    from asrtool.text.tokenizer import load_tokenizer

    config, kept = tiny_config(objective={"kind": "mmi"}), tmp_path / "kept.json"
    kept.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"kept\.json") as caught:
        unit_counts(config.data, config.objective, load_tokenizer(config.data.tokenizer), kept)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 and "delete it" in str(caught.value)


def test_training_with_mmi_lowers_its_loss_and_resumes(tiny_config, tmp_path, capfd):
    def config(steps):
        return tiny_config(objective={"kind": "mmi"}, training={"max_steps": steps, "warmup_steps": 2, "lr": 0.01})

    train(config(16), tmp_path / "exp", device="cpu")
    assert "mmi: the denominator graph has" in capfd.readouterr().err
    dev = [row["loss"] for row in log_rows(tmp_path / "exp", "dev")]
    assert dev[-1] < dev[0] and all(math.isfinite(loss) for loss in dev)
    train(config(20), tmp_path / "exp", resume=True, device="cpu")
    assert log_rows(tmp_path / "exp", "dev")[-1]["step"] == 20


def test_ctc_and_cross_entropy_are_added_with_their_weights(tokenizer, batch):
    torch.manual_seed(2)
    log_probs, lens = torch.randn(5, 7, tokenizer.size).log_softmax(2), torch.tensor([7, 7, 5, 6, 7])
    batch = replace(batch, labels=torch.randint(tokenizer.size, (5, 7)), feature_lens=lens)
    frames = CrossEntropy(1)
    config, plain = (
        ObjectiveConfig(kind="mmi", ctc_weight=0.5, ce_weight=2.0, leaky_hmm=0.0, min_count=1),
        objective(tokenizer),
    )
    whole = Mmi(config, tokenizer, plain.ngram, torch.device("cpu"), frames)(log_probs, lens, batch)
    parts = (weight * part(log_probs, lens, batch) for weight, part in ((1, plain), (0.5, Ctc()), (2, frames)))
    assert torch.allclose(whole, sum(parts))


def test_an_added_cross_entropy_needs_alignments(tiny_config, tmp_path):
    with pytest.raises(DataError) as error:
        train(tiny_config(objective={"kind": "mmi", "ce_weight": 0.1}), tmp_path / "exp", device="cpu")
    assert "align" in str(error.value) + " ".join(error.value.problems)
