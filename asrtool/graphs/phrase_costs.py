"""What the language model in a compiled graph gives to a phrase, found by following the phrase through the graph."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from asrtool.graphs.folder import DecodingGraph
from asrtool.graphs.word_starts import WordStarts
from asrtool.text.lexicon import Lexicon, Pronunciation
from asrtool.text.tokenizer import BLANK

Tokens = dict[tuple[int, int], float]  # (state, number of words so far) -> least cost


def unit_labels(graph: DecodingGraph) -> dict[str, int]:
    """Returns the label of each unit that words may have; neither the blank nor disambiguation symbols."""
    num_units = graph.meta["outputs"] // (2 if graph.meta["topology"] == "hmm" else 1)
    return {unit: label for label, unit in enumerate(graph.units[: 1 + num_units]) if label > BLANK + 1}


class PhraseCosts:
    """Costs of phrases after the empty history, and back to it, in nats. `lexicon` has the words of the phrases."""

    def __init__(self, graph: DecodingGraph, starts: WordStarts, lexicon: Lexicon):
        self.fst = graph.fst
        self.starts = starts
        self.lexicon = lexicon
        self.topology = graph.meta["topology"]
        self.separator = graph.meta.get("separator")
        self.unit_labels = unit_labels(graph)
        self.word_labels = {word: label for label, word in enumerate(graph.words)}
        silence = graph.meta.get("silence")
        self.gap_cost = -math.log(1 - silence["probability"]) if silence else 0.0  # of no silence after a word
        self.ends = {start.state: start.cost for start in starts.starts}

    def cost(self, words: Sequence[str]) -> float:
        """Returns the cost of the words, without silences; the graph's rarest word stands for unknown ones."""
        total = 0.0
        for is_known, run in itertools.groupby(words, self.word_labels.__contains__):
            known = list(run)
            cost = self._path_cost(known) if is_known else math.inf
            total += cost if cost < math.inf else sum(map(self._word_cost, known))
        return total

    def _word_cost(self, word: str) -> float:
        """Returns the cost of a word alone; of the rarest word if the graph does not have it in this pronunciation."""
        cost = self._path_cost([word]) if word in self.word_labels else math.inf
        return cost if cost < math.inf else self.starts.rarest_cost

    def _path_cost(self, words: Sequence[str]) -> float:
        """Returns the cost of the best path of the words in their usual pronunciations; infinite if there is none."""
        labels = [self.word_labels[word] for word in words]
        frames = list(self._frames([self.lexicon.pronunciations[word][0] for word in words]))
        tokens = self._follow({(self._start(frames[0]), 0): 0.0}, 0, labels)
        for frame in frames:
            tokens = self._follow(self._follow(tokens, frame, labels), 0, labels)
        ends = (
            cost + self.ends[state] for (state, n), cost in tokens.items() if n == len(labels) and state in self.ends
        )
        return min(ends, default=math.inf) - len(words) * self.gap_cost

    def _start(self, frame: int) -> int:
        """Returns a state in which a word may begin with the input label `frame`, which is not the last unit there."""
        starts = sorted(self.starts.starts, key=lambda start: (start.cost, start.unit))
        return next((start.state for start in starts if start.unit + 1 != frame), starts[0].state)

    def _frames(self, pronunciations: Iterable[Pronunciation]) -> Iterator[int]:
        """Yields the input label of each frame of the shortest alignment, with a blank after each unit."""
        for pronunciation in pronunciations:
            for unit in (*pronunciation, *filter(None, [self.separator])):
                number = self.unit_labels[unit] - 1
                yield 2 * number + 1 if self.topology == "hmm" else number + 1
                if self.topology != "hmm":
                    yield BLANK + 1

    def _follow(self, tokens: Tokens, frame: int, labels: Sequence[int]) -> Tokens:
        """Returns the tokens after the input label `frame`; for frame 0 all that epsilons lead to, and `tokens`."""
        from kaldifst import ArcIterator

        result = dict(tokens) if frame == 0 else {}
        queue = list(tokens)
        while queue:
            state, count = queue.pop()
            cost = tokens[state, count] if frame else result[state, count]
            for arc in ArcIterator(self.fst, state):
                if arc.ilabel != frame or (arc.olabel and labels[count : count + 1] != [arc.olabel]):
                    continue
                key = (arc.nextstate, count + (arc.olabel > 0))
                total = cost + arc.weight.value
                if total < result.get(key, math.inf):
                    result[key] = total
                    if frame == 0:
                        queue.append(key)
        return result
