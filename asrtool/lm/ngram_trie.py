"""A set of n-grams as a trie in one sorted array, made for millions of them and for searching millions at once.

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
    """All words, and n-grams of them whose prefixes are there too.

    `keys` (M,) int64 as above; `size` is V; `offsets[n]` is the first node of order n, and `offsets[order + 1]` is M.
    """

    def __init__(self, keys: np.ndarray, size: int, offsets: list[int]):
        while len(offsets) > 3 and offsets[-1] == offsets[-2]:  # an order without n-grams is none
            offsets = offsets[:-1]
        self.keys, self.size, self.offsets = keys, size, offsets
        self.order = len(offsets) - 2

    def __len__(self) -> int:
        return len(self.keys)

    def nodes(self, order: int) -> slice:
        """Where the n-grams of `order` are; order 0 is the empty history."""
        return slice(self.offsets[order], self.offsets[order + 1])

    def counts(self) -> list[int]:
        """The number of n-grams of order 1, 2 ..."""
        return [self.offsets[n + 1] - self.offsets[n] for n in range(1, self.order + 1)]

    def split(self, order: int) -> tuple[np.ndarray, np.ndarray]:
        """The prefix (a node) and the last word of every n-gram of `order`."""
        return np.divmod(self.keys[self.nodes(order)], self.size)

    def find(self, contexts: np.ndarray, words: np.ndarray) -> np.ndarray:
        """The nodes of `contexts` followed by `words`, -1 where there is none. A context of -1 has none."""
        keys = contexts.astype(np.int64) * self.size + words
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        places[(self.keys[places] != keys) | (keys < 0)] = -1
        return places

    def longest(self, contexts: np.ndarray, words: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """The nodes of the longest n-grams that end a context and its word, found by backing off.

        `weights` (M,) belong to contexts; the sum over those that were left is then returned as well.
        """
        contexts, sums = np.array(contexts), np.zeros(len(contexts))
        nodes = self.find(contexts, words)
        while (missing := np.flatnonzero(nodes < 0)).size:  # ends at the empty history, which has all words
            left = contexts[missing]
            if weights is not None:
                sums[missing] += weights[left]
            contexts[missing] = self.suffixes[left]
            nodes[missing] = self.find(contexts[missing], words[missing])
        return nodes if weights is None else (nodes, sums)

    @cached_property
    def suffixes(self) -> np.ndarray:
        """(M,) int32: the longest n-gram that each one ends with, itself apart; the empty history for words."""
        self.suffixes = np.zeros(len(self), np.int32)  # at once: `longest` reads those of shorter n-grams
        for n in range(2, self.order + 1):
            parents, words = self.split(n)
            self.suffixes[self.nodes(n)] = self.longest(self.suffixes[parents], words)
        return self.suffixes

    @cached_property
    def inner(self) -> np.ndarray:
        """(M,) bool: whether a longer n-gram goes on from this one."""
        found = np.zeros(len(self), bool)
        for n in range(1, self.order + 1):
            found[self.split(n)[0]] = True
        return found

    def keep(self, chosen: np.ndarray) -> "Trie":
        """The trie of the nodes where `chosen` (M,) bool; their prefixes must be among them, and all words."""
        numbers = np.cumsum(chosen) - 1
        keys, offsets = [self.keys[:1]], [0]
        for n in range(1, self.order + 1):
            parents, words = (part[chosen[self.nodes(n)]] for part in self.split(n))
            offsets.append(offsets[-1] + len(keys[-1]))
            keys.append(numbers[parents] * self.size + words)
        return Trie(np.concatenate(keys), self.size, [*offsets, offsets[-1] + len(keys[-1])])

    def spell(self, nodes: np.ndarray, order: int) -> list[np.ndarray]:
        """The words of n-grams of `order`, an array for the first words, one for the second ..."""
        columns = []
        for _ in range(order):
            nodes, words = np.divmod(self.keys[nodes], self.size)
            columns.append(words)
        return columns[::-1]
