"""Greedy and prefix search chunk by chunk, with the words of the units so far."""

from collections.abc import Sequence

import numpy as np
import torch

from asrtool.decoding.fusion import Fusion
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.prefix_beam import PrefixBeam
from asrtool.objectives.viterbi import align_tokens
from asrtool.streaming.partial_hypothesis import PartialHypothesis
from asrtool.text.tokenizer import BLANK, Tokenizer


class WordAssembler:
    """Puts words together from units. A word is complete when the next one begins; at once where units are words."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.begins_word = tokenizer.begins_word

    def words(self, tokens: Sequence[int], frames: Sequence[int]) -> tuple[list[str], list[int]]:
        """Returns the words of `tokenizer.decode`, and the frame in which the first unit of each begins."""
        pairs = [(self.tokenizer.decode(tokens[a:b]), frames[a]) for a, b in self._bounds(tokens)]
        return [word for word, _ in pairs if word], [frame for word, frame in pairs if word]

    def num_complete(self, tokens: Sequence[int]) -> int:
        """Returns the number of words of `tokens` that no further token can change."""
        bounds = self._bounds(tokens[: self.num_complete_tokens(tokens)])
        return sum(bool(self.tokenizer.decode(tokens[a:b])) for a, b in bounds)

    def num_complete_tokens(self, tokens: Sequence[int]) -> int:
        """Returns the number of tokens in words that no further token can change."""
        if self.tokenizer.units_are_words:
            return len(tokens)
        starts = (n for n in range(len(tokens) - 1, 0, -1) if self.begins_word[tokens[n]])
        return next(starts, 0)  # where the last word begins

    def _bounds(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        starts = [n for n, token in enumerate(tokens) if n == 0 or self.begins_word[token]]
        return list(zip(starts, [*starts[1:], len(tokens)], strict=True)) if starts else []


class GrowingWords:
    """The words of tokens of which none ever changes: as tokens are added, only the last word is assembled again."""

    def __init__(self, assembler: WordAssembler):
        self._assembler = assembler
        self._num_tokens = 0  # in complete words
        self._words: list[str] = []  # complete ones
        self._frames: list[int] = []

    def update(self, tokens: Sequence[int], frames: Sequence[int]) -> tuple[list[str], list[int], int]:
        """Returns `WordAssembler.words` of all tokens so far, and how many of them are complete."""
        tokens, frames = tokens[self._num_tokens :], frames[self._num_tokens :]
        count = self._assembler.num_complete_tokens(tokens)
        words, word_frames = self._assembler.words(tokens[:count], frames[:count])
        self._num_tokens += count
        self._words += words
        self._frames += word_frames
        words, word_frames = self._assembler.words(tokens[count:], frames[count:])
        return self._words + words, self._frames + word_frames, len(self._words)


class _TrailingSilence:
    """The number of frames at the end whose most likely output is blank or a unit of silence."""

    def __init__(self, silences: Sequence[int]):
        self.outputs = [BLANK, *silences]
        self.frames = 0
        self.trailing = 0

    def update(self, best: np.ndarray) -> None:
        """Counts the most likely outputs of further frames, (T,)."""
        self.frames += len(best)
        is_speech = best != self.outputs[0]
        for output in self.outputs[1:]:  # one or two; numpy.isin is ten times as slow for a chunk
            is_speech &= best != output
        speech = np.flatnonzero(is_speech)
        if len(speech):
            self.trailing = len(best) - 1 - int(speech[-1])
        else:
            self.trailing += len(best)


class StreamingGreedy:
    """`greedy_search` of one utterance. No token ever changes."""

    def __init__(self, assembler: WordAssembler, silences: Sequence[int] = (), topology: str = "ctc"):
        """`silences` are outputs of the model that count as silence at the end, in addition to the blank."""
        self.states = 2 if topology == "hmm" else 1  # outputs of a unit
        self.words = GrowingWords(assembler)
        self.silence = _TrailingSilence(silences)
        self.tokens: list[int] = []
        self.frames: list[int] = []
        self.score = 0.0
        self.last = BLANK

    def advance(self, log_probs: np.ndarray) -> PartialHypothesis:
        """Searches further frames, (T, V)."""
        best = log_probs.argmax(1)
        self.score += float(log_probs.max(1).sum(dtype=np.float64)) if len(best) else 0.0
        for frame, output in enumerate(best.tolist(), self.silence.frames):
            unit = output // self.states
            is_new = unit != self.last // self.states or output < self.last  # see `hmm_greedy`
            if unit != BLANK and is_new:
                self.tokens.append(unit)
                self.frames.append(frame)
            self.last = output
        self.silence.update(best)
        words, word_frames, num_complete = self.words.update(self.tokens, self.frames)
        return PartialHypothesis(
            words=words,
            frames=self.silence.frames,
            trailing=self.silence.trailing,
            word_frames=word_frames,
            num_final=num_complete,
        )

    def finish(self) -> Hypothesis:
        """Returns the result."""
        return Hypothesis(self.tokens, self.frames, self.score)


class StreamingPrefix:
    """`ctc_prefix_beam` of one utterance. Tokens with which all prefixes of the beam begin never change."""

    def __init__(
        self, assembler: WordAssembler, beam: int = 8, fusion: Fusion | None = None, silences: Sequence[int] = ()
    ):
        self.assembler = assembler
        self.silence = _TrailingSilence(silences)
        self.search = PrefixBeam(beam, BLANK, fusion)
        self.log_probs: list[torch.Tensor] = []  # all so far
        self.aligned: tuple[list[int], list[int]] = ([], [])  # tokens and the frames where they begin

    def advance(self, log_probs: np.ndarray) -> PartialHypothesis:
        """Searches further frames, (T, V)."""
        if len(log_probs):
            self.log_probs.append(torch.from_numpy(log_probs))
            self.search.advance(self.log_probs[-1])
            self.silence.update(log_probs.argmax(1))
        ((tokens, _),) = self.search.best()
        if tokens != self.aligned[0]:  # else the alignment to fewer frames is kept: aligning costs more than searching
            self.aligned = tokens, self._align(tokens)
        words, word_frames = self.assembler.words(*self.aligned)
        stable_tokens = tokens[: self.search.num_stable_tokens()]
        return PartialHypothesis(
            words=words,
            frames=self.silence.frames,
            trailing=self.silence.trailing,
            word_frames=word_frames,
            num_final=self.assembler.num_complete(stable_tokens),
        )

    def finish(self) -> Hypothesis:
        """Returns the result."""
        ((tokens, score),) = self.search.best()
        return Hypothesis(tokens, self._align(tokens), score)

    def _align(self, tokens: list[int]) -> list[int]:
        return align_tokens(torch.cat(self.log_probs), tokens) if tokens else []
