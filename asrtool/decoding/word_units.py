"""Which units of a hypothesis belong to which word."""

from collections.abc import Iterator, Sequence
from functools import cache

from asrtool.decoding.hypothesis import Hypothesis
from asrtool.graphs.folder import DecodingGraph
from asrtool.text.context_units import ContextTokenizer
from asrtool.text.tokenizer import Tokenizer

UNKNOWN = -1  # the number of a symbol that is not a unit: a pronunciation with one fits nowhere
Bounds = tuple[int, int]  # of a word among the units: the first one, and the one behind the last


class WordSplitter:
    """Divides the units of hypotheses among their words.

    Where the units make the text, a word begins at the mark of a space, or at each unit (words, phones). The words of a
    graph have the units of a pronunciation in the graph, or in the tokenizer, since graphs of earlier versions list
    only the words that were added. Phones in context are compared as phones.
    """

    def __init__(self, tokenizer: Tokenizer, graph: DecodingGraph | None = None):
        self.tokenizer = tokenizer
        self.graph = graph
        plain = tokenizer.without_context
        self.plain_unit = tokenizer.phone_of if isinstance(tokenizer, ContextTokenizer) else range(tokenizer.size)
        self.numbers = {symbol: unit for unit, symbol in enumerate(plain.symbols)}
        self.separator = self.numbers.get(_separator(tokenizer, graph) or "", UNKNOWN)
        self.begins_word = tokenizer.begins_word
        self.merges_repeats = graph is not None and graph.meta["topology"] == "modified"
        self.pronunciations = cache(self._pronunciations)

    def words(self, hypothesis: Hypothesis) -> list[tuple[str, Bounds]]:
        """Returns each word of a hypothesis with the bounds of its units among `hypothesis.tokens`.

        The texts are the words of `hypothesis_row`. A word may have no unit where units and words do not fit together.
        """
        if hypothesis.words is None:
            return list(self._words_of_units(hypothesis.tokens))
        bounds = self._match(hypothesis.words, [self.plain_unit[token] for token in hypothesis.tokens])
        if bounds is None:
            bounds = _bounds_by_time(hypothesis)
        return list(zip(hypothesis.words, bounds, strict=True))

    def _words_of_units(self, tokens: Sequence[int]) -> Iterator[tuple[str, Bounds]]:
        starts = [n for n, token in enumerate(tokens) if n == 0 or self.begins_word[token]]
        for begin, end in zip(starts, [*starts, len(tokens)][1:], strict=True):
            for word in self.tokenizer.decode(tokens[begin:end]).split():
                yield word, (begin, end)

    def _pronunciations(self, word: str) -> list[tuple[int, ...]]:
        """Returns the pronunciations of a word in units; none where it is not known how the word is pronounced."""
        of_graph = self.graph.lexicon.pronunciations.get(word, ()) if self.graph is not None else ()
        of_tokenizer = () if self.tokenizer.unknown(word) else self.tokenizer.pronunciations(word)
        symbols = dict.fromkeys([*of_graph, *of_tokenizer])
        return [tuple(self.numbers.get(symbol, UNKNOWN) for symbol in one) for one in symbols]

    def _match(self, words: Sequence[str], tokens: Sequence[int]) -> list[Bounds] | None:
        """Returns the bounds of each word, or None where its pronunciations do not make up the units.

        Separators (silence, a space) may be before each word and behind the last. Where repeats are merged, the last
        unit of a word may be the first one of the next word as well. Of several divisions the first one is returned,
        which takes the usual pronunciation of the earliest word where they differ.
        """
        # reached[n]: how the first n words can end: end among the units -> where the n-th word begins, and where the
        # word before it ends
        reached: list[dict[int, tuple[int, int]]] = [{0: (0, 0)}]
        for word in words:
            ends: dict[int, tuple[int, int]] = {}
            for end in reached[-1]:
                for begin in self._begins(end, tokens):
                    for pronunciation in self.pronunciations(word):
                        stop = begin + len(pronunciation)
                        if tuple(tokens[begin:stop]) == pronunciation:
                            ends.setdefault(stop, (begin, end))
            reached.append(ends)
        last = len(tokens)
        if last not in reached[-1] and last and tokens[-1] == self.separator:
            last -= 1
        return _trace_back(reached, last) if last in reached[-1] else None

    def _begins(self, end: int, tokens: Sequence[int]) -> Iterator[int]:
        """Yields the units at which a word may begin behind one that ends before unit `end`."""
        yield end
        if end < len(tokens) and tokens[end] == self.separator:
            yield end + 1
        elif self.merges_repeats and end:
            yield end - 1


def _separator(tokenizer: Tokenizer, graph: DecodingGraph | None) -> str | None:
    """Returns the unit that may be between words: of a graph its own, which `asrtool graph --silence` may have named.

    Graphs of earlier versions do not record it: they have the tokenizer's.
    """
    if graph is None or "silence" not in graph.meta:
        return tokenizer.separator
    silence = graph.meta["silence"]
    return silence["unit"] if silence else graph.meta.get("separator")


def _trace_back(reached: Sequence[dict[int, tuple[int, int]]], end: int) -> list[Bounds]:
    """Returns the bounds of the words of which the last one ends before unit `end`."""
    bounds: list[Bounds] = []
    for ends in reached[:0:-1]:
        begin, end_before = ends[end]
        bounds.append((begin, end))
        end = end_before
    return bounds[::-1]


def _bounds_by_time(hypothesis: Hypothesis) -> list[Bounds]:
    """Returns bounds of words by the frames in which the graph emitted them: roughly right, and always there.

    A graph emits a word within its units or just behind them. Units up to the frame of a word,
    and behind the frame of the word before, are the word's.
    """
    bounds = []
    begin = 0
    for number, frame in enumerate(hypothesis.word_frames):
        is_last = number == len(hypothesis.word_frames) - 1
        end = begin
        while end < len(hypothesis.tokens) and (is_last or hypothesis.frames[end] <= frame):
            end += 1
        bounds.append((begin, end))
        begin = end
    return bounds
