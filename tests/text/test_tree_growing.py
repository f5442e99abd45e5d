"""Trees grown on statistics, compared with likelihoods computed from the frames themselves."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from asrtool.errors import UserError
from asrtool.text.context_statistics import (
    VARIANCE_FLOOR,
    ContextStatistics,
    StatisticsCollector,
    log_likelihood,
    phone_questions,
)
from asrtool.text.context_units import BOUNDARY
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import BLANK_SYMBOL, PhoneTokenizer, load_tokenizer, save_tokenizer
from asrtool.text.tree_growing import COLUMNS, TreeGrower, grow_tokenizer, grow_trees, likelihood_gain

NAMES = ["SIL", "A", "B", "C", "D", "E"]
SIL, A, B, C, D, E = range(1, 7)
PHONES = PhoneTokenizer([BLANK_SYMBOL, *NAMES], Lexicon({"W": (tuple(NAMES[1:]),)}), "SIL")
POSITIONS = {SIL: 0.0, A: 20.0, B: 40.0, C: 43.0, D: 70.0, E: 90.0}  # B and C are similar
# What the phones before and after add to the mean of a phone: A depends on B or C before it, D on E after it
SHIFTS = {(A, "left", B): 4.0, (A, "left", C): 4.0, (D, "right", E): -3.0}


def mean_of(left: int, phone: int, right: int) -> np.ndarray:
    base = np.array([POSITIONS[phone], -POSITIONS[phone]])
    base[0] += SHIFTS.get((phone, "left", left), 0.0)
    base[1] += SHIFTS.get((phone, "right", right), 0.0)
    return base


def draw_utterances(seed=1, utterances=60, frames_per_phone=4):
    """Yields frames, phones, begins and ends of utterances of random phones with silence at both edges."""
    draw = np.random.default_rng(seed)
    for _ in range(utterances):
        phones = [SIL, *draw.choice([A, B, C, D, E], 8).tolist(), SIL]
        padded = [BOUNDARY, *phones, BOUNDARY]
        means = [mean_of(*padded[n : n + 3]) for n in range(len(phones))]
        frames = np.repeat(means, frames_per_phone, axis=0) + draw.normal(size=(len(phones) * frames_per_phone, 2))
        begins = np.arange(len(phones)) * frames_per_phone
        yield frames, phones, begins.tolist(), (begins + frames_per_phone).tolist()


def collect(**options) -> tuple[ContextStatistics, dict]:
    """The statistics of the utterances, and all frames of each context."""
    collector = StatisticsCollector()
    frames_of: dict[tuple[int, int, int], list] = {}
    for frames, phones, begins, ends in draw_utterances(**options):
        collector.add(frames, phones, begins, ends)
        padded = [BOUNDARY, *phones, BOUNDARY]
        for n, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            frames_of.setdefault(tuple(padded[n : n + 3]), []).extend(frames[begin:end])
    return collector.result(), frames_of


def frame_likelihood(frames, floor) -> float:
    if not len(frames):
        return 0.0
    scale = np.sqrt(np.maximum(np.var(frames, axis=0), floor))
    return float(norm.logpdf(frames, np.mean(frames, axis=0), scale).sum())


def variance_floor(frames_of: dict) -> np.ndarray:
    return VARIANCE_FLOOR * np.var([frame for frames in frames_of.values() for frame in frames], axis=0)


def test_moments_are_those_of_the_frames():
    statistics, frames_of = collect()
    assert statistics.num_frames == 60 * 10 * 4
    assert np.allclose(statistics.variance_floor, variance_floor(frames_of))
    assert [tuple(context) for context in statistics.contexts.tolist()] == sorted(frames_of)
    for context, moments in zip(statistics.contexts.tolist(), statistics.moments, strict=True):
        frames = np.array(frames_of[tuple(context)])
        assert np.allclose(moments, [len(frames), *frames.sum(0), *(frames**2).sum(0)])
        expected = frame_likelihood(frames, statistics.variance_floor)
        assert log_likelihood(moments, statistics.variance_floor) == pytest.approx(expected)


def test_frames_outside_of_the_utterance_do_not_count():
    collector = StatisticsCollector()
    collector.add(np.ones((4, 1)), [A, B, C], [-2, 3, 9], [2, 8, 12])
    statistics = collector.result()
    assert statistics.contexts.tolist() == [[BOUNDARY, A, B], [A, B, C]]
    assert statistics.moments[:, 0].tolist() == [2, 1]
    empty = StatisticsCollector()
    empty.add(np.zeros((0, 1)), [A], [0], [5])
    assert empty.result().num_frames == 0


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("phone", [A, B, D])
def test_gains_are_those_of_the_frames_of_the_answers(side, phone):
    statistics, frames_of = collect(utterances=20)
    questions = phone_questions(statistics, len(NAMES))
    grower = TreeGrower(statistics, questions, min_count=10)
    members = np.flatnonzero(statistics.contexts[:, 1] == phone)
    gains = grower.gains(members, side)
    floor = variance_floor(frames_of)
    column = COLUMNS[side]
    contexts = [context for context in frames_of if context[1] == phone]
    for question, gain in zip(questions, gains, strict=True):
        yes = [frame for context in contexts if context[column] in question for frame in frames_of[context]]
        no = [frame for context in contexts if context[column] not in question for frame in frames_of[context]]
        if min(len(yes), len(no)) < 10:
            assert gain == -np.inf
            continue
        expected = frame_likelihood(yes, floor) + frame_likelihood(no, floor) - frame_likelihood(yes + no, floor)
        assert gain == pytest.approx(expected, abs=1e-6)
    best = grower.best_split(members, ["left", "right"])
    both = np.concatenate([grower.gains(members, "left"), grower.gains(members, "right")])
    assert best.gain == both.max() > 0


def test_questions_are_nested_clusters_of_similar_phones_and_single_phones():
    statistics, _ = collect()
    questions = phone_questions(statistics, len(NAMES))
    assert all(frozenset([phone]) in questions for phone in [BOUNDARY, SIL, A, B, C, D, E])
    assert len(set(questions)) == len(questions)
    clusters = [question for question in questions if len(question) > 1]
    assert len(clusters) == len(NAMES) - 2
    for one, other in product(clusters, clusters):
        assert one <= other or other <= one or one.isdisjoint(other)


def test_similar_phones_are_merged_first():
    collector = StatisticsCollector()
    draw = np.random.default_rng(0)
    for phone, mean in {A: 0.0, B: 0.3, C: 8.0, D: 8.4, E: 30.0}.items():
        collector.add(mean + draw.normal(size=(200, 1)), [phone], [0], [200])
    clusters = [question for question in phone_questions(collector.result(), len(NAMES)) if len(question) > 1]
    assert clusters == [frozenset([A, B]), frozenset([C, D]), frozenset([A, B, C, D])]


def test_trees_find_the_contexts_that_matter_and_no_others():
    statistics, _ = collect(utterances=200)
    tokenizer = grow_tokenizer(statistics, PHONES, "triphone", 8, 20)
    assert sorted(tokenizer.symbols) == sorted([BLANK_SYMBOL, "SIL", "A_1", "A_2", "B", "C", "D_1", "D_2", "E"])
    for phone, (left, right) in product([A, D], product([SIL, A, B, C, D, E], repeat=2)):
        same = tokenizer.unit(left, phone, right) == tokenizer.unit(SIL, phone, SIL)
        shift = SHIFTS.get((phone, "left", left)) or SHIFTS.get((phone, "right", right))
        assert same == (shift is None), (left, phone, right)


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
@pytest.mark.parametrize("num_leaves, min_count", [(1, 1), (12, 1), (30, 40), (1000, 25)])
def test_leaves_divide_the_contexts_and_each_has_enough_frames(kind, num_leaves, min_count):
    statistics, _ = collect()
    roots = grow_trees(statistics, PHONES, kind, num_leaves, min_count)
    leaves = []
    for phone, root in roots.items():
        queue, members = [root], []
        while queue:
            node = queue.pop()
            if node.children:
                queue.extend(node.children)
                continue
            leaves.append(node)
            members.extend(node.members.tolist())
            count = statistics.moments[node.members, 0].sum()
            assert count >= min_count or node is root
        assert sorted(members) == np.flatnonzero(statistics.contexts[:, 1] == phone).tolist()
    assert len(leaves) <= max(num_leaves, len(NAMES))
    assert roots[SIL].children is None


@pytest.mark.parametrize("kind", ["biphone", "triphone"])
def test_more_leaves_are_more_likely_and_units_answer_as_the_trees_were_split(kind):
    statistics, _ = collect()
    gains = []
    for num_leaves in (6, 8, 12, 20):
        tokenizer = grow_tokenizer(statistics, PHONES, kind, num_leaves, 10)
        assert tokenizer.size == 1 + num_leaves
        gains.append(likelihood_gain(statistics, tokenizer))
        splits = sum(map(_gain_of_splits, grow_trees(statistics, PHONES, kind, num_leaves, 10).values()))
        assert gains[-1] == pytest.approx(splits / statistics.num_frames)
    assert gains[0] == 0 and gains == sorted(set(gains))


def _gain_of_splits(node) -> float:
    return node.split.gain + sum(map(_gain_of_splits, node.children)) if node.children else 0.0


def test_a_biphone_does_not_ask_for_the_phone_after_it():
    statistics, _ = collect(utterances=200)
    tokenizer = grow_tokenizer(statistics, PHONES, "biphone", 40, 10)
    for left, phone in product([BOUNDARY, SIL, A, B], [A, B, D]):
        assert len({tokenizer.unit(left, phone, right) for right in [BOUNDARY, SIL, A, E]}) == 1


def test_contexts_and_phones_that_never_occurred_have_a_unit(tmp_path):
    collector = StatisticsCollector()
    draw = np.random.default_rng(0)
    for left, mean in ((A, 0.0), (B, 9.0)):
        collector.add(draw.normal(size=(20, 2)) + mean, [left, C], [0, 10], [10, 20])
    tokenizer = grow_tokenizer(collector.result(), PHONES, "triphone", 50, 1)
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    read = load_tokenizer(tmp_path / "tokenizer.json")
    for context in product([BOUNDARY, *range(1, 7)], range(1, 7), [BOUNDARY, *range(1, 7)]):
        assert tokenizer.phone_of[tokenizer.unit(*context)] == context[1]
        assert read.unit(*context) == tokenizer.unit(*context)
    assert {"C_1", "C_2", "D", "E", "SIL"} <= set(tokenizer.symbols)


def test_names_of_leaves_that_are_phones_are_refused():
    phones = PhoneTokenizer([BLANK_SYMBOL, "A", "A_1"], Lexicon({"W": (("A", "A_1"),)}))
    collector = StatisticsCollector()
    draw = np.random.default_rng(0)
    for left, mean in ((1, 0.0), (2, 9.0)):
        collector.add(draw.normal(size=(20, 2)) + mean, [left, 1], [0, 10], [10, 20])
    with pytest.raises(UserError, match="a symbol occurs twice; rename the phones"):
        grow_tokenizer(collector.result(), phones, "biphone", 9, 1)
