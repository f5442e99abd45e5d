"""The outputs that the frames of an aligned utterance are trained on by objective ce, by topology."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

from asrtool.data.batch import NO_LABEL
from asrtool.data.features import FRAME_SHIFT
from asrtool.text.outputs import Topology, hmm_outputs
from asrtool.text.tokenizer import BLANK, Tokenizer

AlignedSymbol = tuple[str, float, float]  # a unit's symbol, its start and its duration in seconds


class _UnitFrames(NamedTuple):
    """The feature frames of a unit, from `begin` to the one before `end`; None for a symbol that is unknown."""

    unit: int | None
    begin: int
    end: int


@dataclass(frozen=True)
class FrameLabels:
    """Labels of feature frames, of which `factor` make an output frame; the one in the middle gives its label.

    Topologies with a blank have blank between units. In "hmm", the first `factor` frames of a unit have its first
    output, so that one output frame has, and the others its second one. There, frames between units are of silence, or
    without a label if no unit is silence. shift: the seconds between two feature frames.
    """

    tokenizer: Tokenizer
    topology: Topology
    factor: int
    shift: float = FRAME_SHIFT

    def of_utterance(self, items: Sequence[AlignedSymbol], length: int) -> torch.Tensor:
        """Returns the labels (length,) of an utterance, int64: NO_LABEL without alignment, and for unknown symbols.

        Where two equal units follow each other without a gap, the last output frame of the first one is blank, too.
        """
        labels = torch.full((length,), NO_LABEL)
        if not items:
            return labels
        if self.topology == "hmm":
            for output, begin, end in self._hmm_spans(items, length):
                labels[begin:end] = output
            return labels
        labels[:] = BLANK
        spans = self._unit_frames(items)
        for span, following in pairwise([*spans, None]):
            assert span is not None
            end = span.end
            if following and following.unit == span.unit:
                end = max(span.begin, min(end, following.begin - self.factor))
            labels[span.begin : end] = NO_LABEL if span.unit is None else span.unit
        return labels

    def hmm_seconds(self, items: Sequence[AlignedSymbol], duration: float) -> Iterator[tuple[int, float]]:
        """Yields outputs of topology "hmm" with seconds of an utterance of `duration` seconds."""
        for output, begin, end in self._hmm_spans(items, round(duration / self.shift)):
            yield output, (end - begin) * self.shift

    def _unit_frames(self, items: Sequence[AlignedSymbol]) -> list[_UnitFrames]:
        units = self.tokenizer.aligned_units([symbol for symbol, _, _ in items])
        return [
            _UnitFrames(unit, max(0, round(start / self.shift)), max(0, round((start + duration) / self.shift)))
            for unit, (_, start, duration) in zip(units, items, strict=True)
        ]

    def _hmm_spans(self, items: Sequence[AlignedSymbol], length: int) -> Iterator[tuple[int, int, int]]:
        """Yields (output, begin, end) in feature frames, in the order of time; frames without a label are left out."""
        position = 0
        for unit, begin, end in [*self._unit_frames(items), _UnitFrames(None, length, length)]:
            begin, end = min(begin, length), min(end, length)
            yield from self._halves(self.tokenizer.silence, position, begin)
            yield from self._halves(unit, begin, end)
            position = max(position, end)

    def _halves(self, unit: int | None, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        if unit is None:
            return
        middle = min(begin + self.factor, end)
        for output, first, last in zip(hmm_outputs(unit), (begin, middle), (middle, end), strict=True):
            if first < last:
                yield output, first, last
