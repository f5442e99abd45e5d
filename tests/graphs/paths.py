"""Graphs seen as what they mean: which output goes with an input, at what cost; and the same, worked out by hand."""

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
    found: dict[tuple[int, ...], float] = {}
    todo = [(both.start, (), 0.0)] if both.num_states else []
    while todo:
        state, output, cost = todo.pop()
        final = cost + both.final(state).value
        if final < math.inf:
            found[output] = min(final, found.get(output, math.inf))
        for arc in kaldifst.ArcIterator(both, state):
            longer = output if arc.olabel == EPSILON else (*output, arc.olabel)
            todo.append((arc.nextstate, longer, cost + arc.weight.value))
    return found


def sequences(symbols, longest: int):
    """All sequences of `symbols` of 0 to `longest`."""
    return itertools.chain.from_iterable(itertools.product(symbols, repeat=length) for length in range(longest + 1))


class Bigram:
    """A back-off bigram model given by log10 probabilities: a grammar by hand, and its ARPA file."""

    def __init__(self, unigrams: dict[str, float], backoffs: dict[str, float], bigrams: dict[tuple[str, str], float]):
        self.unigrams, self.backoffs, self.bigrams = unigrams, backoffs, bigrams

    def cost(self, words) -> float:
        """-ln of the best way through the model, which may back off even where it has the bigram, as Kaldi's G."""
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


def spoken(lexicon, words, separator=None, silence=None, probability=0.5):
    """All unit sequences of `words`, each with the cost of silences; one may come twice."""
    gap = [((), 0.0)]
    if silence:
        gap = [((), -math.log(1 - probability)), ((silence,), -math.log(probability))]
    parts = [gap]
    for number, word in enumerate(words):
        if separator and number:
            parts.append([((separator,), 0.0)])
        parts += [[(way, 0.0) for way in lexicon.pronunciations[word]], gap]
    for choice in itertools.product(*parts):
        yield tuple(itertools.chain.from_iterable(units for units, _ in choice)), sum(cost for _, cost in choice)


def expected(lexicon, cost, longest: int, **between) -> dict[tuple, dict[tuple, float]]:
    """For each unit sequence up to `longest`: the word sequences it can be, each with its least cost."""
    found: dict[tuple, dict[tuple, float]] = {}
    for words in sequences(lexicon.pronunciations, longest):
        for units, silences in spoken(lexicon, words, **between):
            total = cost(words) + silences
            if len(units) <= longest and total < math.inf:
                ways = found.setdefault(units, {})
                ways[words] = min(total, ways.get(words, math.inf))
    return found


def collapse(frames) -> tuple[int, ...]:
    """What CTC makes of one unit a frame; 0 is the blank."""
    return tuple(unit for unit, _ in itertools.groupby(frames) if unit)
