"""The two-state topology and optional silence in training graphs and objectives, compared with enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch

from asrtool.config import Config, ObjectiveConfig
from asrtool.distributed import SINGLE_PROCESS
from asrtool.graphs.context import phone_graph
from asrtool.graphs.training_graphs import UnitGraph, expand_topology, numerator_graph
from asrtool.graphs.unit_ngram import END, START, UnitNgram
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.forward_backward import path_sum
from asrtool.objectives.full_sum import FullSum, transcript_sum
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.mmi import Mmi
from asrtool.objectives.viterbi import viterbi
from asrtool.text.context_units import ContextTokenizer, Leaf
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import BLANK_SYMBOL, PhoneTokenizer, Tokenizer
from asrtool.text.tokenizer_training import untied_tokenizer
from asrtool.training.objective import create_objective
from tests.objectives.text_batch import text_batch

CPU = torch.device("cpu")
SYMBOLS = [BLANK_SYMBOL, "SIL", "a", "b"]
SILENCE = 1
LEXICON = Lexicon({"X": (("a",), ("b", "a")), "Y": (("a", "b"),), "Z": (("b",),)})
TEXTS = ["X Z", "Y", "X", "Z Z"]
PHONES = PhoneTokenizer(SYMBOLS, LEXICON, "SIL")
FRAMES = 5


def one_class(kind: str) -> ContextTokenizer:
    return ContextTokenizer(kind, SYMBOLS, PHONES, {n: [Leaf(n)] for n in (1, 2, 3)})


def with_silence(words: list[list[list[int]]]) -> list[list[int]]:
    """Returns the unit sequences of words: all choices of pronunciations, and of silence at each boundary."""
    boundary = [[], [SILENCE]]
    choices = [boundary, *itertools.chain.from_iterable((word, boundary) for word in words)]
    return [list(itertools.chain.from_iterable(choice)) for choice in itertools.product(*choices)]


def silent_sequences(text: str) -> list[list[int]]:
    return with_silence(PHONES.pronunciation_units(text))


def alignments(units: list[int], frames: int) -> list[list[int]]:
    """Returns the outputs of all alignments of `units` to frames in topology hmm."""
    found: list[list[int]] = []
    if not 0 < len(units) <= frames:
        return found
    for cuts in itertools.combinations(range(1, frames), len(units) - 1):
        lengths = np.diff([0, *cuts, frames])
        found.append([o for u, n in zip(units, lengths, strict=True) for o in [2 * u] + [2 * u + 1] * (n - 1)])
    return found


def log_likelihoods(log_probs: torch.Tensor, units: list[int]) -> list[float]:
    """Returns the log-probability of each alignment of `units` to log_probs (T, V)."""
    rows = np.arange(len(log_probs))
    values = log_probs.detach().double().numpy()
    return [float(values[rows, outputs].sum()) for outputs in alignments(units, len(values))]


def log_sum(values: list[float]) -> float:
    return float(np.logaddexp.reduce([-math.inf, *values]))


def random_log_probs(outputs: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return (2 * torch.randn(4, FRAMES, outputs)).log_softmax(2).requires_grad_(), torch.tensor([5, 3, 5, 4])


def objective_config(**settings) -> ObjectiveConfig:
    return ObjectiveConfig(topology="hmm", **settings)


def ngram_of(order: int, probability: float = 0.5) -> UnitNgram:
    words = [[pronunciations[0] for pronunciations in PHONES.pronunciation_units(text)] for text in TEXTS]
    return UnitNgram(order, UnitNgram.count_words(words, order, 1, SILENCE if probability else None, probability))


def make_mmi(tokenizer: Tokenizer, order: int, **settings) -> Mmi:
    config = objective_config(kind="mmi", ngram_order=order, **{"ctc_weight": 0.0, "leaky_hmm": 0.0} | settings)
    return Mmi(config, tokenizer, ngram_of(order, config.optional_silence), CPU)


@pytest.mark.parametrize("seed", range(5))
def test_a_numerator_with_silence_has_each_choice_of_it_once(seed):
    draw = np.random.default_rng(seed)
    words = [
        [draw.integers(2, 5, draw.integers(1, 4)).tolist() for _ in range(draw.integers(1, 3))]
        for _ in range(draw.integers(1, 4))
    ]
    graph = numerator_graph(words, SILENCE)
    assert sorted(units for units, _ in all_paths(graph, 20)) == sorted(map(tuple, with_silence(words)))
    assert all(weight == 0 for _, weight in all_paths(graph, 20))


def test_states_of_silence_belong_to_no_word():
    graph = numerator_graph([[[2]], [[3, 2]]], SILENCE)
    silent = {arc.target for arc in graph.arcs if arc.unit == SILENCE}
    assert len(silent) == 3 and not silent & set(graph.word)
    assert sorted(graph.word.values()) == [0, 1, 1]


def test_a_frame_graph_accepts_the_alignments_of_its_units_and_nothing_else():
    graph = expand_topology(numerator_graph([[[2, 2], [3]], [[2]]], SILENCE), "hmm")
    expected = {tuple(o) for units in with_silence([[[2, 2], [3]], [[2]]]) for o in alignments(units, 4)}
    outputs = torch.tensor([*itertools.product(range(8), repeat=4)])  # (8^4, 4)
    log_probs = torch.nn.functional.one_hot(outputs, 8).double().log()  # 0 for these outputs, -inf for others
    scores = path_sum(log_probs, torch.full((len(outputs),), 4), GraphBatch(graph, dtype=torch.float64)).tolist()
    found = {tuple(row): score for row, score in zip(outputs.tolist(), scores, strict=True) if score > -math.inf}
    assert found == dict.fromkeys(expected, 0.0)


@pytest.mark.parametrize(
    "tokenizer", [PHONES, untied_tokenizer("biphone", PHONES), untied_tokenizer("triphone", PHONES)]
)
def test_the_full_sum_is_over_all_alignments_pronunciations_and_silences(tokenizer):
    log_probs, lens = random_log_probs(2 * tokenizer.size)
    objective = transcript_sum(objective_config(), tokenizer)
    loss = objective(log_probs, lens, text_batch(tokenizer, TEXTS))
    for n, (text, length) in enumerate(zip(TEXTS, lens.tolist(), strict=True)):
        units = [in_context(tokenizer, sequence) for sequence in silent_sequences(text)]
        expected = [value for one in units for value in log_likelihoods(log_probs[n, :length], one)]
        assert loss[n].item() == pytest.approx(-log_sum(expected), abs=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    assert gradient[1, 3:].abs().max() == 0  # padding
    occupied = -gradient.sum(2)[torch.arange(FRAMES) < lens[:, None]]
    assert torch.allclose(occupied, torch.ones_like(occupied), atol=1e-5)  # a posterior in each frame


def in_context(tokenizer: Tokenizer, phones: list[int]) -> list[int]:
    return tokenizer.context_units(phones) if isinstance(tokenizer, ContextTokenizer) else phones


@pytest.mark.parametrize(
    "tokenizer", [PHONES, untied_tokenizer("biphone", PHONES), untied_tokenizer("triphone", PHONES)]
)
@pytest.mark.parametrize("order", [1, 3])
def test_mmi_compares_the_transcript_with_all_unit_sequences(tokenizer, order):
    log_probs, lens = random_log_probs(2 * tokenizer.size)
    loss = make_mmi(tokenizer, order)(log_probs, lens, text_batch(tokenizer, TEXTS))
    ngram = ngram_of(order)
    graph = ngram.denominator_graph()
    for n, (text, length) in enumerate(zip(TEXTS, lens.tolist(), strict=True)):
        row = log_probs[n, :length]
        numerator, denominator = [], []
        for phones in silent_sequences(text):
            weight = log_prob(ngram, phones)
            numerator += [weight + value for value in log_likelihoods(row, in_context(tokenizer, phones))]
        for phones, weight in all_paths(graph, length):
            denominator += [weight + value for value in log_likelihoods(row, in_context(tokenizer, list(phones)))]
        assert loss[n].item() == pytest.approx(log_sum(denominator) - log_sum(numerator), abs=1e-4)
    assert (loss[[1, 3]] > 0).all()  # the other texts have a pronunciation that the n-gram has not counted


def log_prob(ngram: UnitNgram, phones: list[int]) -> float:
    history, total = ngram.next_history((), START), 0.0
    for phone in phones:
        total += ngram.log_prob(history, phone)
        history = ngram.next_history(history, phone)
    return total + ngram.log_prob(history, END)


def all_paths(graph: UnitGraph, longest: int) -> list[tuple[tuple[int, ...], float]]:
    found, queue = [], [((), 0, 0.0)]
    while queue:
        units, state, weight = queue.pop()
        if state in graph.final:
            found.append((units, weight + graph.final[state]))
        if len(units) < longest:
            queue += [((*units, a.unit), a.target, weight + a.log_weight) for a in graph.arcs if a.source == state]
    return found


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
@pytest.mark.parametrize(
    "settings", [{}, {"leaky_hmm": 0.1}, {"ctc_weight": 0.3}, {"silence_probability": 0.0}], ids=str
)
@pytest.mark.parametrize("order", [1, 2, 4])
def test_mmi_of_one_class_is_that_of_the_phones(kind, settings, order):
    log_probs, lens = random_log_probs(8)
    results = []
    for tokenizer in (PHONES, one_class(kind)):
        loss = make_mmi(tokenizer, order, **settings)(log_probs, lens, text_batch(tokenizer, TEXTS))
        results.append((loss, torch.autograd.grad(loss.sum(), log_probs)[0]))
    for plain, context in zip(*results, strict=True):
        assert torch.allclose(plain, context, atol=1e-6)
    assert (results[0][0].abs() > 1e-3).all()


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
def test_the_full_sum_of_one_class_is_that_of_the_phones(kind):
    log_probs, lens = random_log_probs(8)
    plain, context = (
        FullSum(objective_config(), tokenizer)(log_probs, lens, text_batch(tokenizer, TEXTS))
        for tokenizer in (PHONES, one_class(kind))
    )
    assert torch.allclose(plain, context, atol=1e-6)


def test_silence_is_optional_in_the_other_topologies_as_well():
    log_probs, lens = random_log_probs(4)
    tokenizer = PHONES
    loss = transcript_sum(ObjectiveConfig(silence_probability=0.5), tokenizer)(
        log_probs, lens, text_batch(tokenizer, TEXTS)
    )
    for n, (text, length) in enumerate(zip(TEXTS, lens.tolist(), strict=True)):
        total = -math.inf
        for outputs in itertools.product(range(4), repeat=length):
            collapsed = [o for o, _ in itertools.groupby(outputs) if o]
            count = silent_sequences(text).count(collapsed)
            if count:
                score = log_probs[n, range(length), outputs].sum().item() + math.log(count)
                total = np.logaddexp(total, score)
        assert loss[n].item() == pytest.approx(-total, abs=1e-4)


def test_without_silence_and_in_topology_ctc_the_sum_is_ctc():
    assert isinstance(transcript_sum(ObjectiveConfig(), PHONES), Ctc)
    assert isinstance(transcript_sum(ObjectiveConfig(topology="modified"), PHONES), Ctc)


NO_EFFECT = "topology=modified has no effect with objective.kind="


@pytest.mark.parametrize(("settings", "silence", "message"), [
    ({"topology": "modified"}, None, f"{NO_EFFECT}ctc"),
    ({"topology": "modified"}, "SIL", f"{NO_EFFECT}ctc"),
    ({"topology": "modified", "kind": "ce"}, None, f"{NO_EFFECT}ce"),
    ({"topology": "hmm"}, None, "no unit is silence, so that words take the pauses"),
    ({"topology": "hmm"}, "SIL", None),
    ({"topology": "modified", "silence_probability": 0.5}, "SIL", None),
    ({}, None, None),
])  # fmt: skip
def test_a_topology_that_has_no_effect_or_no_output_for_pauses_is_a_warning(
    tmp_path, monkeypatch, caplog, settings, silence, message
):
    monkeypatch.setattr("asrtool.training.objective.write_priors", lambda *_: None)
    tokenizer = PhoneTokenizer(SYMBOLS, LEXICON, silence)
    create_objective(Config(objective=ObjectiveConfig(**settings)), tokenizer, tmp_path, SINGLE_PROCESS, CPU)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (message is not None) and all(message in warning for warning in warnings)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_alignment_with_silence_is_the_best_of_all(seed):
    log_probs, _ = random_log_probs(8, seed)
    for row, text in zip(log_probs, TEXTS, strict=True):
        graph = expand_topology(phone_graph(PHONES, text, silence=True), "hmm")
        score, path = viterbi(row.detach().double().numpy(), graph)
        expected = [value for units in silent_sequences(text) for value in log_likelihoods(row, units)]
        assert score == pytest.approx(max(expected))
        outputs = graph.label[path].tolist()
        assert outputs in [o for units in silent_sequences(text) for o in alignments(units, FRAMES)]


@pytest.mark.parametrize("probability", [0.5, 0.2])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_counts_with_silence_are_expected_counts(order, probability):
    sentences = [[[2, 3], [2]], [[3]], [[2, 2, 2], [3, 2], [2]]]
    expected: dict[tuple, float] = {}
    for words in sentences:
        for choice in itertools.product([0, 1], repeat=len(words) + 1):
            weight = math.prod(probability if silent else 1 - probability for silent in choice)
            inner = [[*word, *[SILENCE] * silent] for word, silent in zip(words, choice[1:], strict=True)]
            units = (START, *[SILENCE] * choice[0], *itertools.chain.from_iterable(inner), END)
            for position in range(1, len(units)):
                for begin in range(max(0, position - order + 1), position + 1):
                    key = units[begin:position], units[position]
                    expected[key] = expected.get(key, 0.0) + weight
    counts = UnitNgram.count_words(sentences, order, 0, SILENCE, probability)
    found = {(tuple(history), unit): count for history, pairs in counts for unit, count in pairs}
    assert found == pytest.approx(expected)


def test_units_may_be_as_many_as_frames_in_two_states():
    assert FullSum(objective_config(), PHONES).min_frames([2, 2, 3]) == 3
    assert make_mmi(PHONES, 2).min_frames([2, 2, 3]) == 3


def test_utterances_that_are_too_short_have_no_loss_and_no_gradient():
    log_probs, _ = random_log_probs(8)
    for objective in (make_mmi(PHONES, 2), FullSum(objective_config(), PHONES)):
        loss = objective(log_probs, torch.tensor([1, 1, 5, 1]), text_batch(PHONES, TEXTS))
        assert loss[0] == loss[1] == loss[3] == 0 and loss[2] > 0
        (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
        assert gradient[[0, 1, 3]].abs().max() == 0 and torch.isfinite(gradient).all()
