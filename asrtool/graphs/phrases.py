"""Phrases in a compiled graph: hotwords, which may have words that the graph lacks.

The phrases are composed with the topology and attached to the states in which any word may begin (word_starts.py), so
that every history backs off to them as to any other word, and they lead back to the same states. What the graph had
before stays as it is: a phrase is one more way to recognise its words, and the cheaper way counts. Attaching them takes
about a second, where composing the whole graph with an acceptor of the phrases takes a minute.

A phrase costs what the language model gives its words after the empty history, minus the bonus of each word. A word
that the graph lacks costs as much as the word that the language model predicts least. The cost is spread over the units
of the phrase, so that the beam does not prune it at the first one.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from asrtool.errors import UserError
from asrtool.graphs.folder import KALDI_TOPOLOGY, REBUILD, DecodingGraph
from asrtool.graphs.phrase_costs import PhraseCosts, unit_labels
from asrtool.graphs.topology import topology_fst
from asrtool.graphs.word_starts import FIRST_MARK, WordStarts, mark_topology
from asrtool.text.lexicon import Lexicon

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

# States of the transducer of phrases, from units to words. The marks say where it is attached to the graph.
#
#     START --any unit--> AFTER_UNIT --mark--> BEFORE_PHRASE --phrase--> AFTER_PHRASE --mark--> END
#     START --mark--> BEFORE_PHRASE
START, AFTER_UNIT, BEFORE_PHRASE, AFTER_PHRASE, END = range(5)
ENTRY, EXIT = 0, 1  # output labels of the two marks


class Phrase(NamedTuple):
    """Words in a row, and the bonus for each of them in nats."""

    words: tuple[str, ...]
    bonus: float


@dataclass(frozen=True)
class _Boundary:
    """What may be after a word: input labels with their costs, where label 0 is nothing."""

    choices: tuple[tuple[int, float], ...]
    is_separator: bool

    @classmethod
    def of(cls, graph: DecodingGraph) -> "_Boundary":
        """Returns the boundary of the words in a graph."""
        labels = unit_labels(graph)
        separator, silence = graph.meta.get("separator"), graph.meta.get("silence")
        if unknown := {separator, silence and silence["unit"]} - labels.keys() - {None}:
            raise UserError(f"{graph.folder}/graph.json: {unknown.pop()!r:.50} between words is not a unit; {REBUILD}")
        if separator:
            return cls(((labels[separator], 0.0),), True)
        if silence:
            probability = silence["probability"]
            skipped = (0, -math.log(1 - probability))
            return cls((skipped, (labels[silence["unit"]], -math.log(probability))), False)
        return cls(((0, 0.0),), False)


def add_phrases(graph: DecodingGraph, phrases: Sequence[Phrase], lexicon: Lexicon) -> DecodingGraph:
    """Returns the graph with phrases; `lexicon` has pronunciations of all their words in the graph's units.

    The FST of `graph` itself is changed, since copying a large one takes seconds: `graph` must not be used any more.
    Raises UserError for a graph that does not have word starts.
    """
    starts = require_word_starts(graph)
    known = set(graph.words)
    new_words = list(dict.fromkeys(word for phrase in phrases for word in phrase.words if word not in known))
    words = [*graph.words, *new_words]
    costs = PhraseCosts(graph, starts, lexicon)
    builder = _PhraseTransducer(graph, lexicon, {word: label for label, word in enumerate(words)})
    for phrase in phrases:
        builder.add(phrase.words, costs.cost(phrase.words) - phrase.bonus * len(phrase.words))
    _attach(graph.fst, builder.compose_topology(graph.meta["topology"], starts.final_cost), starts)
    return replace(graph, words=words, changed_fst=graph.fst, added=lexicon.only(new_words))


def require_word_starts(graph: DecodingGraph) -> WordStarts:
    """Returns the word starts of a graph. Raises UserError where it has none, or states that it lacks."""
    if graph.meta["topology"] == KALDI_TOPOLOGY:
        raise UserError(f"{graph.folder} is the graph of a Kaldi system, which has no pronunciations for hotwords")
    starts = graph.word_starts
    if starts is None:
        raise UserError(
            f"{graph.folder} does not say where words begin, which hotwords need: an earlier version built it, or its "
            f"units are phones in context; {REBUILD}, with --add-words FILE for words that it lacks"
        )
    if any(start.state >= graph.fst.num_states for start in starts.starts) or not starts.starts:
        raise UserError(f"{graph.folder}/graph.json: word_starts has states that the graph lacks; {REBUILD}")
    return starts


class _PhraseTransducer:
    """The phrases as a transducer from units to words, as lines of OpenFst's text format."""

    def __init__(self, graph: DecodingGraph, lexicon: Lexicon, word_labels: Mapping[str, int]):
        self.lexicon = lexicon
        self.word_labels = word_labels
        self.unit_labels = unit_labels(graph)
        self.boundary = _Boundary.of(graph)
        self.lines: list[str] = []
        self.first_labels: set[int] = set()  # of the units with which phrases begin
        self.labels = {label for label, _ in self.boundary.choices if label}
        self.num_states = END + 1

    def add(self, words: Sequence[str], cost: float) -> None:
        """Adds a phrase with its cost, which is spread evenly over its words, and over the units of each.

        The cost is of the usual pronunciations; others cost more if they are less probable.
        """
        source = BEFORE_PHRASE
        for number, word in enumerate(words, 1):
            end = self._new_state()
            usual = self.lexicon.pronunciations[word][0]
            for pronunciation in self.lexicon.pronunciations[word]:
                labels = [self.unit_labels[unit] for unit in pronunciation]
                ratio = self.lexicon.probability(word, usual) / self.lexicon.probability(word, pronunciation)
                word_cost = cost / len(words) + math.log(ratio)
                self._add_pronunciation(source, end, labels, self.word_labels[word], word_cost)
                if source == BEFORE_PHRASE:
                    self.first_labels.add(labels[0])
            source = end
            if number < len(words):
                source = self._new_state()
                self.lines += [f"{end} {source} {label} 0 {gap}\n" for label, gap in self.boundary.choices]
        self.lines.append(f"{source} {AFTER_PHRASE} 0 0\n")

    def _add_pronunciation(self, source: int, end: int, labels: Sequence[int], word: int, cost: float) -> None:
        self.labels.update(labels)
        for position, label in enumerate(labels, 1):
            target = end if position == len(labels) else self._new_state()
            self.lines.append(f"{source} {target} {label} {word} {cost / len(labels)}\n")
            source, word = target, 0

    def _new_state(self) -> int:
        self.num_states += 1
        return self.num_states - 1

    def compose_topology(self, topology: str, final_cost: float) -> "StdVectorFst":
        """Returns the topology composed with the phrases; `final_cost` is the cost of the utterance's end after one."""
        import kaldifst

        mark = max(self.unit_labels.values()) + 1
        after_phrase = self._new_state()
        lines = [f"{START} {AFTER_UNIT} {label} 0\n" for label in sorted(self.first_labels)]
        lines += [f"{state} {BEFORE_PHRASE} {mark} {ENTRY}\n" for state in (START, AFTER_UNIT)]
        lines += [f"{AFTER_PHRASE} {after_phrase} {label} 0 {gap}\n" for label, gap in self.boundary.choices]
        lines += [f"{after_phrase} {END} {mark} {EXIT}\n", f"{END}\n"]
        if self.boundary.is_separator and final_cost < math.inf:  # no separator follows the last word
            lines.append(f"{AFTER_PHRASE} {final_cost}\n")
        phrases = kaldifst.compile("".join([*lines, *self.lines]))
        kaldifst.arcsort(phrases, "ilabel")
        marked = mark_topology(topology_fst(topology, [label - 1 for label in self.labels]), mark)
        kaldifst.arcsort(marked, "olabel")
        return kaldifst.compose(marked, phrases)


