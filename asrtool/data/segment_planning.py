"""Where a recording is cut, from the speech probability and the level of each window of 32 ms.

It sees only numbers of windows: `speech_segments` turns them into samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asrtool.data.speech_detection import RATE, WINDOW
from asrtool.errors import UserError

WINDOW_SECONDS = WINDOW / RATE
MARGIN_WINDOWS = 2  # 64 ms: a detector may notice a word that late, and miss as much of its end
MIN_SEGMENT_WINDOWS = 8  # 0.26 s: shorter segments cannot hold a word and an overlap
# Level of digital silence, in dB of full scale: below the smallest step of 16-bit audio.
MUTE_LEVEL = -90.0


@dataclass(frozen=True)
class SegmentationPolicy:
    """Thresholds of segmentation; times in seconds.

    speech_probability: a window from here on may be speech. silero-vad decides at 0.5; windows in fricatives, breaths
    and unstressed endings of words are below it.
    min_pause: the shortest pause at which a segment is cut. Closures of stops last up to 0.15 s, and what both sides
    keep is about what training utterances have.
    clear_pause: a pause as between phrases and sentences. A full segment ends at its last one.
    long_pause: a pause that always ends a segment. Below it, silence costs less than the context that a cut takes.
    mute_pause: the same for digital silence, which no microphone records: models have not seen it, and it changes the
    mean of their features. Gates that mute a speaker between words leave shorter gaps.
    padding: what both sides of a cut keep of the pause at most; it is theirs alike where the pause is shorter than two.
    overlap: how much two segments share where no pause parts them: several words, one of which both recognise alike.
    """

    speech_probability: float = 0.1
    min_pause: float = 0.3
    clear_pause: float = 0.5
    long_pause: float = 2.0
    mute_pause: float = 0.8
    padding: float = 0.5
    overlap: float = 4.0


@dataclass(frozen=True)
class Span:
    """Windows from `first` to before `end`; the previous span has the first `overlap` of them, too.

    Both may have windows of the pause that parts them; these do not count as an overlap, since they have no words.
    """

    first: int
    end: int
    overlap: int


class SegmentPlanner:
    """Plans spans of at most `max_seconds` while probabilities arrive.

    Raises UserError for a `max_seconds` that is too short for any cut.
    """

    def __init__(self, max_seconds: float, policy: SegmentationPolicy):
        self._max = int(max_seconds / WINDOW_SECONDS + 1e-6)
        if self._max < MIN_SEGMENT_WINDOWS:
            least = MIN_SEGMENT_WINDOWS * WINDOW_SECONDS
            raise UserError(f"segments of {max_seconds:g} s are too short; give at least {least:.2f} s")
        self._policy = policy
        self._min_pause = _windows(policy.min_pause)
        self._clear_pause = _windows(policy.clear_pause)
        self._long_pause = min(_windows(policy.long_pause), self._max // 2)
        self._mute_pause = min(_windows(policy.mute_pause), self._long_pause)
        self._padding = min(_windows(policy.padding), self._long_pause // 2)
        self._overlap = min(_windows(policy.overlap), self._max // 4)  # two overlaps of one segment never meet
        self._speech: list[bool] = []  # of the windows from `_origin` on
        self._levels: list[float] = []
        self._origin = 0  # never after `first_needed`
        self._count = 0  # windows so far
        self._start: int | None = None  # of the current segment; None within a long pause
        self._start_overlap = 0
        self._previous_end = 0  # windows before it are in spans already, but for pauses
        self._last_speech = -1
        self._mute_count = 0  # windows of digital silence up to now
        self._unmuted = 0  # the window after the last pause of digital silence

    @property
    def first_needed(self) -> int:
        """The first window that a later span may have."""
        if self._start is not None:
            return self._start
        return max(self._previous_end, self._count - self._padding)

    def accept(self, probabilities: np.ndarray, levels: np.ndarray) -> Iterator[Span]:
        """Yields the spans that further windows complete: probabilities (n,) and levels (n,), in dB."""
        speech = probabilities >= self._policy.speech_probability
        for is_speech, level in zip(speech.tolist(), levels.tolist(), strict=True):
            is_mute = level < MUTE_LEVEL
            self._speech.append(is_speech and not is_mute)
            self._levels.append(level)
            self._count_mute(is_mute)
            yield from self._step(self._speech[-1])
        self._forget()

    def finish(self) -> Iterator[Span]:
        """Yields the last span, if it has speech."""
        if self._start is not None and self._last_speech >= self._start:
            yield self._span(self._padded_end())

    def _count_mute(self, is_mute: bool) -> None:
        """Counts digital silence, before the window of number `_count`."""
        if not is_mute and self._mute_count >= self._mute_pause:
            self._unmuted = self._count
        self._mute_count = self._mute_count + 1 if is_mute else 0

    def _step(self, is_speech: bool) -> Iterator[Span]:
        window = self._count
        self._count += 1
        if is_speech:
            self._last_speech = window
            if self._start is None:
                self._start = max(self._previous_end, window - self._padding, self._unmuted)
        if self._start is None:
            return
        pause = window - max(self._last_speech, self._start)
        if pause >= self._long_pause or self._mute_count >= self._mute_pause:
            if self._last_speech >= self._start:
                yield self._span(self._padded_end())
            self._start, self._start_overlap = None, 0
        elif self._count - self._start >= self._max:
            yield self._cut(self._start)

    def _padded_end(self) -> int:
        """Returns the end of a span whose last speech is `_last_speech`: with padding, and before digital silence."""
        return min(self._last_speech + 1 + self._padding, self._count - self._mute_count)

    def _span(self, end: int) -> Span:
        assert self._start is not None
        self._previous_end = end
        return Span(self._start, end, self._start_overlap)

    def _cut(self, start: int) -> Span:
        """Ends the segment from `start`, which is as long as it may be, at its best place."""
        pause = self._best_pause(start)
        if pause is not None:
            first, end = pause
            middle = (first + end) // 2
            span = self._span(min(max(middle, end - MARGIN_WINDOWS), middle + self._padding))
            self._previous_end = middle
            self._start = max(min(middle, first + MARGIN_WINDOWS), middle - self._padding)
            self._start_overlap = 0
            return span
        middle = self._quietest(start)
        span = self._span(middle + self._overlap - self._overlap // 2)
        self._start, self._start_overlap = middle - self._overlap // 2, self._overlap
        return span

    def _best_pause(self, start: int) -> tuple[int, int] | None:
        """Returns (first, end) of the pause at which a full segment ends; None if it has none.

        This is the last clear pause behind the first quarter, so that segments are few and end where phrases do; else
        the longest pause of the second half, else of the first.
        """
        pauses = list(self._pauses(start))
        clear = [pause for pause in self._behind(pauses, start + self._max // 4) if self._is_clear(pause)]
        late = self._behind(pauses, start + self._max // 2)
        # Of pauses that are equally long, the last.
        longest = max(late or pauses, key=lambda pause: (pause[1] - pause[0], pause[0]), default=None)
        return clear[-1] if clear else longest

    def _is_clear(self, pause: tuple[int, int]) -> bool:
        return pause[1] - pause[0] >= self._clear_pause

    @staticmethod
    def _behind(pauses: list[tuple[int, int]], window: int) -> list[tuple[int, int]]:
        """Returns the pauses whose middle is not before a window."""
        return [pause for pause in pauses if sum(pause) // 2 >= window]

    def _pauses(self, start: int) -> Iterator[tuple[int, int]]:
        """Yields (first, end) of each pause after speech of the segment that is long enough for a cut."""
        speech = np.flatnonzero(self._speech[start - self._origin :]) + start  # windows
        ends_of_speech, starts_of_speech = speech, np.append(speech[1:], self._count)
        for last, following in zip(ends_of_speech.tolist(), starts_of_speech.tolist(), strict=True):
            if following - last - 1 >= self._min_pause:
                yield last + 1, following

    def _quietest(self, start: int) -> int:
        """Returns the quietest window, on average over three, at which the middle of the overlap may stand."""
        first = start + self._max // 2
        end = self._count - (self._overlap - self._overlap // 2)
        levels = np.array(self._levels[first - 1 - self._origin : end + 1 - self._origin])
        smooth = np.convolve(levels, np.ones(3) / 3, "valid")  # (end - first,)
        return first + int(smooth[: end - first].argmin())

    def _forget(self) -> None:
        """Forgets the windows that no later span has."""
        count = self.first_needed - self._origin
        del self._speech[:count], self._levels[:count]
        self._origin += count


def _windows(seconds: float) -> int:
    return max(1, round(seconds / WINDOW_SECONDS))
