"""Start and end of each word: from the frames of its units by forced alignment, and from the energy around it.

The units of the recognised path are aligned again, without a beam: a hypothesis has only the frame in which each unit
begins. An utterance of any length is aligned in pieces, which are cut where the path itself begins a unit.

CTC emits a unit in one or two frames somewhere within its sound, so the frames of a word's units are shorter than the
word. Where the features are at hand, the word reaches to where the energy beside its units falls to the level of the
pause; in fluent speech, without such a fall, two words share the gap between their units. tools/bench/word_times.py
measures all of this on synthetic speech with known word boundaries (docs/benchmarks.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asrtool.data.features import FRAME_SHIFT
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.unit_chain import FrameSpan, align_units

MAX_PIECE_UNITS = 400  # units that are aligned together: about half a minute of speech, 1000 frames x 800 states

# All constants below are the best ones, or near them on a flat optimum, on the boundaries of tools/bench/word_times.py.
# Without features: the part of a gap that a word gets on either side of its units, in mean durations of a unit.
MAX_GAP_SHARE = 0.2
# How far beyond its units a word's start and end are looked for, in mean durations of a unit: half of a unit that is
# emitted late, and the rest of a final one that is emitted early, which is often longer.
START_REACH, END_REACH = 1.0, 1.6
# A word begins where the energy (in log-mel, between the pause's and the word's) rises above the first share, and ends
# where it falls below the second: final sounds fade into the room's echo.
START_LEVEL, END_LEVEL = 0.1, 0.3
# A gap whose energy stays above this share, between the quietest and the word's, holds no pause.
PAUSE_LEVEL = 0.3
QUIET = 0.1  # the quantile of an utterance's energies that counts as quiet
MAX_SHARED = 0.5  # of a gap without a pause, which two words share, a word gets so many mean durations at most


class TimeSpan(NamedTuple):
    """Start and end in seconds."""

    start: float
    end: float


def unit_spans(log_probs: np.ndarray, hypothesis: Hypothesis, topology: str) -> list[FrameSpan]:
    """Returns the frames of each unit of a hypothesis on the best path of its units through log_probs (T, V).

    Units of a piece without such a path (of a damaged hypothesis) have the one frame in which they begin.
    """
    tokens, frames = hypothesis.tokens, hypothesis.frames
    spans: list[FrameSpan] = []
    for begin, end in _pieces(frames):
        first = frames[begin] if begin else 0
        last = frames[end] if end < len(tokens) else len(log_probs)
        aligned = align_units(log_probs[first:last], tokens[begin:end], topology)
        if aligned is None:
            spans += [FrameSpan(frame, frame + 1) for frame in frames[begin:end]]
        else:
            spans += [FrameSpan(first + span.begin, first + span.end) for span in aligned]
    return spans


def _pieces(frames: Sequence[int]) -> list[tuple[int, int]]:
    """Returns bounds of pieces of at most MAX_PIECE_UNITS units, each cut before the longest gap of its second half."""
    pieces = []
    begin = 0
    while len(frames) - begin > MAX_PIECE_UNITS:
        candidates = range(begin + MAX_PIECE_UNITS // 2, begin + MAX_PIECE_UNITS + 1)
        end = max(candidates, key=lambda unit: frames[unit] - frames[unit - 1])
        pieces.append((begin, end))
        begin = end
    return [*pieces, (begin, len(frames))]


def word_times(
    words: Sequence[FrameSpan],
    num_units: int,
    num_frames: int,
    frame_seconds: float,
    features: np.ndarray | None = None,
) -> list[TimeSpan]:
    """Returns start and end of each word in seconds from the frames of its units, `words`, which are in order.

    num_units: of the whole utterance, of `num_frames` frames of `frame_seconds`. `features` (F, B) are the log-mel
    features of the utterance, some for each frame. Words do not overlap, and each has the frames of its units.
    """
    duration = num_frames * frame_seconds
    cores = [TimeSpan(span.begin * frame_seconds, span.end * frame_seconds) for span in words]
    unit_seconds = duration / max(1, num_units)
    if features is None or not len(features):
        return _share_gaps(cores, duration, MAX_GAP_SHARE * unit_seconds)
    return _energy_bounds(cores, duration, unit_seconds, _Energy(features, frame_seconds))


def _share_gaps(words: Sequence[TimeSpan], duration: float, most: float) -> list[TimeSpan]:
    """Returns the words, each with up to half of the gaps around it, and at most `most` seconds."""
    middles = [0.0, *((a.end + b.start) / 2 for a, b in zip(words, words[1:], strict=False)), duration]
    return [
        TimeSpan(max(first, word.start - most), min(last, word.end + most))
        for word, first, last in zip(words, middles, middles[1:], strict=False)
    ]


def _energy_bounds(
    words: Sequence[TimeSpan], duration: float, unit_seconds: float, energy: "_Energy"
) -> list[TimeSpan]:
    """Returns the words up to where the energy falls to the level of the pause next to them; see the module."""
    shared = _share_gaps(words, duration, MAX_SHARED * unit_seconds)
    ends = [0.0, *(word.end for word in words)]
    starts = [*(word.start for word in words[1:]), duration]
    times = []
    for number, word in enumerate(words):
        level = energy.peak(word)
        start = energy.rise(ends[number], word.start, START_REACH * unit_seconds, level, is_pause=number == 0)
        end = energy.fall(word.end, starts[number], END_REACH * unit_seconds, level, number == len(words) - 1)
        times.append(
            TimeSpan(shared[number].start if start is None else start, shared[number].end if end is None else end)
        )
    return _without_overlaps(times)


def _without_overlaps(words: Sequence[TimeSpan]) -> list[TimeSpan]:
    """Returns the words with the middle of the overlap of two neighbours as their common bound."""
    bounds = list(words)
    for number in range(1, len(bounds)):
        before, after = bounds[number - 1], bounds[number]
        if before.end > after.start:
            middle = (before.end + after.start) / 2
            bounds[number - 1] = TimeSpan(min(before.start, middle), middle)
            bounds[number] = TimeSpan(middle, max(after.end, middle))
    return bounds


class _Energy:
    """The energy of an utterance over time: the mean of its log-mel features."""

    def __init__(self, features: np.ndarray, frame_seconds: float):
        """features (F, B) of an utterance; frame_seconds: of an output frame, of a few features."""
        self.shift = frame_seconds / max(1, round(frame_seconds / FRAME_SHIFT))  # exactly, of the features
        self.values = features.mean(axis=1)  # (F,)
        self.quiet = float(np.quantile(self.values, QUIET))

    def peak(self, word: TimeSpan) -> float:
        """Returns the largest energy in the frames of a word's units."""
        first = min(self._frame(word.start), len(self.values) - 1)
        return float(self.values[first : max(first + 1, self._frame(word.end))].max())

    def rise(self, gap: float, start: float, reach: float, level: float, is_pause: bool) -> float | None:
        """Returns where a word begins whose units do at `start`; None without a pause since `gap` seconds.

        It begins behind the last frame that is quieter than the threshold, at most `reach` seconds before its units.
        """
        stop = self._frame(start) + 1
        floor = self._floor(self._frame(gap), stop, level, is_pause)
        if floor is None:
            return None
        first = max(self._frame(gap), self._frame(start - reach))
        quiet = np.flatnonzero(self.values[first:stop] < floor + START_LEVEL * (level - floor))
        frame = first + int(quiet[-1]) + 1 if len(quiet) else first
        return min(start, frame * self.shift)

    def fall(self, end: float, gap: float, reach: float, level: float, is_pause: bool) -> float | None:
        """Returns where a word ends whose units do at `end`; None without a pause until `gap` seconds.

        It ends before the first frame that is quieter than the threshold, at most `reach` seconds behind its units.
        """
        first = self._frame(end) - 1
        floor = self._floor(first, self._frame(gap), level, is_pause)
        if floor is None:
            return None
        stop = min(self._frame(gap), self._frame(end + reach))
        quiet = np.flatnonzero(self.values[first:stop] < floor + END_LEVEL * (level - floor))
        frame = first + int(quiet[0]) if len(quiet) else stop
        return max(end, frame * self.shift) if frame > first else end

    def _floor(self, first: int, stop: int, level: float, is_pause: bool) -> float | None:
        """Returns the lowest energy of a gap, or None where it is the energy of speech."""
        gap = self.values[first:stop]
        if not len(gap):
            return None
        floor = float(gap.min())
        is_speech = floor > self.quiet + PAUSE_LEVEL * (level - self.quiet)
        return None if is_speech and not is_pause else floor

    def _frame(self, seconds: float) -> int:
        return min(max(0, round(seconds / self.shift)), len(self.values))
