"""Subtitles: the words of a recording in cues that can be read, as SubRip (srt) and WebVTT (vtt) by pysubs2.

The limits are those of broadcasters and streaming services, which differ little: BBC Subtitle Guidelines 1.2 (section
"Presentation"), Netflix Timed Text Style Guide, English. Which words form a cue is the cheapest division of all words
under the costs of `_cue_cost`, found by dynamic programming, as in Knuth and Plass's breaking of paragraphs.
"""

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from asrtool.deploy.results import Word

MAX_WIDTH = 42  # columns of a line (Netflix; the BBC has 37 to 40)
MAX_LINES = 2
MAX_SECONDS = 7.0  # a cue that stays longer is read twice (Netflix)
MIN_SECONDS = 1.0  # a shorter one flashes (BBC; Netflix allows 5/6 s)
MAX_SPEED = 20.0  # columns in a second: the reading speed of adults (Netflix)
GAP = 0.08  # seconds between two cues, two frames of a film, so that a change is seen (Netflix)
PAUSE = 0.5  # seconds; a pause that listeners notice: a cue ends there if it can
SHORT_PAUSE = 0.2  # seconds; longer than the closure of a plosive, so between phrases
LONG_PAUSE = 2.0  # seconds; no cue goes on over it: its second part would be read before it is spoken
SENTENCE_END = ".?!…。？！؟।"
PHRASE_END = ",;:،、，；："


@dataclass(frozen=True)
class Cue:
    """A subtitle of one or two lines; `start` and `end` in seconds of the recording."""

    start: float
    end: float
    lines: tuple[str, ...]


def subtitle_cues(words: Sequence[Word]) -> list[Cue]:
    """Returns the words of a recording as cues, in order and without overlap.

    A cue has at most MAX_LINES lines of MAX_WIDTH columns and lasts at most MAX_SECONDS. It ends at a pause or at the
    end of a phrase, lasts MIN_SECONDS, and can be read at MAX_SPEED, where the times of the words allow it.
    """
    pieces = [piece for word in words for piece in split_wide_word(word)]
    count = len(pieces)
    best = [0.0] + [float("inf")] * count  # cost of the first n pieces
    first = [0] * (count + 1)  # where the last cue of the first n pieces begins
    for end in range(1, count + 1):
        following = pieces[end] if end < count else None
        for start in range(end - 1, -1, -1):
            chosen = pieces[start:end]
            if not _fits(chosen):
                break
            cost = best[start] + _cue_cost(chosen, following)
            if cost < best[end]:
                best[end], first[end] = cost, start
    bounds = [count]
    while bounds[-1]:
        bounds.append(first[bounds[-1]])
    return [_cue(pieces[start:end], pieces[end] if end < count else None) for start, end in pairwise(reversed(bounds))]


def display_width(text: str) -> int:
    """Returns the columns of a text: two for a wide East Asian character, none for a combining mark."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def split_wide_word(word: Word) -> list[Word]:
    """Returns a word in pieces of at most MAX_WIDTH columns, with shares of its time.

    Only text in scripts without spaces has such words.
    """
    pieces, width = [""], 0
    for character in word.text:
        added = display_width(character)
        if width + added > MAX_WIDTH:
            pieces.append("")
            width = 0
        pieces[-1] += character
        width += added
    step = (word.end - word.start) / len(pieces)
    return [
        Word(piece, word.start + n * step, word.start + (n + 1) * step, word.confidence)
        for n, piece in enumerate(pieces)
    ]


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _fits(words: Sequence[Word]) -> bool:
    """Returns True if the words may be one cue. A single word always may."""
    if len(words) == 1:
        return True
    if words[-1].end - words[0].start > MAX_SECONDS:
        return False
    if any(following.start - word.end >= LONG_PAUSE for word, following in pairwise(words)):
        return False
    return bool(break_lines(words))


def break_lines(words: Sequence[Word]) -> tuple[str, ...]:
    """Returns the words in one line, or in two of similar width, broken after a phrase if there is one nearby.

    Returns no line if they need more.
    """
    if display_width(_text(words)) <= MAX_WIDTH:
        return (_text(words),)
    options = []
    for number in range(1, len(words)):
        lines = _text(words[:number]), _text(words[number:])
        widths = [display_width(line) for line in lines]
        if max(widths) <= MAX_WIDTH:
            # a break within a phrase counts as much as a difference of half a line
            cost = abs(widths[0] - widths[1]) + MAX_WIDTH / 2 * _break_cost(words[number - 1], words[number])
            options.append((cost, lines))
    return min(options)[1] if options else ()


def _break_cost(word: Word, following: Word | None) -> float:
    """Returns how much a break after `word` disturbs a reader: 0 at a pause or between sentences, 1 within a phrase."""
    if following is None or following.start - word.end >= PAUSE or word.text.endswith(tuple(SENTENCE_END)):
        return 0.0
    if following.start - word.end >= SHORT_PAUSE or word.text.endswith(tuple(PHRASE_END)):
        return 0.3  # nearer to the end of a sentence than to the middle of a phrase
    return 1.0


def _cue_cost(words: Sequence[Word], following: Word | None) -> float:
    """Returns the cost of a cue: each cue costs 1, and as much as each of these faults.

    The faults are a break within a phrase, a pause inside, half a second less than MIN_SECONDS, and ten columns in a
    second more than MAX_SPEED.
    """
    cue = _cue(words, following)
    seconds = max(cue.end - cue.start, 1e-3)  # a word of a broken alignment may have no duration
    speed = display_width(_text(words)) / seconds
    pauses = sum(after.start - word.end >= PAUSE for word, after in pairwise(words))
    return (
        1.0
        + _break_cost(words[-1], following)
        + pauses
        + 2 * max(0.0, MIN_SECONDS - seconds)
        + max(0.0, speed - MAX_SPEED) / 10
    )


def _cue(words: Sequence[Word], following: Word | None) -> Cue:
    """Returns a cue that stays as long as it needs to be read, if the following word leaves the time."""
    start = words[0].start
    end = max(words[-1].end, start + MIN_SECONDS, start + display_width(_text(words)) / MAX_SPEED)
    end = min(end, start + MAX_SECONDS)
    if following is not None:
        end = min(end, max(following.start - GAP, min(words[-1].end, following.start)))
    return Cue(start, max(start, end), break_lines(words))


def srt_text(words: Sequence[Word]) -> str:
    """Returns the words as a SubRip file. Its text has no escapes."""
    return _subtitles(subtitle_cues(words), "srt")


def vtt_text(words: Sequence[Word]) -> str:
    """Returns the words as a WebVTT file (W3C); characters that stand for its tags are escaped."""
    cues = [
        Cue(cue.start, cue.end, tuple(html.escape(line, quote=False) for line in cue.lines))
        for cue in subtitle_cues(words)
    ]
    return _subtitles(cues, "vtt")


def _subtitles(cues: Sequence[Cue], format: str) -> str:
    from pysubs2 import SSAEvent, SSAFile

    file = SSAFile()
    for cue in cues:
        # pysubs2 reads \N as the end of a line: an invisible word joiner keeps a word's own backslash
        lines = [line.replace("\\", "\\\u2060") for line in cue.lines]
        file.append(SSAEvent(round(1000 * cue.start), round(1000 * cue.end), "\\N".join(lines)))
    return file.to_string(format, keep_ssa_tags=True, apply_styles=False)
