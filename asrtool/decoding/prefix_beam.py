"""CTC prefix beam search: the token sequence with the most probability over all its paths.

Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs"
(arXiv 1408.2873), algorithm 1; the prefix search itself is Graves's (2012, section 7.5.3).

For each prefix kept, two log-probabilities are carried from frame to frame, each summed over the paths that collapse
to the prefix: of those that end in blank and of those that end in the prefix's last token. A frame does this:

    prefix  --blank-->                  prefix, ends in blank        from both
    prefix  --its last token-->         prefix, ends in the token    from "ends in the token" (a repeat collapses)
    prefix  --any other token c-->      prefix + c                   from both
    prefix  --its last token-->         prefix + the token again     from "ends in blank" only

Which tokens are tried. A prefix is lengthened only by the frame's `beam` + 1 best tokens, and only while the result
beats the worst prefix that the beam will hold anyway. Neither loses anything: for a token ranked lower, the same prefix
lengthened by those better tokens already fills the beam (`beam` of them; one more because the prefix's own last token
gets less than its rank promises). So the result is that of trying all V tokens, and no threshold needs tuning.

With a language model (asrtool/decoding/fusion.py) a new token also brings its gain, a weighted ln P, which is part of
all scores from then on. A token that ranks lower may then be the better one, so all V are tried, best first, for as
long as the result beats the worst of the `beam` best entries so far, should the gain be the highest there can be.
Nothing is lost here either.
"""

import heapq
import math
import os.path
from collections.abc import Iterator

import numpy as np
import torch

from asrtool.decoding.fusion import Fusion
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.objectives.viterbi import align_tokens

NEVER = -math.inf


def ctc_prefix_beam(
    log_probs: torch.Tensor,
    lens: torch.Tensor,
    beam: int = 8,
    blank: int = 0,
    nbest: int = 1,
    fusion: Fusion | None = None,
) -> list[list[Hypothesis]]:
    """The at most `nbest` best token sequences of each utterance, best first.

    log_probs (N, T, V), any device; lens (N,) valid frames. `score` is the log-probability of the token sequence,
    summed over its paths as far as the beam of `beam` prefixes kept them (exact for a beam that holds all prefixes),
    plus what `fusion`, a language model, adds.
    `frames` is where each token begins on the best path of that sequence (`align_tokens`).
    Raises ValueError for beam < 1 and for a frame in which no token is possible.
    """
    results = []
    for frames, length in zip(log_probs.detach().cpu(), lens.tolist(), strict=True):
        frames = frames[:length]
        search = PrefixBeam(beam, blank, fusion)
        search.advance(frames)
        best = search.best(nbest)
        results.append([Hypothesis(tokens, align_tokens(frames, tokens, blank), score) for tokens, score in best])
    return results


