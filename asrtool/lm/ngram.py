"""N-gram language models with back-off, in memory: they score word by word, or whole texts at once.

    p(w | a b) = p of the n-gram a b w where the model has it, else back-off weight of a b * p(w | b)

Log-probs are natural here; ARPA files have them to base 10 (asrtool/lm/arpa.py).
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

from asrtool.lm.ngram_trie import Trie

UNK = "<unk>"
BOS = "<s>"
EOS = "</s>"
SPECIAL_WORDS = (UNK, BOS, EOS)  # the first three words of a trained model, in this order
BOS_ID = SPECIAL_WORDS.index(BOS)
LN10 = np.log(10.0)
LOG_ZERO_ARPA = -99.0  # log10 of the probability of <s>, which is never predicted: SRILM's custom in ARPA files
State = TypeVar("State")


class LanguageModel(Protocol[State]):
    """The word-by-word language model that searches and lattice rescoring call: `NgramModel` or `KenlmModel`.

    `NeuralLm` does not implement it, since it scores whole sentences.
    """

    @property
    def start(self) -> State:
        """The state after <s>."""

    def __contains__(self, word: str) -> bool:
        """Returns whether the model has a log-prob for `word` itself."""

    def score(self, state: State, word: str) -> tuple[float, State]:
        """Returns the natural log-prob of `word` (</s> at the end) after `state`, and the state after it.

        States are hashable.
        """


class NgramModel:
    """N-grams with their log-probs (M,) and the back-off weights of the histories (M,), both natural logs, float32.

    M is the number of nodes of the trie: node 0 is the empty history, node 1 + i is the unigram of word i, and the
    longer n-grams follow. `words[i]` is the word of id i. `unk` is the id that stands for all words outside the
    vocabulary. A state is a node: the longest history that still matters for the words to come, so hypotheses with
    equal states may merge.
    """

    def __init__(self, words: Sequence[str], trie: Trie, logprobs: np.ndarray, backoffs: np.ndarray):
        self.words = list(words)
        self.trie = trie
        self.logprobs = logprobs
        self.backoffs = backoffs
        self.ids = {word: number for number, word in enumerate(self.words)}
        self.unk = self.ids[UNK] if UNK in self.ids else self.ids[UNK.upper()]
        self.bos = self.ids[BOS]
        self.eos = self.ids[EOS]

    def __contains__(self, word: str) -> bool:
        return word in self.ids

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return self.trie.order

    def __str__(self) -> str:
        return ", ".join(f"{count} {n}-grams" for n, count in enumerate(self.trie.counts(), 1))

    def word_ids(self, words: Iterable[str]) -> list[int]:
        """Returns the id of each word, `unk` for words outside the vocabulary."""
        return [self.ids.get(word, self.unk) for word in words]

    @property
    def start(self) -> int:
        """The state after <s>."""
        return int(self.states[1 + self.bos])

    def score(self, state: int, word: str) -> tuple[float, int]:
        """Returns the log-prob of `word` after `state` and the state after it."""
        return self.score_id(state, self.ids.get(word, self.unk))

    def score_id(self, state: int, word: int) -> tuple[float, int]:
        """Does what `score` does for the word with this id."""
        trie = self.trie
        total = 0.0
        while True:  # ends at the empty history at the latest: every word has a unigram
            key = state * trie.vocab_size + word
            node = int(trie.keys.searchsorted(key))
            if node < len(trie) and trie.keys[node] == key:
                return total + float(self.logprobs[node]), int(self.states[node])
            total += float(self.backoffs[state])
            state = int(trie.suffixes[state])

    def logprob(self, history: Sequence[int], word: int) -> float:
        """Returns log p(word | history), words by id; a history from the start of a sentence begins with `bos`."""
        state = 0  # the empty history
        for earlier in history[max(0, len(history) - self.order + 1) :]:
            state = self.score_id(state, earlier)[1]
        return self.score_id(state, word)[0]

    def logprobs_after(self, contexts: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Returns log p (N,) of each word after its context (a node)."""
        nodes, backoffs = self.trie.find_with_backoff(contexts, words, self.backoffs)
        return backoffs + self.logprobs[nodes]

    def token_logprobs(self, tokens: np.ndarray) -> np.ndarray:
        """Returns the log-probs (N,) of the running words of a text, each after the words before it in its sentence.

        `tokens` (N,) are word ids: for each sentence `bos`, its words, `eos`. The values at `bos`, where nothing is
        predicted, are 0.
        """
        starts = tokens == self.bos
        nodes = 1 + tokens.astype(np.int64)  # unigrams first, then longer n-grams that end at each token; -1: none
        contexts = nodes  # the longest n-gram of at most order - 1 words that ends at each token
        for _ in range(2, self.order):
            nodes = self.trie.find(_shifted(nodes), tokens)
            nodes[starts] = -1  # no n-gram goes across sentences
            contexts = np.where(nodes < 0, contexts, nodes)
        before = _shifted(contexts) if self.order > 1 else np.zeros(len(tokens), np.int64)
        before[starts] = 0
        logprobs = self.logprobs_after(before, tokens)
        logprobs[starts] = 0
        return logprobs

    @cached_property
    def states(self) -> np.ndarray:
        """(M,) int32: the state after each n-gram: itself, or its longest suffix that is a history of n-grams."""
        states = np.arange(len(self.trie), dtype=np.int32)
        is_history = self.trie.has_children | (self.backoffs != 0)  # else each word would back off at no cost
        for n in range(1, self.order + 1):
            nodes = self.trie.nodes(n)
            states[nodes] = np.where(is_history[nodes], states[nodes], states[self.trie.suffixes[nodes]])
        return states


def _shifted(nodes: np.ndarray) -> np.ndarray:
    """Returns the nodes of one position earlier; -1 before the first."""
    return np.concatenate([np.full(1, -1, np.int64), nodes[:-1]])
