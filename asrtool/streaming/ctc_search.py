"""Greedy and prefix search chunk by chunk, with the words that the units spell so far."""

from collections.abc import Sequence

import numpy as np
import torch

from asrtool.decoding.fusion import Fusion
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.prefix_beam import PrefixBeam
from asrtool.objectives.viterbi import align_tokens
from asrtool.streaming.partial_hypothesis import PartialHypothesis
from asrtool.text.tokenizer import BLANK, SPACE, Tokenizer


class WordAssembler:
    """Words from units as they come. A word is whole when the next one begins; where units are words, at once."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.begins = [symbol.startswith(SPACE) for symbol in tokenizer.symbols]
        self.marked = any(self.begins)

    def words(self, tokens: Sequence[int], frames: Sequence[int]) -> tuple[list[str], list[int]]:
        """The words of `tokenizer.decode`, and the frame in which the first unit of each begins."""
        found = [(self.tokenizer.decode(tokens[a:b]), frames[a]) for a, b in self._bounds(tokens)]
        return [word for word, _ in found if word], [frame for word, frame in found if word]

    def whole(self, tokens: Sequence[int]) -> int:
        """How many words of `tokens` no further token can change."""
        bounds = self._bounds(tokens)
        return sum(bool(self.tokenizer.decode(tokens[a:b])) for a, b in bounds[: len(bounds) - self.marked])

    def _bounds(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        starts = [n for n, token in enumerate(tokens) if n == 0 or not self.marked or self.begins[token]]
        return list(zip(starts, [*starts[1:], len(tokens)], strict=True)) if starts else []


class _Silence:
    """How many of the last frames have blank, or a unit that stands for silence, as their most likely output."""

    def __init__(self, silences: Sequence[int]):
        self.outputs, self.frames, self.trailing = [BLANK, *silences], 0, 0

    def note(self, best: np.ndarray) -> None:
        """The most likely outputs of further frames, (T,)."""
        self.frames += len(best)
        loud = np.flatnonzero(~np.isin(best, self.outputs))
        self.trailing = len(best) - 1 - int(loud[-1]) if len(loud) else self.trailing + len(best)


class StreamingGreedy:
    """`ctc_greedy` of one utterance. No token that was found ever changes."""

    def __init__(self, speller: WordAssembler, silences: Sequence[int] = ()):
        self.speller, self.silence = speller, _Silence(silences)
        self.tokens: list[int] = []
        self.frames: list[int] = []
        self.score, self.last = 0.0, BLANK

    def advance(self, log_probs: np.ndarray) -> PartialHypothesis:
        """Take in further frames, (T, V)."""
        best = log_probs.argmax(1)
        self.score += float(log_probs.max(1).sum(dtype=np.float64)) if len(best) else 0.0
        for frame, unit in enumerate(best.tolist(), self.silence.frames):
            if unit not in (BLANK, self.last):
                self.tokens.append(unit)
                self.frames.append(frame)
            self.last = unit
        self.silence.note(best)
        words, when = self.speller.words(self.tokens, self.frames)
        final = self.speller.whole(self.tokens)
        return PartialHypothesis(words, self.silence.frames, self.silence.trailing, word_frames=when, final=final)

    def finish(self) -> Hypothesis:
        """The result."""
        return Hypothesis(self.tokens, self.frames, self.score)


class StreamingPrefix:
    """`ctc_prefix_beam` of one utterance. What all prefixes of the beam begin with never changes."""

    def __init__(
        self, speller: WordAssembler, beam: int = 8, fusion: Fusion | None = None, silences: Sequence[int] = ()
    ):
        self.speller, self.silence = speller, _Silence(silences)
        self.search = PrefixBeam(beam, BLANK, fusion)
        self.heard: list[torch.Tensor] = []
        self.aligned: tuple[list[int], list[int]] = ([], [])  # tokens and the frames where they begin

    def advance(self, log_probs: np.ndarray) -> PartialHypothesis:
        """Take in further frames, (T, V)."""
        if len(log_probs):
            self.heard.append(torch.from_numpy(log_probs))
            self.search.advance(self.heard[-1])
            self.silence.note(log_probs.argmax(1))
        ((tokens, _),) = self.search.best()
        if tokens != self.aligned[0]:  # else it stays as it was with fewer frames: aligning costs more than searching
            self.aligned = tokens, self._align(tokens)
        words, when = self.speller.words(*self.aligned)
        final = self.speller.whole(tokens[: self.search.sure()])
        return PartialHypothesis(words, self.silence.frames, self.silence.trailing, word_frames=when, final=final)

    def finish(self) -> Hypothesis:
        """The result."""
        ((tokens, score),) = self.search.best()
        return Hypothesis(tokens, self._align(tokens), score)

    def _align(self, tokens: list[int]) -> list[int]:
        return align_tokens(torch.cat(self.heard), tokens) if tokens else []
