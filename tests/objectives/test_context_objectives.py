"""Objectives and alignment with units in context, compared with the phone system and with enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch

from asrtool.config import ObjectiveConfig
from asrtool.decoding.alignment import align_texts
from asrtool.graphs.training_graphs import ctc_graph
from asrtool.graphs.unit_ngram import END, START, UnitNgram
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.forward_backward import path_sum
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.mmi import Mmi
from asrtool.text.context_units import ContextTokenizer, Leaf
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import BLANK_SYMBOL, PhoneTokenizer, Tokenizer
from asrtool.text.tokenizer_training import untied_tokenizer
from tests.objectives.text_batch import text_batch

CPU = torch.device("cpu")
SYMBOLS = [BLANK_SYMBOL, "a", "b"]
LEXICON = Lexicon({"X": (("a",), ("b", "a")), "Y": (("a", "b"), ("b",))})
TEXTS = ["X Y", "Y", "X X", "Y X Y"]
FRAMES = 5


def phones() -> PhoneTokenizer:
    return PhoneTokenizer(SYMBOLS, LEXICON)


def one_class(kind: str) -> ContextTokenizer:
    return ContextTokenizer(kind, SYMBOLS, phones(), {1: [Leaf(1)], 2: [Leaf(2)]})


def make_ngram(order: int) -> UnitNgram:
    return UnitNgram(order, UnitNgram.count([phones().encode(text) for text in TEXTS], order, 1))


def make_mmi(tokenizer: Tokenizer, order: int, **settings) -> Mmi:
    config = ObjectiveConfig(kind="mmi", ngram_order=order, **{"ctc_weight": 0.0, "leaky_hmm": 0.0} | settings)
    return Mmi(config, tokenizer, make_ngram(order), CPU)


def random_log_probs(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return (2 * torch.randn(4, FRAMES, size)).log_softmax(2).requires_grad_(), torch.tensor([5, 3, 5, 4])


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
@pytest.mark.parametrize("settings", [{}, {"topology": "modified"}, {"leaky_hmm": 0.1}, {"ctc_weight": 0.3}], ids=str)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_mmi_of_one_class_is_that_of_the_phones(kind, settings, order):
    log_probs, lens = random_log_probs(3)
    results = []
    for tokenizer in (phones(), one_class(kind)):
        loss = make_mmi(tokenizer, order, **settings)(log_probs, lens, text_batch(tokenizer, TEXTS))
        results.append((loss, torch.autograd.grad(loss.sum(), log_probs)[0]))
    for plain, context in zip(*results, strict=True):
        assert torch.allclose(plain, context, atol=1e-6)
    assert (results[0][0].abs() > 0.1).all()


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
def test_ctc_of_one_class_is_that_of_the_phones(kind):
    log_probs, lens = random_log_probs(3)
    plain, context = (Ctc()(log_probs, lens, text_batch(tokenizer, TEXTS)) for tokenizer in (phones(), one_class(kind)))
    assert torch.equal(plain, context)


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
@pytest.mark.parametrize("topology", ["ctc", "modified"])
def test_an_alignment_of_one_class_is_that_of_the_phones(kind, topology):
    log_probs, lens = random_log_probs(3)
    plain, context = (
        align_texts(log_probs.detach(), lens, TEXTS, tokenizer, topology) for tokenizer in (phones(), one_class(kind))
    )
    assert context == plain
    assert any(plain)


def ctc_log_likelihood(log_probs: torch.Tensor, units: list[int]) -> float:
    return float(path_sum(log_probs[None], torch.tensor([len(log_probs)]), GraphBatch([ctc_graph(units)], CPU)))


def log_prob(ngram: UnitNgram, phone_sequence) -> float:
    history, total = ngram.next_history((), START), 0.0
    for phone in phone_sequence:
        total += ngram.log_prob(history, phone)
        history = ngram.next_history(history, phone)
    return total + ngram.log_prob(history, END)


def log_sum(values: list[float]) -> float:
    return float(np.logaddexp.reduce(values))


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
@pytest.mark.parametrize("order", [1, 3])
def test_mmi_sums_over_the_units_of_all_phone_sequences(kind, order):
    tokenizer = untied_tokenizer(kind, phones())
    log_probs, lens = random_log_probs(tokenizer.size)
    loss = make_mmi(tokenizer, order)(log_probs, lens, text_batch(tokenizer, TEXTS))
    # The weights of the denominator graph do not fall back to shorter histories, and unseen phones are left out
    graph = make_ngram(order).denominator_graph()
    for n, (text, length) in enumerate(zip(TEXTS, lens.tolist(), strict=True)):
        row = log_probs[n, :length].detach()
        words = [LEXICON.pronunciations[word] for word in text.split()]
        spoken = [[SYMBOLS.index(p) for word in choice for p in word] for choice in itertools.product(*words)]
        numerator = [
            log_prob(make_ngram(order), s) + ctc_log_likelihood(row, tokenizer.context_units(s)) for s in spoken
        ]
        denominator = [
            weight + ctc_log_likelihood(row, tokenizer.context_units(s)) for s, weight in all_paths(graph, length)
        ]
        expected = log_sum(denominator) - log_sum(numerator)
        assert loss[n].item() == pytest.approx(0.0 if math.isinf(expected) else expected, abs=1e-4)
    assert (loss > 0).any()


def all_paths(graph, longest: int) -> list[tuple[tuple[int, ...], float]]:
    found, queue = [], [((), 0, 0.0)]
    while queue:
        units, state, weight = queue.pop()
        if state in graph.final:
            found.append((units, weight + graph.final[state]))
        if len(units) < longest:
            queue += [((*units, a.unit), a.target, weight + a.log_weight) for a in graph.arcs if a.source == state]
    return found


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
def test_the_best_pronunciation_across_words_is_aligned_in_its_context(kind):
    tokenizer = untied_tokenizer(kind, phones())
    spoken = tokenizer.context_units([2, 1, 2])  # X as b a, Y as b
    frames = [spoken[0], 0, spoken[1], spoken[1], 0, spoken[2]]
    log_probs = torch.nn.functional.one_hot(torch.tensor(frames), tokenizer.size).float().mul(20).log_softmax(1)
    (alignment,) = align_texts(log_probs[None], torch.tensor([6]), ["X Y"], tokenizer, "ctc", 0)
    assert [(unit.index, unit.begin, unit.end) for unit in alignment.units] == [
        (spoken[0], 0, 1),
        (spoken[1], 2, 4),
        (spoken[2], 5, 6),
    ]
    assert [(word.index, word.begin, word.end) for word in alignment.words] == [(0, 0, 4), (1, 5, 6)]
