"""From the aligned words of a recording to utterances: cut at pauses and ends of sentences, each with a score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asrtool.inference.recording_alignment import AlignedWord, RecordingAlignment

# Costs of a cut between two words; one at a good place is cheaper than none, which has the cost 0.
CUT_COST = -1.0
NO_PAUSE_COST = 2.0  # of a cut without a pause; a pause of GOOD_PAUSE has none
NO_SENTENCE_END_COST = 2.0
SHORT_COST = 10.0  # of an utterance below the shortest length, which is left out: as bad as several poor cuts
GOOD_PAUSE = 0.3  # seconds; closures of stops are shorter
MAX_MARGIN = 0.15  # seconds of a pause that an utterance keeps at either end


@dataclass(frozen=True)
class CutLimits:
    """The lengths of utterances in seconds."""

    min_seconds: float = 1.0
    max_seconds: float = 20.0


class Utterance(NamedTuple):
    """Words without other speech between them; `start` and `end` in seconds of the recording.

    score: the log-probability of the aligned units less the log-probability of the best units, divided by the number of
    units, in nats: 0 where the recogniser hears what the text says, and negative elsewhere.
    """

    words: Sequence[AlignedWord]
    start: float
    end: float
    score: float

    @property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.end - self.start


def cut_utterances(alignment: RecordingAlignment, limits: CutLimits) -> Iterator[Utterance]:
    """Yields utterances in order: all aligned words; some utterances may be shorter or, if one word is, longer."""
    interruptions = {part.before for part in alignment.extra}
    num_units = np.bincount([unit.word for unit in alignment.edits.units], minlength=len(alignment.text.words))
    loss = np.concatenate([[0.0], alignment.edits.loss.cumsum()])
    occupied = _occupied(alignment)
    for run in _uninterrupted(alignment.words, interruptions):
        for words in _best_cuts(run, alignment, limits):
            start, end = _with_margins(words, occupied, alignment.seconds)
            first, last = (min(round(time / alignment.frame_seconds), len(loss) - 1) for time in (start, end))
            units = sum(int(num_units[word.index]) for word in words)
            yield Utterance(words, start, end, -float(loss[last] - loss[first]) / units)


def _uninterrupted(words: Sequence[AlignedWord], interruptions: set[int]) -> Iterator[list[AlignedWord]]:
    """Yields runs of words without speech between them that the text lacks."""
    run: list[AlignedWord] = []
    for word in words:
        if run and not interruptions.isdisjoint(range(run[-1].index + 1, word.index + 1)):
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def _best_cuts(
    run: Sequence[AlignedWord], alignment: RecordingAlignment, limits: CutLimits
) -> Iterator[list[AlignedWord]]:
    """Divides a run at the cheapest places. Utterances have at most `max_seconds`, unless a single word has more."""
    costs = [_cut_cost(word, following, alignment) for word, following in zip(run, run[1:], strict=False)]
    best = np.zeros(len(run) + 1)  # cost of the best division of the first n words
    begins = np.zeros(len(run) + 1, np.int64)  # and the first word of its last utterance
    for end in range(1, len(run) + 1):
        best[end] = np.inf
        for begin in range(end - 1, -1, -1):
            seconds = run[end - 1].end - run[begin].start
            if seconds + 2 * MAX_MARGIN > limits.max_seconds and begin < end - 1:
                break
            cost = best[begin] + (costs[begin - 1] if begin else 0.0) + SHORT_COST * (seconds < limits.min_seconds)
            if cost < best[end]:
                best[end], begins[end] = cost, begin
    bounds = [len(run)]
    while bounds[-1]:
        bounds.append(int(begins[bounds[-1]]))
    for begin, end in zip(bounds[:0:-1], bounds[-2::-1], strict=True):
        yield list(run[begin:end])


def _cut_cost(word: AlignedWord, following: AlignedWord, alignment: RecordingAlignment) -> float:
    pause = min(max(0.0, following.start - word.end), GOOD_PAUSE)
    ends_sentence = any(w.ends_sentence for w in alignment.text.words[word.index : following.index])
    return CUT_COST + NO_PAUSE_COST * (1 - pause / GOOD_PAUSE) + NO_SENTENCE_END_COST * (not ends_sentence)


def _occupied(alignment: RecordingAlignment) -> tuple[np.ndarray, np.ndarray]:
    """Returns the starts and the ends of everything that is spoken, both sorted."""
    spoken: list[AlignedWord] = list(alignment.words)
    starts = sorted([*(word.start for word in spoken), *(part.start for part in alignment.extra)])
    ends = sorted([*(word.end for word in spoken), *(part.end for part in alignment.extra)])
    return np.array(starts), np.array(ends)


def _with_margins(
    words: Sequence[AlignedWord], occupied: tuple[np.ndarray, np.ndarray], seconds: float
) -> tuple[float, float]:
    """Returns the start and end of an utterance with half of the pauses around it, at most MAX_MARGIN of each."""
    starts, ends = occupied
    first, last = words[0].start, words[-1].end
    before = np.searchsorted(ends, first + 1e-6) - 1
    after = np.searchsorted(starts, last - 1e-6)
    room_before = (first - ends[before]) / 2 if before >= 0 else first
    room_after = (starts[after] - last) / 2 if after < len(starts) else seconds - last
    start = max(0.0, first - min(MAX_MARGIN, max(0.0, room_before)))
    end = min(seconds, last + min(MAX_MARGIN, max(0.0, room_after)))
    return round(start, 4), round(end, 4)
