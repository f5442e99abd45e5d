"""The states of a graph in which any word may begin, after the shortest history of the language model.

Every history backs off to the empty one, so a search can reach these states from everywhere, and phrases that are
attached to them (asrtool/graphs/phrases.py) compete with all words of the graph. There is a state for each unit that
may come before, since the topology depends on it.

The states cannot be read off a composed graph. They are marked before it is composed: the grammar has a loop of a mark
on the state of the empty history, the lexicon on the state before words, and the topology on each of its states, with
an input label that says which unit the state stands for. The marks are removed from the graph again.
"""

import math
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from asrtool.errors import UserError
from asrtool.files import report_full_disk
from asrtool.graphs.check import FstArcs, has_property, iter_arcs

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

FIRST_MARK = 1 << 25  # input label of the mark of unit 0; above the labels of all outputs (folder.MAX_OUTPUTS)
MAX_WORD_COST = 100.0  # nats; words that cost more, such as <s> with its log10 of -99, are never predicted


class WordStart(NamedTuple):
    """A state in which any word may begin, after the last unit `unit`; 0 stands for the blank, and for no unit at all.

    cost: of beginning a word, such as the cost of no silence before it, in nats.
    """

    state: int
    unit: int
    cost: float


@dataclass(frozen=True)
class WordStarts:
    """Where words begin after the empty history.

    starts: all such states. rarest_cost: the cost of the word that the language model predicts least, in nats.
    final_cost: of the end of the utterance there.
    """

    starts: list[WordStart]
    rarest_cost: float = 0.0
    final_cost: float = 0.0

    @property
    def states(self) -> dict[int, int]:
        """For each unit the state in which words begin at the least cost."""
        return {start.unit: start.state for start in sorted(self.starts, key=lambda start: -start.cost)}


def empty_history(grammar: "StdVectorFst", backoff: int) -> int:
    """Returns the state of the empty history, to which all others back off by arcs with the label `backoff`."""
    from kaldifst import ArcIterator

    state = grammar.start
    while True:
        targets = [arc.nextstate for arc in ArcIterator(grammar, state) if arc.ilabel == backoff]
        if not targets:
            return state
        state = targets[0]


def word_costs(grammar: "StdVectorFst", state: int) -> tuple[float, float]:
    """Returns the highest cost of a word in `state` of the grammar, in nats, and the cost of ending there."""
    from kaldifst import ArcIterator

    costs = [arc.weight.value for arc in ArcIterator(grammar, state)]
    return max((cost for cost in costs if cost <= MAX_WORD_COST), default=0.0), grammar.final(state).value


def with_loop(fst: "StdVectorFst", state: int, label: int) -> "StdVectorFst":
    """Returns a copy of `fst` with a loop of `label` on `state`, sorted by input label."""
    import kaldifst

    marked = fst.copy()
    marked.add_arc(state, kaldifst.StdArc(label, label, 0.0, state))
    kaldifst.arcsort(marked, "ilabel")
    return marked


def mark_topology(topology: "StdVectorFst", mark: int) -> "StdVectorFst":
    """Returns a copy of H with a loop on each state that has the output label `mark`, and an input label for its unit.

    All topologies have a state for each unit, which the start leads to; the start itself stands for unit 0.
    """
    import kaldifst

    marked = topology.copy()
    start = topology.start
    unit_of = {start: 0}
    for arc in kaldifst.ArcIterator(topology, start):
        unit_of.setdefault(arc.nextstate, arc.olabel - 1)
    for state, unit in unit_of.items():
        marked.add_arc(state, kaldifst.StdArc(FIRST_MARK + unit, mark, 0.0, state))
    return marked


def take_marks(fst: "StdVectorFst") -> list[WordStart]:
    """Removes the marks from a composed graph, and states that are on no path without them.

    Returns the states that had marks. Of those with equal costs after a unit, the one that marks lead to comes last.
    """
    import kaldifst

    if not fst.num_states:
        return []
    kaldifst.arcsort(fst, "ilabel")  # so that marks are the last arcs of a state
    marks, others = _split_arcs(fst)
    for state, count in Counter(marks.source.tolist()).items():
        fst.delete_arcs(state, count)
    numbers = np.arange(fst.num_states)
    if not has_property(fst, "connected"):
        numbers = _delete_unconnected(fst, others)
    rows = zip(marks.source.tolist(), marks.target.tolist(), marks.labels[:, 0].tolist(), marks.cost, strict=True)
    starts = [
        (float(cost), source == target, WordStart(int(numbers[source]), label - FIRST_MARK, float(cost)))
        for source, target, label, cost in rows
        if numbers[source] >= 0
    ]
    return [start for *_, start in sorted(starts)]


def _delete_unconnected(fst: "StdVectorFst", arcs: np.ndarray) -> np.ndarray:
    """Deletes states that are on no path; returns the new number of each state, -1 for those that were deleted.

    `arcs` (A, 2) has source and target of each arc. OpenFst's `connect` deletes the same states, but does not tell.
    """
    count = fst.num_states
    final = [state for state in range(count) if fst.final(state).value < math.inf]
    # one more state, which every path ends in
    arcs = np.concatenate([arcs, np.stack([final, np.full(len(final), count)], 1)])
    kept = (_reached(arcs, fst.start, count + 1) & _reached(arcs[:, ::-1], count, count + 1))[:-1]
    fst.delete_states(np.flatnonzero(~kept).tolist())
    return np.where(kept, np.cumsum(kept) - 1, -1)


def _reached(arcs: np.ndarray, start: int, num_states: int) -> np.ndarray:
    """Returns for each state whether arcs (A, 2) lead to it from `start`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    graph = coo_array((np.ones(len(arcs), np.int32), arcs.T), (num_states, num_states)).tocsr()
    reached = np.zeros(num_states, bool)
    reached[breadth_first_order(graph, start, return_predecessors=False)] = True
    return reached


def _split_arcs(fst: "StdVectorFst") -> tuple[FstArcs, np.ndarray]:
    """Returns the marks, and source and target of all other arcs, (A, 2).

    They are read from a file, since OpenFst gives one arc at a time.
    """
    place = f"temporary files in {tempfile.gettempdir()} (TMPDIR names another folder)"
    with tempfile.TemporaryDirectory() as folder, report_full_disk(place):
        path = Path(folder, "graph.fst")
        if not fst.write(str(path)):
            raise UserError(f"OpenFst could not write {place}; check the free space, and run it again")
        marks, others = [], []
        for arcs in iter_arcs(path):
            is_mark = arcs.labels[:, 0] >= FIRST_MARK
            marks.append(FstArcs(*(column[is_mark] for column in arcs)))
            others.append(np.stack([arcs.source, arcs.target], 1).astype(np.int32)[~is_mark])
    return FstArcs(*map(np.concatenate, zip(*marks, strict=True))), np.concatenate(others)
