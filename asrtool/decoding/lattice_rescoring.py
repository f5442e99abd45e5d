"""Lattice rescoring: another language model's scores instead of those in the graph costs of a lattice."""

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from asrtool.decoding.lattice import POS_INF, Lattice
from asrtool.lm.ngram import EOS, LanguageModel

LmStates = tuple[Any, Any]  # of the old and of the new model
_SplitArc = tuple[int, int, int, float]  # arc of the lattice; source and target, split states; change of its cost


def rescore_lattice(
    lattice: Lattice, words: Sequence[str], old: LanguageModel, new: LanguageModel, beam: float = POS_INF
) -> Lattice:
    """Returns the lattice with the scores of the language model `new` instead of `old`, on all its paths.

    This composes the lattice with the difference of the two models: a state splits into as many as there are histories
    that the models distinguish. It is exact for each path of the lattice: `old`'s whole ln probability of its words,
    sentence end included, is subtracted, and `new`'s is added. (Paths that the beam kept out of the lattice stay out.)
    Only a word that `new` lacks keeps the score of `old`. `words[label]` is the word of an output label.

    Frame by frame, paths that cost more than the best one by over `beam` are left out, by the costs of `new` up to the
    frame and of `old` behind it: a lattice of a model that is uncertain everywhere would outgrow all memory. Paths are
    compared where they read the next frame or end, after all words that they emit between two frames.
    """
    rescoring = _Rescoring(lattice, words, old, new, beam)
    rescoring.enter(0, (old.start, new.start), 0.0)
    reading: list[_SplitArc] = []  # arcs that read the frame before `states`
    for states in rescoring.states_by_frame():
        within_frame = rescoring.follow(states, reads_frame=False)
        rescoring.prune(states, reading, within_frame)
        rescoring.best = POS_INF
        reading = rescoring.follow(states, reads_frame=True)
    return rescoring.split_lattice()


