"""Error counts, rates and intervals of (ref, hyp) pairs."""

import math
import random

import kaldialign
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.errors import UserError
from asrtool.scoring.paired import paired_difference
from asrtool.scoring.wer import (
    GAP,
    ErrorCounts,
    align_words,
    count_character_errors,
    count_word_errors,
    score_pairs,
    wer_interval,
)

# Few words, so that repeats and rival minimal alignments are common; one that looks like a gap, two not in ASCII.
texts = st.lists(st.sampled_from(["a", "b", "c", "***", "é", "中文"]), max_size=8).map(" ".join)
pair_lists = st.lists(st.tuples(texts, texts), min_size=1, max_size=6).filter(lambda pairs: any(r for r, _ in pairs))

PAIRS = [
    ("the cat sat on the mat", "the cat sat on mat"),  # 1 del
    ("a dog ran", "a dog ran off"),  # 1 ins
    ("one two three", "one too three"),  # 1 sub
    ("yes", ""),  # 1 del
    ("fine", "fine"),
]


def test_word_errors_by_hand():
    score = score_pairs(PAIRS)
    assert score.words == ErrorCounts(insertions=1, deletions=2, substitutions=1, length=14)
    assert score.words.errors == 4
    assert score.wer == pytest.approx(100 * 4 / 14)


def test_character_errors_by_hand_with_spaces_counted():
    score = score_pairs(PAIRS)
    # "the " 4 del; " off" 4 ins; "two" -> "too" 1 sub; "yes" 3 del
    assert score.characters == ErrorCounts(insertions=4, deletions=7, substitutions=1, length=22 + 9 + 13 + 3 + 4)
    assert score.cer == pytest.approx(100 * 12 / 51)


def test_sentence_errors_and_empty_hypotheses_by_hand():
    score = score_pairs(PAIRS)
    assert (score.utterances, score.sentence_errors, score.empty_hypotheses) == (5, 4, 1)
    assert score.ser == pytest.approx(80.0)


def test_spacing_is_not_an_error():
    score = score_pairs([(" a  b\tc ", "a b c")])
    assert score.words.errors == score.characters.errors == score.sentence_errors == 0


def test_confusions_are_ranked_by_count_then_alphabet():
    score = score_pairs([("a x", "b x"), ("a y", "b y"), ("c z", "d z"), ("a w", "a w v"), ("q r", "q"), ("p s", "s")])
    assert score.confusions.substitutions == [("a", "b", 2), ("c", "d", 1)]
    assert score.confusions.insertions == [("v", 1)]
    assert score.confusions.deletions == [("p", 1), ("r", 1)]


def test_an_empty_reference_among_others_counts_only_insertions():
    score = score_pairs([("a b", "a b"), ("", "x y")])
    assert score.words == ErrorCounts(insertions=2, deletions=0, substitutions=0, length=2)


@pytest.mark.parametrize("others", [[], [("", "")], [("", "x y"), ("", "z")]])
def test_one_utterance_with_a_reference_has_no_interval(others):
    pairs = [("a b c", "a b"), *others]
    score = score_pairs(pairs, speakers=[str(number) for number in range(len(pairs))])
    assert score.interval is None and score.speaker_interval is None
    refs, hyps = zip(*pairs, strict=True)
    assert paired_difference(refs, hyps, refs).interval is None


@pytest.mark.parametrize("limit", [1, 5000])
def test_the_interval_counts_insertions_of_utterances_without_a_reference(monkeypatch, limit):
    monkeypatch.setattr("asrtool.scoring.wer.MAX_ITEMS", limit)
    low, high = score_pairs([("a b", "a b"), ("a", "a"), ("", "x y")]).interval
    assert low < 200 / 3 < high < math.inf  # some replications have no reference word


def test_interval_is_close_to_the_analytic_one_and_deterministic():
    # 400 one-word utterances, a tenth of them wrong: binomial, 1.96 * sqrt(0.1 * 0.9 / 400) = 2.94 %
    pairs = [("a", "b" if i % 10 == 0 else "a") for i in range(400)]
    low, high = score_pairs(pairs).interval
    assert (low, high) == pytest.approx((10 - 2.94, 10 + 2.94), abs=0.1)
    assert score_pairs(pairs).interval == (low, high)


