"""Start and end of words: alignment in pieces, gaps shared between words, and the energy beside them."""

import itertools

import numpy as np
import pytest

from asrtool.decoding import word_times as module
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.unit_chain import FrameSpan
from asrtool.decoding.word_times import unit_spans, word_times

FRAME = 0.04


def certain(labels: list[int], outputs: int = 5) -> np.ndarray:
    """Log-probs (T, V) that are sure of these outputs."""
    log_probs = np.full((len(labels), outputs), -12.0, np.float32)
    log_probs[np.arange(len(labels)), labels] = -1e-4
    return log_probs


def greedy(labels: list[int]) -> Hypothesis:
    starts = [t for t, unit in enumerate(labels) if unit and (t == 0 or labels[t - 1] != unit)]
    return Hypothesis([labels[t] for t in starts], starts, 0.0)


def runs(labels: list[int]) -> list[FrameSpan]:
    bounds = [0, *(t for t in range(1, len(labels)) if labels[t] != labels[t - 1]), len(labels)]
    return [FrameSpan(a, b) for a, b in itertools.pairwise(bounds) if labels[a]]


@pytest.mark.parametrize("most", [2, 7, 400])
def test_the_frames_of_units_do_not_depend_on_the_pieces(monkeypatch, most):
    monkeypatch.setattr(module, "MAX_PIECE_UNITS", most)
    draw = np.random.default_rng(1)
    labels = np.repeat(draw.integers(0, 5, 200), draw.integers(1, 4, 200)).tolist()
    assert unit_spans(certain(labels), greedy(labels), "ctc") == runs(labels)


def test_a_piece_without_a_path_keeps_the_frames_of_the_hypothesis():
    hypothesis = Hypothesis([1, 1, 2], [0, 1, 2], 0.0)  # equal units without a blank between them
    assert unit_spans(certain([1, 1, 2]), hypothesis, "ctc") == [FrameSpan(0, 1), FrameSpan(1, 2), FrameSpan(2, 3)]


def test_no_units_have_no_frames():
    assert unit_spans(certain([0, 0]), Hypothesis([], [], 0.0), "ctc") == []
    assert word_times([], 0, 2, FRAME) == [] and word_times([], 0, 0, FRAME, np.zeros((0, 4))) == []


def random_words(seed: int) -> tuple[list[FrameSpan], int]:
    draw = np.random.default_rng(seed)
    bounds = np.sort(draw.choice(120, 20, replace=False)).tolist()
    return [FrameSpan(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True)], 130


@pytest.mark.parametrize("has_features", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_words_have_the_frames_of_their_units_and_do_not_overlap(seed, has_features):
    words, frames = random_words(seed)
    features = np.random.default_rng(seed).normal(size=(4 * frames, 8)).astype(np.float32) if has_features else None
    times = word_times(words, 2 * len(words), frames, FRAME, features)
    for (start, end), span in zip(times, words, strict=True):
        assert start <= span.begin * FRAME + 1e-9 and end >= span.end * FRAME - 1e-9
    bounds = [bound for time in times for bound in time]
    assert bounds == sorted(bounds) and bounds[0] >= 0 and bounds[-1] <= frames * FRAME + 1e-9


def test_without_features_words_share_the_gaps_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(module, "MAX_GAP_SHARE", 0.5)
    words = [FrameSpan(10, 12), FrameSpan(14, 15), FrameSpan(60, 62)]
    times = word_times(words, 10, 100, 0.1)  # a unit has 1 s, so a gap gives 0.5 s at most
    assert [tuple(time) for time in times] == [
        pytest.approx((0.5, 1.3)), pytest.approx((1.3, 2.0)), pytest.approx((5.5, 6.7)),
    ]  # fmt: skip


def speech(spans: list[tuple[float, float]], seconds: float, seed: int = 0) -> np.ndarray:
    """Log-mel features (F, B) of words at these times, 8 nats above the noise, one frame each 10 ms."""
    draw = np.random.default_rng(seed)
    features = draw.normal(-10, 0.3, (round(seconds * 100), 10)).astype(np.float32)
    for start, end in spans:
        features[round(start * 100) : round(end * 100)] += 8
    return features


@pytest.mark.parametrize("seed", range(5))
def test_words_between_pauses_begin_and_end_where_the_energy_does(seed):
    truth = [(0.31, 0.62), (0.85, 1.13), (1.40, 1.72)]
    words = [FrameSpan(9, 13), FrameSpan(23, 26), FrameSpan(36, 40)]  # the units, inside the words
    times = word_times(words, 9, 55, FRAME, speech(truth, 2.2, seed))
    for time, expected in zip(times, truth, strict=True):
        assert tuple(time) == pytest.approx(expected, abs=0.021)


def test_words_without_a_pause_share_the_gap_between_their_units():
    words = [FrameSpan(9, 13), FrameSpan(16, 26)]
    first, second = word_times(words, 6, 40, FRAME, speech([(0.31, 1.13)], 1.6))
    assert first.start == pytest.approx(0.31, abs=0.021) and second.end == pytest.approx(1.13, abs=0.021)
    assert first.end == second.start == pytest.approx(14.5 * FRAME)


@pytest.mark.parametrize("shift", [220 / 22050, 110 / 11025, 0.01])
def test_frames_of_other_rates_are_shorter_and_times_with_them(shift):
    words = [FrameSpan(100, 110), FrameSpan(2000, 2010)]
    features = speech([(0.04 * word.begin, 0.04 * word.end) for word in words], 100.0)
    usual = word_times(words, 20, 2500, 0.04, features)
    assert np.array(word_times(words, 20, 2500, 4 * shift, features)) == pytest.approx(np.array(usual) * shift / 0.01)


def test_times_do_not_depend_on_the_level_of_the_recording():
    words, frames = random_words(3)
    features = np.random.default_rng(3).normal(size=(4 * frames, 8))
    louder = word_times(words, 20, frames, FRAME, features + 5)
    assert np.array(louder) == pytest.approx(np.array(word_times(words, 20, frames, FRAME, features)))
