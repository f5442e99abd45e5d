"""A set of n-grams as a trie in one sorted array, for millions of n-grams and for searching millions at once.

Node 0 is the empty history, nodes 1 .. V are the words 0 .. V-1; all bigrams follow, then all trigrams, and so on. A
node is its prefix and one more word, and has the key

    node of the prefix * V + last word         (-1 for node 0)

Keys ascend from node to node, so the number of a node is where a binary search finds its key:

    words a=0 b=1 c=2      node  0   1  2  3   4   5   6    7
                           n-gram    a  b  c   ab  bc  ca   abc
                           key  -1   0  1  2   4   8   9    14
"""

from functools import cached_property

import numpy as np


class Trie:
    """All words, and n-grams of them whose prefixes are in the trie as well.

    `keys` (M,) int64 as above; `vocab_size` is V; `offsets[n]` is the first node of order n, and `offsets[order + 1]`
    is M.
    """

    def __init__(self, keys: np.ndarray, vocab_size: int, offsets: list[int]):
        while len(offsets) > 3 and offsets[-1] == offsets[-2]:  # the highest order has no n-grams
            offsets = offsets[:-1]
        self.keys = keys
        self.vocab_size = vocab_size
        self.offsets = offsets
        self.order = len(offsets) - 2

    def __len__(self) -> int:
        return len(self.keys)

    def nodes(self, order: int) -> slice:
        """Returns the nodes of the n-grams of `order`; order 0 is the empty history."""
        return slice(self.offsets[order], self.offsets[order + 1])

    def counts(self) -> list[int]:
        """Returns the number of n-grams of order 1, 2 ..."""
        return [self.offsets[n + 1] - self.offsets[n] for n in range(1, self.order + 1)]

    def prefixes_and_words(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the prefix (a node) and the last word of every n-gram of `order`."""
        return np.divmod(self.keys[self.nodes(order)], self.vocab_size)

    def find(self, contexts: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Returns the nodes of `contexts` followed by `words`, -1 where the trie has none. A context of -1 has none."""
        keys = contexts.astype(np.int64) * self.vocab_size + words
        nodes = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        nodes[(self.keys[nodes] != keys) | (keys < 0)] = -1
        return nodes

    def find_with_backoff(
        self, contexts: np.ndarray, words: np.ndarray, backoffs: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the nodes of the longest n-grams that end a context and its word, and the back-off weights.

        `backoffs` (M,) are the log back-off weights of the histories; they are summed over the histories that were
        left, (N,). Without `backoffs` the sums are 0.
        """
        contexts = np.array(contexts)
        sums = np.zeros(len(contexts))
        nodes = self.find(contexts, words)
        while (missing := np.flatnonzero(nodes < 0)).size:  # ends at the empty history, which has all words
            left = contexts[missing]
            if backoffs is not None:
                sums[missing] += backoffs[left]
            contexts[missing] = self.suffixes[left]
            nodes[missing] = self.find(contexts[missing], words[missing])
        return nodes, sums

    @cached_property
    def suffixes(self) -> np.ndarray:
        """(M,) int32: the longest proper suffix of each n-gram that is in the trie; the empty history for words."""
        # Set before it is complete: `find_with_backoff` reads the suffixes of shorter n-grams.
        self.suffixes = np.zeros(len(self), np.int32)
        for n in range(2, self.order + 1):
            prefixes, words = self.prefixes_and_words(n)
            self.suffixes[self.nodes(n)], _ = self.find_with_backoff(self.suffixes[prefixes], words)
        return self.suffixes

    @cached_property
    def has_children(self) -> np.ndarray:
        """(M,) bool: whether the n-gram is the prefix of a longer one."""
        has_children = np.zeros(len(self), bool)
        for n in range(1, self.order + 1):
            prefixes, _ = self.prefixes_and_words(n)
            has_children[prefixes] = True
        return has_children

    def subset(self, kept: np.ndarray) -> "Trie":
        """Returns the trie of the nodes where `kept` (M,) bool is true. It must be true for all words and prefixes."""
        new_nodes = np.cumsum(kept) - 1
        keys = [self.keys[:1]]
        offsets = [0]
        for n in range(1, self.order + 1):
            prefixes, words = self.prefixes_and_words(n)
            kept_here = kept[self.nodes(n)]
            offsets.append(offsets[-1] + len(keys[-1]))
            keys.append(new_nodes[prefixes[kept_here]] * self.vocab_size + words[kept_here])
        return Trie(np.concatenate(keys), self.vocab_size, [*offsets, offsets[-1] + len(keys[-1])])

    def ngram_words(self, nodes: np.ndarray, order: int) -> list[np.ndarray]:
        """Returns the words of n-grams of `order`: an array with the first word of each, one with the second ..."""
        columns = []
        for _ in range(order):
            nodes, words = np.divmod(self.keys[nodes], self.vocab_size)
            columns.append(words)
        return columns[::-1]