class PrefixBeam:
    """The search over one utterance, chunk by chunk: the chunks' sizes make no difference to the result."""

    def __init__(self, beam: int = 8, blank: int = 0, fusion: Fusion | None = None):
        if beam < 1:
            raise ValueError(f"beam is {beam}; it must be at least 1")
        self.beam, self.blank, self.fusion = beam, blank, fusion
        self.prefixes = [_Prefix.root()]
        self.prefixes[0].state = fusion.start if fusion else None

    def advance(self, log_probs: torch.Tensor) -> None:
        """Take in further frames, (T, V) on the CPU. Raises ValueError for a frame in which no token is possible."""
        log_probs = log_probs.detach()
        values, ids = log_probs.topk(min(self.beam + 2, log_probs.size(1)), dim=1)  # one more, for the blank is in it
        for frame, frame_ids, frame_values in zip(log_probs.numpy(), ids.tolist(), values.tolist(), strict=True):
            tokens = [pair for pair in zip(frame_ids, frame_values, strict=True) if pair[0] != self.blank]
            kept = self._stay(frame)
            if self.fusion:
                self._select(kept + self._lengthen_fused(frame, tokens, [entry[0] for entry in kept]))
                continue
            # All of `kept` fit into the beam, so when they fill it, what is no better than its worst cannot enter.
            bound = min(entry[0] for entry in kept) if len(kept) == self.beam else NEVER
            self._select(kept + self._lengthen(tokens[: self.beam + 1], bound))

    def best(self, nbest: int = 1) -> list[tuple[list[int], float]]:
        """The at most `nbest` best (tokens, log-probability) so far, best first; as sentences for a language model."""
        if self.fusion is None:
            return [(prefix.tokens(), prefix.total) for prefix in self.prefixes[:nbest]]
        scores = [(prefix.total + self.fusion.end(prefix.state), prefix) for prefix in self.prefixes]
        scores.sort(key=lambda pair: pair[0], reverse=True)
        return [(prefix.tokens(), score) for score, prefix in scores[:nbest]]

    def sure(self) -> int:
        """How many tokens all prefixes of the beam begin with: these no further frame can change."""
        return len(os.path.commonprefix([prefix.tokens() for prefix in self.prefixes]))

    def _stay(self, frame: np.ndarray) -> list[tuple]:
        """Each prefix as itself one frame on: entries (total, ends in blank, ends in token, prefix, None).

        What a kept parent hands to a kept prefix is added here, so that `_lengthen` only ever makes new prefixes, each
        from one parent, and nothing has to be merged.
        """
        entries = []
        blank_value = frame.item(self.blank)
        for prefix in self.prefixes:
            in_blank, in_token = prefix.total + blank_value, NEVER
            parent = prefix.parent
            if parent is not None:
                source = prefix.in_token
                if parent.kept:
                    given = parent.in_blank if parent.token == prefix.token else parent.total
                    source = _log_add(source, given + prefix.gain)
                in_token = source + frame.item(prefix.token)
            entries.append((_log_add(in_blank, in_token), in_blank, in_token, prefix, None))
        return entries

    def _lengthen(self, tokens: list[tuple[int, float]], bound: float) -> list[tuple]:
        """New prefixes better than `bound`: entries (total, never in blank, ends in token, parent, token)."""
        entries = []
        for prefix in self.prefixes:
            for token, value in tokens:
                score = prefix.total + value
                if not score > bound:  # also the way out for NaN
                    break
                if token == prefix.token:
                    score = prefix.in_blank + value
                    if not score > bound:
                        continue
                child = prefix.children.get(token)
                if child is None or not child.kept:
                    entries.append((score, NEVER, score, prefix, token))
        return entries

    def _lengthen_fused(self, frame: np.ndarray, tokens: list[tuple[int, float]], scores: list[float]) -> list[tuple]:
        """As `_lengthen`, with the gains of the language model; `scores`: of the entries that are there already."""
        entries, best = [], heapq.nlargest(self.beam, scores)
        best = [NEVER] * (self.beam - len(best)) + best[::-1]  # a heap, its smallest first
        for prefix in self.prefixes:
            for token, value in self._ranked(frame, tokens):
                if not prefix.total + value + self.fusion.most > best[0]:
                    break
                child = prefix.children.get(token)
                if child is not None and child.kept:
                    continue
                gain, _ = prefix.extension(token, self.fusion)
                score = (prefix.in_blank if token == prefix.token else prefix.total) + value + gain
                if score > best[0]:
                    heapq.heapreplace(best, score)
                    entries.append((score, NEVER, score, prefix, token))
        return entries

    def _ranked(self, frame: np.ndarray, tokens: list[tuple[int, float]]) -> Iterator[tuple[int, float]]:
        """All tokens but blank with their log-probs, best first; `tokens` are the first ones, mostly enough."""
        yield from tokens
        known = {self.blank, *(token for token, _ in tokens)}
        rest = (token for token in np.argsort(-frame, kind="stable").tolist() if token not in known)
        yield from ((token, frame.item(token)) for token in rest)

    def _select(self, entries: list[tuple]) -> None:
        """Make the `beam` best entries the prefixes of the next frame, best first."""
        entries = [entry for entry in entries if entry[0] > NEVER]
        if not entries:
            raise ValueError("a frame's log-probs allow no token at all: all are -inf or NaN")
        entries.sort(key=lambda entry: entry[0], reverse=True)
        for prefix in self.prefixes:
            prefix.kept = False
        self.prefixes = []
        for total, in_blank, in_token, prefix, token in entries[: self.beam]:
            node = prefix if token is None else prefix.child(token, self.fusion)
            node.total, node.in_blank, node.in_token, node.kept = total, in_blank, in_token, True
            self.prefixes.append(node)


class _Prefix:
    """A node of the trie of prefixes. It outlives its leaving the beam: its children may still be there, or it return.

    total, in_blank, in_token: log-probabilities of all its paths and of those that end in blank or in its last token;
    they hold only while `kept`, i.e. in the beam. gain, state: what the last token brought by the language model, and
    the model's state behind it. extensions: gain and state behind each token that was tried.
    """

    __slots__ = ("token", "parent", "children", "total", "in_blank", "in_token", "kept", "gain", "state", "extensions")

    def __init__(self, token: int, parent: "_Prefix | None"):
        self.token, self.parent = token, parent
        self.children: dict[int, _Prefix] = {}
        self.total = self.in_blank = self.in_token = NEVER
        self.kept = False
        self.gain, self.state = 0.0, None
        self.extensions: dict[int, tuple] = {}

    @classmethod
    def root(cls) -> "_Prefix":
        """The empty prefix before the first frame: certain, and as if it ended in blank."""
        root = cls(-1, None)
        root.total, root.in_blank, root.kept = 0.0, 0.0, True
        return root

    def child(self, token: int, fusion: Fusion | None) -> "_Prefix":
        """This prefix + `token`, always the same node."""
        if token not in self.children:
            self.children[token] = child = _Prefix(token, self)
            if fusion:
                child.gain, child.state = self.extension(token, fusion)
        return self.children[token]

    def extension(self, token: int, fusion: Fusion) -> tuple:
        """What the language model makes of `token` behind this prefix: gain and state."""
        found = self.extensions.get(token)
        if found is None:
            found = self.extensions[token] = fusion.extend(self.state, token)
        return found

    def tokens(self) -> list[int]:
        """Token ids from the first to the last."""
        found, node = [], self
        while node.parent is not None:
            found.append(node.token)
            node = node.parent
        return found[::-1]


def _log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b)) of two floats; either may be -inf."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))
