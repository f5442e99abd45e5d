import itertools

import numpy as np
import pytest

from asrtool.data.segment_planning import WINDOW_SECONDS, SegmentationPolicy, SegmentPlanner, Span
from asrtool.errors import UserError

POLICY = SegmentationPolicy()
MAX_SECONDS = 10.0
MAX_WINDOWS = int(MAX_SECONDS / WINDOW_SECONDS)
LONG_PAUSE = round(POLICY.long_pause / WINDOW_SECONDS)
MIN_PAUSE = round(POLICY.min_pause / WINDOW_SECONDS)


def plan(speech: np.ndarray, sizes=None, levels=None, max_seconds=MAX_SECONDS) -> list[Span]:
    """The spans of windows that are speech (True) or not, given in batches of random size."""
    planner = SegmentPlanner(max_seconds, POLICY)
    draw = np.random.default_rng(0)
    levels = np.where(speech, -20.0, -60.0) if levels is None else levels
    spans, position = [], 0
    while position < len(speech):
        batch = slice(position, position + int(draw.integers(1, 200)))
        needed = planner.first_needed
        new = list(planner.accept(speech[batch].astype(float), levels[batch]))
        assert all(span.first >= needed for span in new)
        spans += new
        position = batch.stop
    needed = planner.first_needed
    last = list(planner.finish())
    assert all(span.first >= needed for span in last)
    return spans + last


def random_speech(seed: int) -> np.ndarray:
    """Alternating speech and pauses: short ones, long ones, and speech without a pause for longer than a segment."""
    draw = np.random.default_rng(seed)
    runs = []
    for number in range(draw.integers(1, 40)):
        mean = draw.choice([3, 30, 400]) if number % 2 else draw.choice([2, 12, 100])
        runs.append(np.full(1 + draw.poisson(mean), bool(number % 2)))
    return np.concatenate(runs)


def runs_of(values: np.ndarray):
    """(value, first, end) of each run"""
    position = 0
    for value, group in itertools.groupby(values.tolist()):
        length = len(list(group))
        yield value, position, position + length
        position += length


@pytest.mark.parametrize("seed", range(100))
def test_no_speech_is_left_out_and_no_segment_is_too_long(seed):
    speech = random_speech(seed)
    spans = plan(speech)
    covered = np.zeros(len(speech), int)
    for span in spans:
        assert 0 <= span.first < span.end <= len(speech)
        assert span.end - span.first <= MAX_WINDOWS
        assert speech[span.first : span.end].any()
        covered[span.first + span.overlap : span.end] += 1
    assert (covered[speech] == 1).all()  # once, and again only in an overlap
    for previous, span in itertools.pairwise(spans):
        assert span.first + span.overlap == previous.end or not speech[span.first : previous.end].any()


@pytest.mark.parametrize("seed", range(100))
def test_only_the_middle_of_long_pauses_is_left_out(seed):
    speech = random_speech(seed)
    covered = np.zeros(len(speech), bool)
    for span in plan(speech):
        covered[span.first : span.end] = True
    padding = round(POLICY.padding / WINDOW_SECONDS)
    for value, first, end in runs_of(covered):
        if not value:
            assert not speech[max(0, first - MIN_PAUSE // 2) : end].any()
            assert not speech[end : end + padding].any()
            pause = next(e - f for is_speech, f, e in runs_of(speech) if not is_speech and f <= first and end <= e)
            inside = first > 0 and end < len(speech)
            assert not inside or pause >= LONG_PAUSE


@pytest.mark.parametrize("seed", range(100))
def test_segments_are_cut_in_pauses_and_overlap_only_where_there_is_none(seed):
    speech = random_speech(seed)
    spans = plan(speech)
    pauses = [(first, end) for value, first, end in runs_of(speech) if not value and end - first >= MIN_PAUSE]
    for previous, span in itertools.pairwise(spans):
        inner = [(f, e) for f, e in pauses if f > previous.first and e <= previous.first + MAX_WINDOWS]
        inner = [(f, e) for f, e in inner if speech[previous.first : f].any()]
        if span.overlap:
            assert not inner
        else:
            half = MIN_PAUSE // 2
            assert not speech[previous.end - half : previous.end].any()
            assert not speech[span.first : span.first + half].any()


def test_without_a_pause_the_seam_is_at_the_quietest_place():
    levels = np.full(1000, -20.0)
    levels[215:218] = -40.0  # within the second half of the first segment of 312 windows
    spans = plan(np.ones(1000, bool), levels=levels)
    assert spans[1].overlap == MAX_WINDOWS // 4  # shorter than the policy's 4 s
    assert spans[1].first + spans[1].overlap // 2 == 216
    assert spans[0].end == spans[1].first + spans[1].overlap


def test_the_last_clear_pause_is_taken_or_the_longest_of_the_second_half():
    speech = np.ones(1000, bool)
    for first, end in ((30, 70), (100, 130), (220, 240), (280, 292)):
        speech[first:end] = False
    assert plan(speech)[0] == Span(0, 238, 0)  # both sides keep the pause, but for a margin
    assert plan(speech)[1].first == 222
    speech[225:240] = True  # no clear pause is left but in the first half
    assert plan(speech)[0] == Span(0, 128, 0)
    speech[100:130] = speech[30:70] = True
    assert plan(speech)[0] == Span(0, 290, 0)
    speech[280:292] = True
    assert plan(speech)[1].overlap  # 220 to 225 is too short


def test_digital_silence_ends_a_segment_and_is_in_none():
    levels = np.full(300, -20.0)
    levels[100:130] = -100.0
    for muted in (np.ones(300), np.where(levels < -90, 0.0, 1.0)):  # even where the detector takes it for speech
        assert plan(muted >= 0.5, levels=levels) == [Span(0, 100, 0), Span(130, 300, 0)]
    levels[100:102] = -50.0  # what sounds is kept, up to the padding
    assert plan(levels == -20.0, levels=levels) == [Span(0, 102, 0), Span(130, 300, 0)]


def test_short_gaps_of_digital_silence_do_not_part_words():
    levels = np.tile(np.repeat([-20.0, -100.0], [20, 15]), 8)  # 0.5 s each
    assert len(plan(levels > -90, levels=levels)) == 1


def test_segments_are_few_and_silence_makes_none():
    speech = np.tile(np.repeat([True, False], [60, 12]), 30)  # 2160 windows with a pause every 72
    assert len(plan(speech)) <= np.ceil(len(speech) / (MAX_WINDOWS - 72))
    assert plan(np.zeros(5000, bool)) == []
    assert plan(np.zeros(0, bool)) == []
    assert len(plan(np.array([True]))) == 1


@pytest.mark.parametrize("max_seconds", [0.26, 0.5, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("seed", range(10))
def test_any_length_of_segments_keeps_all_speech(max_seconds, seed):
    speech = random_speech(seed)
    covered = np.zeros(len(speech), bool)
    for span in plan(speech, max_seconds=max_seconds):
        assert (span.end - span.first) * WINDOW_SECONDS <= max_seconds + 1e-9
        covered[span.first : span.end] = True
    assert covered[speech].all()


def test_segments_that_are_too_short_for_a_cut_are_refused():
    with pytest.raises(UserError, match="too short"):
        SegmentPlanner(0.2, POLICY)
