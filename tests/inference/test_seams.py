import numpy as np
import pytest

from asrtool.inference.results import Word
from asrtool.inference.seams import join_seam

START, OVERLAP = 20.0, 4.0
END = START + OVERLAP


def spoken(draw, vocabulary: int) -> list[Word]:
    """The true words from 10 to 34 s; `confidence` has their number, by which tests know them."""
    words, time = [], 10.0
    while time < 34:
        length = draw.uniform(0.1, 0.6)
        words.append(Word(f"w{draw.integers(vocabulary)}", time, time + length, len(words)))
        time += length + draw.choice([0.0, 0.02, 0.2])
    return words


def recognised(draw, words, begin, end, errors: float, jitter: float) -> list[Word]:
    """What a segment from `begin` to `end` recognises.

    A word that the edge cuts is lost or becomes another one; within, words are replaced with the probability `errors`.
    Times differ by up to `jitter`.
    """
    result = []
    for word in words:
        if word.end <= begin or word.start >= end:
            continue
        is_cut = word.start < begin or word.end > end
        if is_cut and draw.random() < 0.5:
            continue
        text = f"x{draw.integers(10**9)}" if is_cut or draw.random() < errors else word.text
        first, last = (np.clip(time + draw.uniform(-jitter, jitter), begin, end) for time in (word.start, word.end))
        result.append(Word(text, first, max(last, first + 0.04), word.confidence))
    return result


@pytest.mark.parametrize("vocabulary", [1, 3, 1000])
@pytest.mark.parametrize("errors", [0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("jitter", [0.0, 0.04])
def test_every_word_is_kept_exactly_once(vocabulary, errors, jitter):
    draw = np.random.default_rng([vocabulary, int(10 * errors), int(100 * jitter)])
    for _ in range(100):
        truth = spoken(draw, vocabulary)
        left = recognised(draw, truth, 10.0, END, errors, jitter)
        right = recognised(draw, truth, START, 34.0, errors, jitter)
        kept_left, kept_right = join_seam(left, right, START, OVERLAP)
        numbers = [word.confidence for word in [*kept_left, *kept_right]]
        cut_at_the_ends = {truth[0].confidence, truth[-1].confidence}
        expected = [word.confidence for word in truth]
        assert [n for n in numbers if n not in cut_at_the_ends] == [n for n in expected if n not in cut_at_the_ends]


@pytest.mark.parametrize("seed", range(20))
def test_what_both_recognise_alike_is_joined_without_an_error(seed):
    draw = np.random.default_rng(seed)
    truth = spoken(draw, 1000)
    left = recognised(draw, truth, 0.0, END, 0.0, 0.02)
    right = recognised(draw, truth, START, 99.0, 0.0, 0.02)
    kept_left, kept_right = join_seam(left, right, START, OVERLAP)
    assert [word.text for word in kept_left + kept_right] == [word.text for word in truth]


def test_the_seam_is_at_the_agreement_nearest_to_the_middle():
    left = [Word("a", 20.5, 20.9), Word("b", 21.6, 21.9), Word("x", 22.1, 22.4), Word("d", 23.0, 23.2)]
    right = [Word("a", 20.5, 20.9), Word("b", 21.6, 21.9), Word("y", 22.1, 22.4), Word("d", 23.0, 23.2)]
    kept_left, kept_right = join_seam(left, right, START, OVERLAP)
    assert [word.text for word in kept_left] == ["a", "b"]
    assert [word.text for word in kept_right] == ["y", "d"]


def test_a_repeated_word_is_not_joined_with_its_neighbour():
    left = [Word("no", time, time + 0.2) for time in (20.6, 21.6, 22.6)]
    right = [Word("no", time, time + 0.2) for time in (21.6, 22.6, 23.6)]
    joined = [word.start for part in join_seam(left, right, START, OVERLAP) for word in part]
    assert joined == [20.6, 21.6, 22.6, 23.6]


def test_a_word_that_only_one_side_has_is_taken_from_the_side_that_sees_it_from_afar():
    only_left = join_seam([Word("a", 21.0, 21.3)], [], START, OVERLAP)
    only_right = join_seam([], [Word("a", 23.0, 23.3)], START, OVERLAP)
    assert [word.text for part in only_left + only_right for word in part] == ["a", "a"]
    late_left = join_seam([Word("cut", 23.7, 24.0)], [Word("whole", 23.7, 24.4)], START, OVERLAP)
    assert [word.text for part in late_left for word in part] == ["whole"]


def test_without_an_overlap_all_words_are_kept():
    left, right = [Word("a", 19.0, 19.5)], [Word("a", 20.2, 20.6)]
    assert join_seam(left, right, START, 0.0) == (left, right)
    assert join_seam([], [], START, OVERLAP) == ([], [])
