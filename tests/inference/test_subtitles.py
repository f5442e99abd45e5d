"""Subtitles: the cheapest division into cues, within the limits of lines, time and reading."""

import random
from itertools import combinations, pairwise

import pysubs2
import pytest

from asrtool.inference.results import Word
from asrtool.inference.subtitles import (
    GAP,
    MAX_LINES,
    MAX_SECONDS,
    MAX_SPEED,
    MAX_WIDTH,
    MIN_SECONDS,
    Pieces,
    split_wide_word,
    srt_text,
    subtitle_cues,
    vtt_text,
)
from asrtool.text.display_width import display_width
from tests.inference.transcripts import make_words, random_words


def divisions(count):
    """Yields all ways to divide `count` words into cues, as pairs (start, end)."""
    for number in range(count):
        for borders in combinations(range(1, count), number):
            yield list(pairwise([0, *borders, count]))


def cost(pieces, cues):
    """Returns the cost of a division, infinite if a cue is not allowed."""
    if not all(pieces.fit(start, end) for start, end in cues):
        return float("inf")
    return sum(pieces.cost(start, end) for start, end in cues)


def shown_words(cues):
    return " ".join(line for cue in cues for line in cue.lines).split()


@pytest.mark.parametrize("seed", range(40))
def test_no_other_division_is_cheaper(seed):
    draw = random.Random(seed)
    words = random_words(draw, draw.randint(1, 9))
    cues = subtitle_cues(words)
    borders = [0]
    for cue in cues:
        borders.append(borders[-1] + len(" ".join(cue.lines).split()))
    pieces = Pieces(words)
    assert cost(pieces, list(pairwise(borders))) == pytest.approx(min(cost(pieces, d) for d in divisions(len(words))))


@pytest.mark.parametrize("seed", range(20))
def test_cues_have_all_words_in_order_and_keep_the_limits(seed):
    words = random_words(random.Random(seed), 300)
    cues = subtitle_cues(words)
    assert shown_words(cues) == [word.text for word in words]
    for cue in cues:
        assert 1 <= len(cue.lines) <= MAX_LINES
        assert all(display_width(line) <= MAX_WIDTH for line in cue.lines)
        assert 0 <= cue.end - cue.start <= MAX_SECONDS + 1e-9
    for cue, following in pairwise(cues):
        assert cue.end <= following.start


def test_a_cue_ends_at_a_pause_and_not_in_the_middle_of_a_phrase():
    one = make_words(*((f"word{n}", 0.4 * n, 0.4 * n + 0.4) for n in range(6)))
    two = make_words(*((f"next{n}", 3.4 + 0.4 * n, 3.8 + 0.4 * n) for n in range(6)))
    cues = subtitle_cues(one + two)
    assert [" ".join(cue.lines) for cue in cues] == [" ".join(w.text for w in part) for part in (one, two)]


def test_a_short_cue_stays_as_long_as_it_is_read_if_the_next_one_leaves_the_time():
    alone = subtitle_cues(make_words(("yes", 1.0, 1.1)))
    assert [(cue.start, cue.end) for cue in alone] == [(1.0, 1.0 + MIN_SECONDS)]
    long_text = "a" * 40
    read = subtitle_cues(make_words((long_text, 0.0, 0.5)))
    assert read[0].end == pytest.approx(40 / MAX_SPEED)
    followed = subtitle_cues(make_words(("yes.", 1.0, 1.1), ("no", 3.2, 3.5)))
    assert followed[0].end == 2.0
    pressed = subtitle_cues(make_words((long_text, 0.0, 0.5), (long_text + "b", 1.0, 1.5), (long_text, 2.0, 2.5)))
    assert all(cue.end <= following.start - GAP + 1e-9 for cue, following in pairwise(pressed))


def test_a_word_of_a_broken_alignment_is_shown_for_some_seconds_only():
    cues = subtitle_cues(make_words(("yes", 1.0, 30.0)))
    assert [(cue.start, cue.end) for cue in cues] == [(1.0, 1.0 + MAX_SECONDS)]
    assert subtitle_cues(make_words(("a", 1.0, 1.0), ("b", 1.0, 1.0))) != []


def test_text_without_spaces_is_divided_by_its_width():
    word = Word("北" * 100, 0.0, 20.0)
    pieces = split_wide_word(word)
    assert "".join(piece.text for piece in pieces) == word.text
    assert [display_width(piece.text) for piece in pieces] == [42] * 4 + [32]
    assert pieces[0].start == 0 and pieces[-1].end == 20 and all(a.end == b.start for a, b in pairwise(pieces))
    assert all(display_width(line) <= MAX_WIDTH for cue in subtitle_cues([word]) for line in cue.lines)


@pytest.mark.parametrize("letter", ["ที่", "हि", "e\u0301", "क्\u200d"])  # of 1, 2, 1 and 1 columns
def test_text_without_spaces_is_not_divided_within_a_letter(letter):
    word = Word(letter * 100, 0.0, 20.0)
    pieces = split_wide_word(word)
    assert "".join(piece.text for piece in pieces) == word.text
    assert all(piece.text.startswith(letter) and piece.text.endswith(letter) for piece in pieces)
    assert all(display_width(piece.text) == MAX_WIDTH for piece in pieces[:-1])


def test_nothing_spoken_is_an_empty_file():
    assert subtitle_cues([]) == []
    assert srt_text([]).strip() == ""
    assert vtt_text([]).strip() == "WEBVTT"


@pytest.mark.parametrize("format, text", [("srt", srt_text), ("vtt", vtt_text)])
def test_players_read_the_same_cues(format, text):
    words = random_words(random.Random(7), 200)
    cues = subtitle_cues(words)
    read = pysubs2.SSAFile.from_string(text(words), format)
    assert [(event.start, event.end) for event in read] == [(round(1000 * c.start), round(1000 * c.end)) for c in cues]
    assert [event.plaintext.split("\n") for event in read] == [list(cue.lines) for cue in cues]


@pytest.mark.parametrize("word", ["<i>", "a&b", "{\\an8}", "-->", "x\\Ny", "</c>"])
def test_words_that_look_like_markup_are_shown_as_text(word):
    words = make_words((word, 0.0, 1.0), ("next", 1.0, 2.0))
    shown = srt_text(words).replace("\u2060", "")
    assert f"{word} next" in shown
    escaped = word.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"{escaped} next" in vtt_text(words).replace("\u2060", "")