@pytest.mark.parametrize("pairs", [[], [("", "")], [(" ", "a b")]])
def test_a_set_without_reference_words_is_refused(pairs):
    with pytest.raises(UserError, match="no reference words"):
        score_pairs(pairs)


def test_rate_of_an_empty_reference():
    assert ErrorCounts(0, 0, 0, 0).rate == 0.0
    assert ErrorCounts(1, 0, 0, 0).rate == math.inf


def test_speaker_interval_matches_the_analytic_one_and_is_wider_if_speakers_differ():
    """With equally many words per speaker the rate is a mean, whose standard deviation is known."""
    rates = np.random.default_rng(1).integers(0, 10, size=40)  # of 10 words each; each speaker's utterances are alike
    pairs = [("a " * 10, "x " * rate + "a " * (10 - rate)) for rate in rates for _ in range(20)]
    names = [f"s{number}" for number in range(40) for _ in range(20)]
    score = score_pairs(pairs, speakers=names)
    half = 1.96 * (10.0 * rates).std() / 40**0.5
    assert score.speaker_interval == pytest.approx((score.wer - half, score.wer + half), rel=0.03)
    assert score.interval[1] - score.interval[0] < half


def test_speaker_interval_needs_several_speakers_and_all_known():
    pairs = [("a b", "a b"), ("a b", "a"), ("c", "c")]
    assert score_pairs(pairs, speakers=["eve", "ann", "ann"]).speaker_interval
    for speakers in (None, ["eve"] * 3, ["eve", "ann", None]):
        assert score_pairs(pairs, speakers=speakers).speaker_interval is None


@given(texts, texts)
def test_an_alignment_is_minimal_and_complete(ref, hyp):
    alignment = align_words(ref, hyp)
    counts = count_word_errors(alignment)
    assert counts.errors == kaldialign.edit_distance(ref.split(), hyp.split())["total"]
    assert counts.insertions - counts.deletions == len(hyp.split()) - len(ref.split())
    assert counts.length == len(ref.split())
    assert [word for word, _ in alignment if word != GAP] == ref.split()
    assert [word for _, word in alignment if word != GAP] == hyp.split()


@settings(max_examples=50, deadline=None)
@given(pair_lists)
def test_interval_contains_the_wer_and_confusions_add_up(pairs):
    score = score_pairs(pairs)
    low, high = score.interval or (score.wer, score.wer)
    assert 0 <= low <= score.wer <= high < math.inf
    assert (score.interval is None) == (sum(bool(ref.split()) for ref, _ in pairs) < 2)
    errors = score.confusions
    totals = [sum(row[-1] for row in rows) for rows in (errors.insertions, errors.deletions, errors.substitutions)]
    assert totals == [score.words.insertions, score.words.deletions, score.words.substitutions]


def test_the_interval_of_many_utterances_is_as_wide_as_by_single_draws(monkeypatch):
    rng = np.random.default_rng(0)
    pairs = [("a b c d e", " ".join("abcde"[: rng.integers(3, 6)])) for _ in range(300)]
    low, high = wer_interval(pairs, 20.0)
    monkeypatch.setattr("asrtool.scoring.wer.MAX_ITEMS", 100)
    assert wer_interval(pairs, 20.0) == pytest.approx((low, high), abs=0.03 * (high - low))


def test_character_errors_of_texts_that_begin_and_end_alike_are_minimal():
    draw = random.Random(1)
    for _ in range(500):
        ref = draw.choices(["a", "ab", "b", "ba", "aab"], k=draw.randint(0, 6))
        hyp = ref.copy()
        for place in draw.choices(range(len(ref) + 1), k=2):
            hyp[place : place + draw.randint(0, 1)] = draw.choices(["a", "ab", "c"], k=draw.randint(0, 1))
        characters = count_character_errors([(" ".join(ref), " ".join(hyp))])
        expected = kaldialign.edit_distance(" ".join(ref), " ".join(hyp))
        assert (characters.errors, characters.length) == (expected["total"], expected["ref_len"])
