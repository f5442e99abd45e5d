"""Start and end of each word: from the frames of its units, by forced alignment.

The units of the recognised path are aligned again, without a beam: a hypothesis has only the frame in which each unit
begins. An utterance of any length is aligned in pieces, which are cut where the path itself begins a unit.
"""

import math
from collections.abc import Sequence

import numpy as np

from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.unit_chain import FrameSpan, align_units

MAX_BLANK_SHARE = 0.2
MAX_PIECE_UNITS = 400  # units that are aligned together: about half a minute of speech, 1000 frames x 800 states


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
    spans: Sequence[FrameSpan],
    words: Sequence[tuple[int, int]],
    num_frames: int,
    frame_seconds: float,
    features: np.ndarray | None = None,
) -> list[tuple[float, float]]:
    """Returns start and end of each word in seconds; `words` are bounds among the units with these spans."""
    most = math.ceil(MAX_BLANK_SHARE * num_frames / max(1, len(spans)))
    times = []
    for begin, end in words:
        if begin == end:
            place = spans[min(begin, len(spans) - 1)].begin if spans else 0
            times.append((place * frame_seconds, place * frame_seconds))
            continue
        before = spans[begin].begin - (spans[begin - 1].end if begin else 0)
        after = (spans[end].begin if end < len(spans) else num_frames) - spans[end - 1].end
        lead = min(before if not begin else before // 2, most)
        tail = min(after if end == len(spans) else after - after // 2, most)
        times.append(((spans[begin].begin - lead) * frame_seconds, (spans[end - 1].end + tail) * frame_seconds))
    return times
