"""N-gram language models with back-off, in memory: scoring word by word, or whole texts at once.

    p(w | a b) = p of the n-gram a b w where the model has it, else back-off weight of a b * p(w | b)

Log-probs are natural here; ARPA files have them to base 10 (asrtool/lm/arpa.py).
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

from asrtool.lm.ngram_trie import Trie

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
SPECIAL = (UNK, BOS, EOS)  # the first three words of a trained model, in this order
LN10 = np.log(10.0)
NEVER = -99 * LN10  # log-prob of <s>, which starts a sentence and is never predicted: -99 in files, by SRILM's custom
State = TypeVar("State")


class LanguageModel(Protocol[State]):
    """What searches and rescoring need of a language model: `NgramModel` and `KenlmModel` have it."""

    start: State

    def __contains__(self, word: str) -> bool:
        """Whether it has a log-prob for `word` itself."""

    def score(self, state: State, word: str) -> tuple[float, State]:
        """The natural log-prob of `word` (</s> at the end) after `state`, and the state after it. States hash."""


class NgramModel:
    """N-grams with their log-probs (M,) and the back-off weights of the histories (M,), both natural logs, float32.

    `words[i]` is word i. `unk` is the number that stands for all words the model does not have. A state is a node of
    the trie: the longest history that still matters to what comes next, so hypotheses with equal states may merge.
    """

    def __init__(self, words: Sequence[str], trie: Trie, logprobs: np.ndarray, backoffs: np.ndarray):
        self.words, self.trie, self.logprobs, self.backoffs = list(words), trie, logprobs, backoffs
        self.ids = {word: number for number, word in enumerate(self.words)}
        self.unk = self.ids.get(UNK, self.ids.get(UNK.upper()))
        self.bos, self.eos = self.ids[BOS], self.ids[EOS]

    def __contains__(self, word: str) -> bool:
        return word in self.ids

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return self.trie.order

    def __str__(self) -> str:
        return ", ".join(f"{count} {n}-grams" for n, count in enumerate(self.trie.counts(), 1))

    def numbers(self, words: Iterable[str]) -> list[int]:
        """The number of each word, `unk` for those that the model does not have."""
        return [self.ids.get(word, self.unk) for word in words]

    @property
    def start(self) -> int:
        """The state after <s>."""
        return int(self.states[1 + self.bos])

    def score(self, state: int, word: str) -> tuple[float, int]:
        """The log-prob of `word` after `state` and the state after it."""
        return self.step(state, self.ids.get(word, self.unk))

    def step(self, state: int, word: int) -> tuple[float, int]:
        """As `score`, with the number of the word."""
        trie, total = self.trie, 0.0
        while True:
            key = state * trie.size + word
            node = int(trie.keys.searchsorted(key))
            if node < len(trie) and trie.keys[node] == key:
                return total + float(self.logprobs[node]), int(self.states[node])
            total += float(self.backoffs[state])
            state = int(trie.suffixes[state])

    def logprob(self, history: Sequence[int], word: int) -> float:
        """log p(word | history), words by number; a history from the start of a sentence begins with `bos`."""
        state = 0
        for earlier in history[max(0, len(history) - self.order + 1) :]:
            state = self.step(state, earlier)[1]
        return self.step(state, word)[0]

    def logprobs_after(self, contexts: np.ndarray, words: np.ndarray) -> np.ndarray:
        """log p (N,) of each word after its context (a node)."""
        nodes, backoffs = self.trie.longest(contexts, words, self.backoffs)
        return backoffs + self.logprobs[nodes]

    def logprobs_of(self, tokens: np.ndarray) -> np.ndarray:
        """The log-prob (N,) of every token of a text (N,), words by number, given those before it.

        A sentence is `bos`, its words, `eos`. The values at `bos`, where nothing is predicted, are 0.
        """
        starts = tokens == self.bos
        nodes = contexts = 1 + tokens.astype(np.int64)
        for _ in range(2, self.order):
            nodes = self.trie.find(_shift(nodes), tokens)
            nodes[starts] = -1  # no n-gram goes across sentences
            contexts = np.where(nodes < 0, contexts, nodes)
        before = _shift(contexts) if self.order > 1 else np.zeros(len(tokens), np.int64)
        before[starts] = 0
        logprobs = self.logprobs_after(before, tokens)
        logprobs[starts] = 0
        return logprobs

    @cached_property
    def states(self) -> np.ndarray:
        """(M,): the state after each n-gram: itself, or its longest suffix that something goes on from."""
        states = np.arange(len(self.trie), dtype=np.int32)
        useful = self.trie.inner | (self.backoffs != 0)
        for n in range(1, self.order + 1):
            nodes = self.trie.nodes(n)
            states[nodes] = np.where(useful[nodes], states[nodes], states[self.trie.suffixes[nodes]])
        return states


def _shift(nodes: np.ndarray) -> np.ndarray:
    """The nodes of one position earlier; none before the first."""
    return np.concatenate([np.full(1, -1, np.int64), nodes[:-1]])