class _Rescoring:
    """A lattice that is being rescored: its states, each split into one for every pair of LM states that reaches it.

    Split states have numbers.
    """

    def __init__(
        self, lattice: Lattice, words: Sequence[str], old: LanguageModel, new: LanguageModel, beam: float
    ) -> None:
        self.lattice = lattice
        self.beam = beam
        self.cost_change = cache(lambda states, word: _cost_change(states, word, old, new))
        self.words = words
        self.arc_costs, self.targets = lattice.costs.tolist(), lattice.target.tolist()
        self.inputs, self.outputs = lattice.inputs.tolist(), lattice.outputs.tolist()
        self.outgoing = lattice.outgoing_arcs()
        self.final_costs = lattice.final.sum(axis=1).tolist()
        self.to_end = lattice.costs_to_end()
        self.to_end_by_reading = self._costs_to_end_by_reading()
        self.may_change = self._states_with_changes()
        self.best = POS_INF  # of the frame that is being entered: the least known cost of a whole path
        self.numbers: list[dict[LmStates, int]] = [{} for _ in range(lattice.num_states)]
        self.costs: list[float] = []  # split state -> cost of the best path to it
        self.arcs: list[_SplitArc] = []
        self.final_changes: dict[int, float] = {}  # split state that is final -> change of its final cost

    def _costs_to_end_by_reading(self) -> list[float]:
        """Returns for each state the cost of the best path from it to the end whose first arc reads a frame."""
        reads_frame = self.lattice.inputs > 0
        costs = (self.lattice.costs + np.array(self.to_end)[self.lattice.target])[reads_frame]
        best = np.full(self.lattice.num_states, POS_INF)
        np.minimum.at(best, self.lattice.source[reads_frame], costs)
        return best.tolist()

    def _states_with_changes(self) -> list[bool]:
        """Returns for each state whether paths from it may end or emit a word before they read a frame."""
        may_change = [cost < POS_INF for cost in self.final_costs]
        sources = self.lattice.source.tolist()
        for arc in reversed(np.flatnonzero(self.lattice.inputs == 0).tolist()):
            if self.outputs[arc] or may_change[self.targets[arc]]:
                may_change[sources[arc]] = True
        return may_change

    def states_by_frame(self) -> list[list[int]]:
        """Returns the states before the first frame, those after it, and so on, each list in topological order."""
        frames = self.lattice.frames_to_states()
        states: list[list[int]] = [[] for _ in range(1 + max(frames))]
        for state, frame in enumerate(frames):
            states[frame].append(state)
        return states

    def enter(self, state: int, lm_states: LmStates, cost: float) -> int | None:
        """Returns the split state of `state` with these LM states; None if this path to it is outside of the beam.

        Where paths from the state may still change their cost in this frame, only `prune` can compare them.
        """
        if not self.may_change[state]:
            whole_cost = cost + self.to_end[state]
            self.best = min(self.best, whole_cost)
            if whole_cost > self.best + self.beam:
                return None
        number = self.numbers[state].setdefault(lm_states, len(self.costs))
        if number == len(self.costs):
            self.costs.append(cost)
        self.costs[number] = min(self.costs[number], cost)
        return number

    def follow(self, states: Sequence[int], reads_frame: bool) -> list[_SplitArc]:
        """Enters the targets of the arcs from `states` that read a frame, or of those that read none.

        Returns the arcs to those in the beam.
        """
        arcs: list[_SplitArc] = []
        for state in states:
            for arc in self.outgoing[state]:
                if (self.inputs[arc] > 0) != reads_frame:
                    continue
                label, target, arc_cost = self.outputs[arc], self.targets[arc], self.arc_costs[arc]
                for lm_states, number in self.numbers[state].items():
                    change, following = self.cost_change(lm_states, self.words[label]) if label else (0.0, lm_states)
                    entered = self.enter(target, following, self.costs[number] + arc_cost + change)
                    if entered is not None:
                        arcs.append((arc, number, entered, change))
        return arcs

    def prune(self, states: Sequence[int], reading: Sequence[_SplitArc], within_frame: Sequence[_SplitArc]) -> None:
        """Removes from `states`, all of a frame, what is outside of the beam; adds the arcs to what is left.

        reading, within_frame: the arcs to `states` that read a frame, and those that do not, sources first.
        """
        to_end: dict[int, float] = {}  # split state -> cost of the best path from it
        for state in states:
            for lm_states, number in self.numbers[state].items():
                to_end[number] = self.to_end_by_reading[state]
                if self.final_costs[state] < POS_INF:
                    self.final_changes[number] = self.cost_change(lm_states, EOS)[0]
                    to_end[number] = min(to_end[number], self.final_costs[state] + self.final_changes[number])
        for arc, source, target, change in reversed(within_frame):
            to_end[source] = min(to_end[source], self.arc_costs[arc] + change + to_end[target])
        limit = min(self.costs[number] + to_end[number] for number in to_end) + self.beam
        for state in states:
            numbers = self.numbers[state].items()
            self.numbers[state] = {
                lm_states: number for lm_states, number in numbers if self.costs[number] + to_end[number] <= limit
            }
        for one in itertools.chain(reading, within_frame):
            arc, source, target, change = one
            if self.costs[source] + self.arc_costs[arc] + change + to_end[target] <= limit:
                self.arcs.append(one)

    def split_lattice(self) -> Lattice:
        """Returns the lattice of the split states and arcs that are left."""
        split_states = [(state, number) for state, numbers in enumerate(self.numbers) for number in numbers.values()]
        states, numbers = np.array(split_states, dtype=np.int64).reshape(-1, 2).T
        new_number = np.full(len(self.costs), -1)
        new_number[numbers] = np.arange(len(numbers))
        table = np.array(self.arcs, dtype=np.float64).reshape(-1, 4)
        table = table[new_number[table[:, 1].astype(np.int64)] >= 0]  # rounding may have left an arc without its source
        arc, source, target = table[:, :3].T.astype(np.int64)
        labels = self.lattice.inputs[arc], self.lattice.outputs[arc]
        costs = self.lattice.graph[arc] + table[:, 3], self.lattice.acoustic[arc]
        rows = np.stack([new_number[source], new_number[target], *labels, *costs], axis=1)
        ends = self.lattice.final[states]
        ends[:, 0] += [self.final_changes.get(number, 0.0) for number in numbers.tolist()]
        return Lattice.from_arcs(rows, ends)


def _cost_change(states: LmStates, word: str, old: LanguageModel, new: LanguageModel) -> tuple[float, LmStates]:
    """Returns what `word` adds to the graph cost, and the LM states after it.

    It is 0 for a word that `new` lacks: <unk> stands for all such words together, or the model does not have it.
    """
    old_score, old_state = old.score(states[0], word)
    new_score, new_state = new.score(states[1], word)
    return (old_score - new_score if word == EOS or word in new else 0.0), (old_state, new_state)
