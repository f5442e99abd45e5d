"""CTC prefix beam search: the token sequence with the highest probability, summed over all its paths.

Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs"
(arXiv 1408.2873), algorithm 1; the prefix search itself is Graves's (2012, section 7.5.3).

A token is a unit other than blank, by its number. Each prefix in the beam has two log-probabilities, each summed over
the paths that collapse to the prefix: one over the paths that end in blank, one over the paths that end in the prefix's
last token. A frame updates them as follows:

    prefix  --blank-->                  prefix, ends in blank        from both
    prefix  --its last token-->         prefix, ends in the token    from "ends in the token" (a repeat collapses)
    prefix  --any other token c-->      prefix + c                   from both
    prefix  --its last token-->         prefix + the token again     from "ends in blank" only

Which tokens are tried: a prefix is extended only by the frame's `beam` + 1 best tokens, and only while the result is
better than the worst of the prefixes that are in the beam already, when these fill it. Neither changes the result: if a
token has a lower rank, at least `beam` extensions of the same prefix by better tokens are better than its own. (`beam`
+ 1 tokens are needed for `beam` extensions, since the prefix's last token again extends only paths that end in blank,
and may score less than tokens of lower rank.) There is no threshold to tune.

With a language model (asrtool/decoding/fusion.py) a new token also adds its gain, a weighted ln P, to the score of all
its paths. A token that ranks lower may then be the better one, so all V are tried, best first, as long as the result
would be better than the worst of the `beam` best entries so far if the gain were the highest possible. This does not
change the result either.
"""

import heapq
import itertools
import os.path
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from asrtool.decoding.fusion import Fusion
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.log_sums import NEG_INF, log_add
from asrtool.objectives.viterbi import align_tokens

# A candidate for the beam after a frame: the log-probability of all its paths, of those that end in blank and of those
# that end in the last token; a prefix, and the token that extends it (None: the candidate is the prefix itself)
_Entry = tuple[float, float, float, "_Prefix", int | None]


def ctc_prefix_beam(
    log_probs: torch.Tensor,
    lens: torch.Tensor,
    beam: int = 8,
    blank: int = 0,
    nbest: int = 1,
    fusion: Fusion | None = None,
    text: Callable[[list[int]], Hashable] = tuple,
) -> list[list[Hypothesis]]:
    """Returns at most `nbest` token sequences of each utterance, best first: the best of each `text`.

    There are at most `beam` of them.
    log_probs (N, T, V), any device; lens (N,) valid frames. `score` is the log-probability of the token sequence,
    summed over the paths that the beam of `beam` prefixes kept (exact for a beam that holds all prefixes), plus the
    gains of `fusion`, a language model.
    `frames` is where each token begins on the best path of that sequence (`align_tokens`).
    Raises ValueError for beam < 1 and for a frame in which no token is possible.
    """
    results = []
    for padded, length in zip(log_probs.detach().cpu(), lens.tolist(), strict=True):
        own = padded[:length]  # (T, V) log-probs of one utterance
        search = PrefixBeam(beam, blank, fusion)
        search.advance(own)
        best = itertools.islice(_first_of_each_text(search.best(beam), text), nbest)
        results.append([Hypothesis(tokens, align_tokens(own, tokens, blank), score) for tokens, score in best])
    return results


def _first_of_each_text(
    results: Iterable[tuple[list[int], float]], text: Callable[[list[int]], Hashable]
) -> Iterator[tuple[list[int], float]]:
    """Yields the (tokens, log-probability) whose text none before has: several token sequences may write a text."""
    seen = set()
    for tokens, score in results:
        if (key := text(tokens)) not in seen:
            seen.add(key)
            yield tokens, score


