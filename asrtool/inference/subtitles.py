"""Subtitles: the words of a recording in cues that can be read, as SubRip (srt) and WebVTT (vtt) by pysubs2.

The limits follow broadcasters and streaming services, which differ little: BBC Subtitle Guidelines 1.2 (section
"Presentation") and Netflix Timed Text Style Guide, English. Which words form a cue is the cheapest division of all
words under the costs of `Pieces.cost`, found by dynamic programming, as Knuth and Plass break paragraphs into lines.
"""

import html
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from asrtool.inference.results import Word
from asrtool.text.display_width import display_width, letters

MAX_WIDTH = 42  # columns of a line (Netflix; the BBC has 37 to 40)
MAX_LINES = 2
MAX_SECONDS = 7.0  # a cue that stays longer is read twice (Netflix)
MIN_SECONDS = 1.0  # a shorter one flashes (BBC; Netflix allows 5/6 s)
MAX_SPEED = 20.0  # columns in a second: the reading speed of adults (Netflix)
GAP = 0.08  # seconds between two cues, two frames of a film, so that a change is seen (Netflix)
PAUSE = 0.5  # seconds; a pause that listeners notice: a cue ends there if it can
SHORT_PAUSE = 0.2  # seconds; longer than the closure of a plosive, so between phrases
LONG_PAUSE = 2.0  # seconds; no cue goes on over it: its second part would be read before it is spoken
SENTENCE_END = tuple(".?!…。？！؟।")
PHRASE_END = tuple(",;:،、，；：")


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
    pieces = Pieces([piece for word in words for piece in split_wide_word(word)])
    count = len(pieces.words)
    best = [0.0] + [float("inf")] * count  # cost of the first n pieces
    first = [0] * (count + 1)  # where the last cue of the first n pieces begins
    for end in range(1, count + 1):
        for start in range(end - 1, -1, -1):
            if not pieces.fit(start, end):
                break
            cost = best[start] + pieces.cost(start, end)
            if cost < best[end]:
                best[end], first[end] = cost, start
    bounds = [count]
    while bounds[-1]:
        bounds.append(first[bounds[-1]])
    return [pieces.cue(start, end) for start, end in pairwise(reversed(bounds))]


class Pieces:
    """The words of a recording, of which words[start:end] may become a cue."""

    def __init__(self, words: Sequence[Word]):
        self.words = words
        self.widths = [0]  # [n]: the columns of the first n words, each with a space after it
        self.pauses = [0]  # [n]: how many of the first n words have a pause after them
        self.long_pauses = [0]
        for n, word in enumerate(words):
            self.widths.append(self.widths[-1] + display_width(word.text) + 1)
            self.pauses.append(self.pauses[-1] + (self._gap(n) >= PAUSE))
            self.long_pauses.append(self.long_pauses[-1] + (self._gap(n) >= LONG_PAUSE))

    def _gap(self, index: int) -> float:
        """Returns the seconds between a word and the next one; infinite after the last one."""
        if index + 1 == len(self.words):
            return float("inf")
        return self.words[index + 1].start - self.words[index].end

    def width(self, start: int, end: int) -> int:
        """Returns the columns of words[start:end] in one line."""
        return self.widths[end] - self.widths[start] - 1

    def fit(self, start: int, end: int) -> bool:
        """Returns True if words[start:end] may be one cue. A single word always may."""
        if end - start == 1:
            return True
        if self.words[end - 1].end - self.words[start].start > MAX_SECONDS:
            return False
        if self.long_pauses[end - 1] > self.long_pauses[start]:
            return False
        if self.width(start, end) <= MAX_WIDTH:
            return True
        split = bisect_right(self.widths, self.widths[start] + MAX_WIDTH + 1) - 1  # the longest first line
        return self.width(split, end) <= MAX_WIDTH

    def break_cost(self, end: int) -> float:
        """Returns how much a break before words[end] disturbs a reader: 0 at a pause or a sentence, 1 in a phrase."""
        gap, text = self._gap(end - 1), self.words[end - 1].text
        if gap >= PAUSE or text.endswith(SENTENCE_END):
            return 0.0
        if gap >= SHORT_PAUSE or text.endswith(PHRASE_END):
            return 0.3  # nearer to the end of a sentence than to the middle of a phrase
        return 1.0

    def cost(self, start: int, end: int) -> float:
        """Returns the cost of a cue: each cue costs 1, and as much as each of these faults.

        The faults are a break within a phrase, a pause inside, half a second less than MIN_SECONDS, and ten columns in
        a second more than MAX_SPEED.
        """
        seconds = max(self.end_time(start, end) - self.words[start].start, 1e-3)  # broken alignments may have none
        speed = self.width(start, end) / seconds
        return (
            1.0
            + self.break_cost(end)
            + (self.pauses[end - 1] - self.pauses[start])
            + 2 * max(0.0, MIN_SECONDS - seconds)
            + max(0.0, speed - MAX_SPEED) / 10
        )

    def end_time(self, start: int, end: int) -> float:
        """Returns when a cue disappears: after it was read, if the following word leaves the time."""
        begin, last = self.words[start].start, self.words[end - 1].end
        time = max(last, begin + MIN_SECONDS, begin + self.width(start, end) / MAX_SPEED)
        time = min(time, begin + MAX_SECONDS)
        if end < len(self.words):
            following = self.words[end].start
            time = min(time, max(following - GAP, min(last, following)))
        return max(begin, time)

    def lines(self, start: int, end: int) -> tuple[str, ...]:
        """Returns words[start:end] in one line, or in two of similar width, broken after a phrase if it can be."""
        if self.width(start, end) <= MAX_WIDTH or end - start == 1:
            return (self._text(start, end),)
        options = []
        for split in range(start + 1, end):
            widths = self.width(start, split), self.width(split, end)
            if max(widths) <= MAX_WIDTH:
                # a break within a phrase counts as much as a difference of half a line
                cost = abs(widths[0] - widths[1]) + MAX_WIDTH / 2 * self.break_cost(split)
                options.append((cost, split))
        split = min(options)[1]
        return self._text(start, split), self._text(split, end)

    def cue(self, start: int, end: int) -> Cue:
        """Returns words[start:end] as a cue."""
        return Cue(self.words[start].start, self.end_time(start, end), self.lines(start, end))

    def _text(self, start: int, end: int) -> str:
        return " ".join(word.text for word in self.words[start:end])


def split_wide_word(word: Word) -> list[Word]:
    """Returns a word in pieces of at most MAX_WIDTH columns, none of which begins with a mark, with shares of its time.

    Only text in scripts without spaces has such words.
    """
    pieces, width = [""], 0
    for letter in letters(word.text):
        added = display_width(letter)
        if width + added > MAX_WIDTH:
            pieces.append("")
            width = 0
        pieces[-1] += letter
        width += added
    step = (word.end - word.start) / len(pieces)
    return [
        Word(piece, word.start + n * step, word.start + (n + 1) * step, word.confidence)
        for n, piece in enumerate(pieces)
    ]


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
