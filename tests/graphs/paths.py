"""Outputs and costs of a graph for an input, and the expected ones, enumerated from lexicon and LM."""

import itertools
import math
from pathlib import Path

import kaldifst

EPSILON = 0


def outputs(fst: kaldifst.StdVectorFst, labels) -> dict[tuple[int, ...], float]:
    """Every output of `fst` for the input `labels`, with the cost of its cheapest path."""
    line = kaldifst.make_linear_acceptor(list(labels))
    kaldifst.arcsort(line, "olabel")
    both = kaldifst.compose(line, fst)
    costs: dict[tuple[int, ...], float] = {}
    todo = [(both.start, (), 0.0)] if both.num_states else []
    while todo:
        state, output, cost = todo.pop()
        final = cost + both.final(state).value
        if final < math.inf:
            costs[output] = min(final, costs.get(output, math.inf))
        for arc in kaldifst.ArcIterator(both, state):
            longer = output if arc.olabel == EPSILON else (*output, arc.olabel)
            todo.append((arc.nextstate, longer, cost + arc.weight.value))
    return costs


def sequences(symbols, longest: int):
    """All sequences of `symbols` of 0 to `longest`."""
    return itertools.chain.from_iterable(itertools.product(symbols, repeat=length) for length in range(longest + 1))


class Bigram:
    """A back-off bigram model given by log10 probabilities, and its ARPA file."""

    def __init__(self, unigrams: dict[str, float], backoffs: dict[str, float], bigrams: dict[tuple[str, str], float]):
        self.unigrams, self.backoffs, self.bigrams = unigrams, backoffs, bigrams

    def cost(self, words) -> float:
        """Cost of the best path through the model, which may back off even where it has the bigram, as in Kaldi's G."""
        if not {*words, "</s>"} <= self.unigrams.keys():
            return math.inf
        return -math.log(10) * sum(map(self._step, ("<s>", *words), (*words, "</s>")))

    def _step(self, before: str, word: str) -> float:
        backed_off = self.backoffs.get(before, 0.0) + self.unigrams[word]
        return max(backed_off, self.bigrams.get((before, word), -math.inf))

    def write(self, path: Path) -> Path:
        """The ARPA file."""
        rows = ["\\data\\", f"ngram 1={len(self.unigrams) + 1}", f"ngram 2={len(self.bigrams)}", "", "\\1-grams:"]
        for word, logprob in {"<s>": -99.0, **self.unigrams}.items():
            backoff = f"\t{self.backoffs[word]}" if word in self.backoffs else ""
            rows.append(f"{logprob}\t{word}{backoff}")
        rows += ["", "\\2-grams:", *(f"{value}\t{a} {b}" for (a, b), value in self.bigrams.items()), "", "\\end\\", ""]
        path.write_text("\n".join(rows), encoding="utf-8")
        return path


def unit_sequences(lexicon, words, separator=None, silence=None, probability=0.5):
    """All unit sequences of `words`, each with the cost of its silences and pronunciations; one may come twice."""
    gap = [((), 0.0)]
    if silence:
        gap = [((), -math.log(1 - probability)), ((silence,), -math.log(probability))]
    parts = [gap]
    for number, word in enumerate(words):
        if separator and number:
            parts.append([((separator,), 0.0)])
        pronunciations = lexicon.pronunciations[word]
        parts += [[(units, -math.log(lexicon.probability(word, units))) for units in pronunciations], gap]
    for choice in itertools.product(*parts):
        yield tuple(itertools.chain.from_iterable(units for units, _ in choice)), sum(cost for _, cost in choice)


def expected(lexicon, cost, longest: int, **between) -> dict[tuple, dict[tuple, float]]:
    """For each unit sequence up to `longest`: its word sequences, each with the least cost."""
    result: dict[tuple, dict[tuple, float]] = {}
    for words in sequences(lexicon.pronunciations, longest):
        for units, choices in unit_sequences(lexicon, words, **between):
            total = cost(words) + choices
            if len(units) <= longest and total < math.inf:
                costs = result.setdefault(units, {})
                costs[words] = min(total, costs.get(words, math.inf))
    return result


def collapse(frames) -> tuple[int, ...]:
    """The units of a CTC alignment, one for each frame; 0 is the blank."""
    return tuple(unit for unit, _ in itertools.groupby(frames) if unit)