class PrefixBeam:
    """The search of one utterance, chunk by chunk. The sizes of the chunks do not change the result."""

    def __init__(self, beam: int = 8, blank: int = 0, fusion: Fusion | None = None):
        if beam < 1:
            raise ValueError(f"beam is {beam}; it must be at least 1")
        self.beam = beam
        self.blank = blank
        self.fusion = fusion
        self.prefixes = [_Prefix.root()]
        self.prefixes[0].state = fusion.start if fusion else None

    def advance(self, log_probs: torch.Tensor) -> None:
        """Searches further frames, (T, V) on the CPU. Raises ValueError for a frame in which no token is possible."""
        log_probs = log_probs.detach()
        values, ids = log_probs.topk(min(self.beam + 2, log_probs.size(1)), dim=1)  # `beam` + 1 tokens, and blank
        for frame, frame_ids, frame_values in zip(log_probs.numpy(), ids.tolist(), values.tolist(), strict=True):
            tokens = [pair for pair in zip(frame_ids, frame_values, strict=True) if pair[0] != self.blank]
            kept = self._keep(frame)
            if self.fusion:
                self._select(kept + self._extend_fused(frame, tokens, [entry[0] for entry in kept], self.fusion))
                continue
            # All of `kept` fit into the beam, so when they fill it, only what is better than the worst can enter.
            bound = min(entry[0] for entry in kept) if len(kept) == self.beam else NEG_INF
            self._select(kept + self._extend(tokens[: self.beam + 1], bound))

    def best(self, nbest: int = 1) -> list[tuple[list[int], float]]:
        """Returns at most `nbest` best (tokens, log-probability) so far, best first.

        With a language model the scores include the end of the sentence.
        """
        if self.fusion is None:
            return [(prefix.tokens(), prefix.total) for prefix in self.prefixes[:nbest]]
        scores = [(prefix.total + self.fusion.end(prefix.state), prefix) for prefix in self.prefixes]
        scores.sort(key=lambda pair: pair[0], reverse=True)
        return [(prefix.tokens(), score) for score, prefix in scores[:nbest]]

    def num_stable_tokens(self) -> int:
        """Returns the number of tokens with which all prefixes begin: no further frame can change these."""
        return len(os.path.commonprefix([prefix.tokens() for prefix in self.prefixes]))

    def _keep(self, frame: np.ndarray) -> list[_Entry]:
        """Returns an entry for each prefix, unchanged after the frame.

        Paths from a kept parent to a kept prefix are added here, so that `_extend` only creates new prefixes, each from
        one parent, and no entries have to be merged.
        """
        entries: list[_Entry] = []
        blank_value = frame.item(self.blank)
        for prefix in self.prefixes:
            in_blank = prefix.total + blank_value
            in_token = NEG_INF
            parent = prefix.parent
            if parent is not None:
                before = prefix.in_token
                if parent.kept:
                    from_parent = parent.in_blank if parent.token == prefix.token else parent.total
                    before = log_add(before, from_parent + prefix.gain)
                in_token = before + frame.item(prefix.token)
            entries.append((log_add(in_blank, in_token), in_blank, in_token, prefix, None))
        return entries

    def _extend(self, tokens: list[tuple[int, float]], bound: float) -> list[_Entry]:
        """Returns entries for new prefixes that are better than `bound`, one token longer than those in the beam."""
        entries: list[_Entry] = []
        for prefix in self.prefixes:
            for token, value in tokens:
                score = prefix.total + value
                if not score > bound:  # also True for NaN
                    break
                if token == prefix.token:
                    score = prefix.in_blank + value
                    if not score > bound:
                        continue
                child = prefix.children.get(token)
                if child is None or not child.kept:
                    entries.append((score, NEG_INF, score, prefix, token))
        return entries

    def _extend_fused(
        self, frame: np.ndarray, tokens: list[tuple[int, float]], scores: list[float], fusion: Fusion
    ) -> list[_Entry]:
        """Does what `_extend` does, with the gains of the language model.

        `scores` are the log-probabilities of the prefixes that stay unchanged: they compete for the beam as well.
        """
        entries: list[_Entry] = []
        best = heapq.nlargest(self.beam, scores)
        best = [NEG_INF] * (self.beam - len(best)) + best[::-1]  # a heap, its smallest first
        for prefix in self.prefixes:
            for token, value in self._ranked(frame, tokens):
                if not prefix.total + value + fusion.max_gain > best[0]:
                    break
                child = prefix.children.get(token)
                if child is not None and child.kept:
                    continue
                gain, _ = prefix.extension(token, fusion)
                score = (prefix.in_blank if token == prefix.token else prefix.total) + value + gain
                if score > best[0]:
                    heapq.heapreplace(best, score)
                    entries.append((score, NEG_INF, score, prefix, token))
        return entries

    def _ranked(self, frame: np.ndarray, tokens: list[tuple[int, float]]) -> Iterator[tuple[int, float]]:
        """Yields all tokens with their log-probs, best first; `tokens` are the first ones, mostly enough."""
        yield from tokens
        known = {self.blank, *(token for token, _ in tokens)}
        rest = (token for token in np.argsort(-frame, kind="stable").tolist() if token not in known)
        yield from ((token, frame.item(token)) for token in rest)

    def _select(self, entries: list[_Entry]) -> None:
        """Makes the `beam` best entries the prefixes of the next frame, best first."""
        entries = [entry for entry in entries if entry[0] > NEG_INF]
        if not entries:
            raise ValueError("a frame's log-probs allow no token at all: all are -inf or NaN")
        entries.sort(key=lambda entry: entry[0], reverse=True)
        for prefix in self.prefixes:
            prefix.kept = False
        self.prefixes = []
        for total, in_blank, in_token, prefix, token in entries[: self.beam]:
            node = prefix if token is None else prefix.child(token, self.fusion)
            node.total = total
            node.in_blank = in_blank
            node.in_token = in_token
            node.kept = True
            self.prefixes.append(node)


