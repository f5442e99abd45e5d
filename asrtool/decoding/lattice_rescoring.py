"""Lattice rescoring: another language model's scores instead of those in the graph costs of a lattice."""

from collections.abc import Iterator, Sequence
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
    frame and of `old` behind it: a lattice of a model that is uncertain everywhere would outgrow all memory.
    """

    @cache
    def cost_change(states: LmStates, label: int) -> tuple[float, LmStates]:
        return _cost_change(states, words[label], old, new) if label else (0.0, states)

    split = _SplitStates(lattice, beam)
    split.enter(0, (old.start, new.start), 0.0)
    outgoing, targets, outputs = lattice.outgoing_arcs(), lattice.target.tolist(), lattice.outputs.tolist()
    costs, is_final = lattice.costs.tolist(), (lattice.final.sum(axis=1) < POS_INF).tolist()
    arcs: list[_SplitArc] = []
    final: dict[int, float] = {}  # split state -> change of its final cost
    for state in split.order:
        for lm_states, number in split.alive(state):
            final[number] = _cost_change(lm_states, EOS, old, new)[0] if is_final[state] else 0.0
            for arc in outgoing[state]:
                change, following = cost_change(lm_states, outputs[arc])
                target = split.enter(targets[arc], following, split.costs[number] + costs[arc] + change)
                if target is not None:
                    arcs.append((arc, number, target, change))
    return _split_lattice(lattice, split, arcs, final)


class _SplitStates:
    """The states of a lattice, each split into one for every pair of LM states with which it was entered."""

    def __init__(self, lattice: Lattice, beam: float):
        self.frames = lattice.frames_to_states()
        self.beam = beam
        self.to_end = lattice.costs_to_end()
        self.best = [POS_INF] * (1 + max(self.frames))  # of each frame: the least cost of a whole path through it
        self.numbers: list[dict[LmStates, int]] = [{} for _ in range(lattice.num_states)]
        self.states: list[int] = []  # split state -> state of the lattice
        self.costs: list[float] = []  # split state -> cost of the best path to it
        self.order = sorted(range(lattice.num_states), key=self.frames.__getitem__)  # topological still

    def enter(self, state: int, lm_states: LmStates, cost: float) -> int | None:
        """Returns the split state of `state` with these LM states; None if this way to it is outside of the beam."""
        frame = self.frames[state]
        whole_cost = cost + self.to_end[state]
        self.best[frame] = min(self.best[frame], whole_cost)
        if whole_cost > self.best[frame] + self.beam:
            return None
        number = self.numbers[state].setdefault(lm_states, len(self.costs))
        if number == len(self.costs):
            self.states.append(state)
            self.costs.append(cost)
        self.costs[number] = min(self.costs[number], cost)
        return number

    def alive(self, state: int) -> Iterator[tuple[LmStates, int]]:
        """Yields LM states and number of each split state still in the beam, after all of its frame was entered."""
        limit = self.best[self.frames[state]] + self.beam - self.to_end[state]
        return ((lm_states, number) for lm_states, number in self.numbers[state].items() if self.costs[number] <= limit)


def _split_lattice(lattice: Lattice, split: _SplitStates, arcs: list[_SplitArc], final: dict[int, float]) -> Lattice:
    """Returns the lattice of the split states in `final`, in the topological order of the states they come from."""
    states = np.array(split.states, dtype=np.int64)
    kept = np.fromiter(final, dtype=np.int64)
    kept = kept[np.argsort(states[kept], kind="stable")]
    new_number = np.full(len(states), -1)
    new_number[kept] = np.arange(len(kept))
    table = np.array(arcs, dtype=np.float64).reshape(-1, 4)
    table = table[new_number[table[:, 2].astype(np.int64)] >= 0]
    arc, source, target = table[:, :3].T.astype(np.int64)
    labels = lattice.inputs[arc], lattice.outputs[arc]
    costs = lattice.graph[arc] + table[:, 3], lattice.acoustic[arc]
    rows = np.stack([new_number[source], new_number[target], *labels, *costs], axis=1)
    ends = lattice.final[states[kept]]
    ends[:, 0] += [final[number] for number in kept.tolist()]
    return Lattice.from_arcs(rows, ends)


def _cost_change(states: LmStates, word: str, old: LanguageModel, new: LanguageModel) -> tuple[float, LmStates]:
    """Returns what `word` adds to the graph cost, and the LM states after it.

    It is 0 for a word that `new` lacks: <unk> stands for all such words together, or the model does not have it.
    """
    old_score, old_state = old.score(states[0], word)
    new_score, new_state = new.score(states[1], word)
    return (old_score - new_score if word == EOS or word in new else 0.0), (old_state, new_state)