def _attach(fst: "StdVectorFst", phrases: "StdVectorFst", starts: WordStarts) -> None:
    """Adds the states of `phrases` to `fst`, and epsilon arcs from the word starts to them and back."""
    import kaldifst

    entries = {unit: target for _, unit, label, target in _marks(phrases) if label == ENTRY}
    exits: dict[int, list[int]] = {}  # state of `phrases` -> states of `fst`
    for source, unit, label, _ in _marks(phrases):
        if label == EXIT and unit in starts.states:
            exits.setdefault(source, []).append(starts.states[unit])
    new_state = {state: fst.add_state() for state in _reached_without_marks(phrases, entries.values())}
    for state, new in new_state.items():
        fst.set_final(new, phrases.final(state).value)
        for arc in _arcs(phrases, state):
            if arc.ilabel < FIRST_MARK:
                weight = arc.weight.value
                fst.add_arc(new, kaldifst.StdArc(arc.ilabel, arc.olabel, weight, new_state[arc.nextstate]))
        for target in exits.get(state, ()):
            fst.add_arc(new, kaldifst.StdArc(0, 0, 0.0, target))
    for start in starts.starts:
        target = new_state[entries.get(start.unit, entries[0])]
        fst.add_arc(start.state, kaldifst.StdArc(0, 0, start.cost, target))


def _marks(phrases: "StdVectorFst") -> Iterator[tuple[int, int, int, int]]:
    """Yields source, unit, output label and target of each mark."""
    for state in range(phrases.num_states):
        for arc in _arcs(phrases, state):
            if arc.ilabel >= FIRST_MARK:
                yield state, arc.ilabel - FIRST_MARK, arc.olabel, arc.nextstate


def _reached_without_marks(fst: "StdVectorFst", states: Iterable[int]) -> list[int]:
    """Returns the states that arcs without marks lead to from `states`, and these."""
    reached = dict.fromkeys(states)
    queue = list(reached)
    while queue:
        for arc in _arcs(fst, queue.pop()):
            if arc.ilabel < FIRST_MARK and arc.nextstate not in reached:
                reached[arc.nextstate] = None
                queue.append(arc.nextstate)
    return list(reached)


def _arcs(fst: "StdVectorFst", state: int) -> Iterator:
    from kaldifst import ArcIterator

    return iter(ArcIterator(fst, state))