class _Prefix:
    """A node of the trie of prefixes. It remains when it leaves the beam: its children may be there, or it may return.

    total, in_blank, in_token: log-probabilities of all its paths, and of the paths that end in blank or in its last
    token; valid only while `kept`, which means in the beam. gain, state: the language model's gain of the last token,
    and its state after it. extensions: gain and state after each token that was tried.
    """

    __slots__ = ("token", "parent", "children", "total", "in_blank", "in_token", "kept", "gain", "state", "extensions")

    def __init__(self, token: int, parent: "_Prefix | None"):
        self.token = token
        self.parent = parent
        self.children: dict[int, _Prefix] = {}
        self.total = NEG_INF
        self.in_blank = NEG_INF
        self.in_token = NEG_INF
        self.kept = False
        self.gain = 0.0
        self.state: Any = None
        self.extensions: dict[int, tuple[float, Any]] = {}

    @classmethod
    def root(cls) -> "_Prefix":
        """Returns the empty prefix before the first frame: certain, and as if it ended in blank."""
        root = cls(-1, None)
        root.total = 0.0
        root.in_blank = 0.0
        root.kept = True
        return root

    def child(self, token: int, fusion: Fusion | None) -> "_Prefix":
        """Returns the node of this prefix + `token`; there is only one, created when it is first asked for."""
        if token not in self.children:
            self.children[token] = child = _Prefix(token, self)
            if fusion:
                child.gain, child.state = self.extension(token, fusion)
        return self.children[token]

    def extension(self, token: int, fusion: Fusion) -> tuple[float, Any]:
        """Returns the language model's gain of `token` after this prefix, and its state after the token."""
        extension = self.extensions.get(token)
        if extension is None:
            extension = self.extensions[token] = fusion.extend(self.state, token)
        return extension

    def tokens(self) -> list[int]:
        """Returns the token ids from the first to the last."""
        tokens = []
        node = self
        while node.parent is not None:
            tokens.append(node.token)
            node = node.parent
        return tokens[::-1]
