"""Tuning acoustic scale, blank penalty and insertion penalty on a development set, with one pass over its log-probs.

Each utterance is searched once, into a lattice. The costs of a lattice's arcs at other scales are known exactly:

    acoustic_scale * (acoustic + [blank] blank_penalty) + graph + [word] insertion_penalty

so its best path at any scales is found without another search, for many scales at once. Approximate is that only paths
of the lattice compete, which was made at the first scales. So the last step is a real search at the scales found.

Scales follow the speakers they are tuned on. Those of a cross-validation are tuned on all speakers at once: each fold's
system is searched in its own graph, and the errors of all are added.
"""

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrtool.data.shards import manifest_name
from asrtool.decoding.graph_search import GraphSearch, make_lattice
from asrtool.decoding.lattice import NEVER, Lattice
from asrtool.decoding.log_probs import Utterance, read_log_probs, store_log_probs
from asrtool.decoding.options import read_scales
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.files import require_output, require_same_kind, write_json
from asrtool.locks import write_lock
from asrtool.progress import progress
from asrtool.scoring.wer import align_words, count_words


class Scales(NamedTuple):
    """What is tuned. The weight of the graph (language model) beside the acoustic model is 1 / acoustic_scale."""

    acoustic_scale: float
    blank_penalty: float
    insertion_penalty: float

    def __str__(self) -> str:
        values = (self.acoustic_scale, 1 / self.acoustic_scale, self.blank_penalty, self.insertion_penalty)
        return "acoustic scale {:.3g} (LM weight {:.3g}), blank penalty {:.3g}, insertion penalty {:.3g}".format(
            *values
        )


class System(NamedTuple):
    """What is tuned on: a model, the manifest it is to recognise, and the search in its graph.

    The search's options are those that lattices are made with; they need a lattice_beam.
    """

    experiment: Experiment
    cuts: Path
    search: GraphSearch

    @property
    def folder(self) -> Path:
        """EXP/decode/SET, where the log-probs are."""
        return self.experiment.folder / "decode" / manifest_name(self.cuts)


class Made(NamedTuple):
    """An utterance's lattice with costs at scales of 1, 0, 0, whatever it was made with; `words` are its graph's."""

    ref: str
    lattice: Lattice
    words: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """Where to look: the values of the coarse grid, and how often the steps are halved around the best of it.

    Acoustic scales a factor of 1.4 apart; the LM weights of published recipes lie between 0.3 and 2. Blank penalties: a
    peaky CTC model overestimates blank by a factor of up to e^2. Insertion penalties on both sides of none.
    """

    acoustic_scale: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
    blank_penalty: tuple[float, ...] = (0.0, 1.0, 2.0)
    insertion_penalty: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    rounds: int = 2

    def coarse(self) -> list[Scales]:
        """All combinations."""
        axes = (self.acoustic_scale, self.blank_penalty, self.insertion_penalty)
        return [Scales(*values) for values in itertools.product(*axes)]

    def around(self, best: Scales, number: int) -> list[Scales]:
        """The neighbours of `best` in refinement `number`, from 1."""
        factor, step = np.sqrt(2.0) ** 0.5**number, 0.5**number
        return [
            Scales(best.acoustic_scale * factor**a, best.blank_penalty + step * b, best.insertion_penalty + step * c)
            for a, b, c in itertools.product((-1, 0, 1), repeat=3)
        ]


def lattices(search: GraphSearch, utterances: Iterable[Utterance], total: int | None = None) -> list[Made]:
    """One of each utterance, in their order."""
    return [Made(*made, search.words) for made in progress(search.map(_made, utterances), "lattices", total)]


def tune(made: Sequence[Made], grid: Grid) -> dict:
    """Search the grid. Returns {"best": scales, "wer": its WER in the lattices, "tried": all, in turn}."""
    found: dict[Scales, float] = {}
    for number in range(grid.rounds + 1):
        asked = grid.around(best(found), number) if number else grid.coarse()
        asked = [scales for scales in dict.fromkeys(asked) if scales not in found]
        found |= zip(asked, error_rates(made, asked), strict=True)
    tried = [scales._asdict() | {"wer": round(wer, 4)} for scales, wer in found.items()]
    return {"best": best(found)._asdict(), "wer": found[best(found)], "tried": tried}


def tune_systems(
    systems: Sequence[System], out: Path, grid: Grid, batch_seconds: float = 200.0, workers: int = 1
) -> dict:
    """Tune on the manifests of all systems together. Writes the file `out` and returns what is in it.

    Log-probs are stored in each system's folder, and used again. Beside what `tune` finds there are `decoded`, the
    WER of a real search at the best scales, and `before`, that at the scales (1, 0, 0). UserError for an `out` that is
    another kind of file, for two systems with one folder, and where there are no transcripts.
    """
    require_output(out, (".json",), [one.cuts for one in systems])
    require_same_kind(out, "scales of `asrtool tune`", read_scales)
    stored: dict[Path, Path] = {}
    for one in systems:
        folder, cuts = (one.folder / "log_probs").absolute(), one.cuts.absolute()
        if stored.setdefault(folder, cuts) != cuts:
            raise UserError(f"two sets would store their log-probs in {folder}; give one of them another file name")
    with contextlib.ExitStack() as locks:
        for folder in stored:
            locks.enter_context(write_lock(folder, "asrtool tune"))
        facts = _tune_stored(systems, grid, batch_seconds, workers)
        write_json(out, facts)
    return facts


def _tune_stored(systems: Sequence[System], grid: Grid, batch_seconds: float, workers: int) -> dict:
    made: list[Made] = []
    for one in systems:
        count = store_log_probs(one.experiment, one.cuts, one.folder / "log_probs", batch_seconds, workers)
        made += lattices(one.search, read_log_probs(one.folder / "log_probs"), count)
    if not any(one.ref.split() for one in made):
        raise UserError(f"{systems[0].cuts} has no transcripts to compare with; tune on a set that has some")
    facts = tune(made, grid)
    facts["before"] = _decoded(systems, Scales(1.0, 0.0, 0.0), "decoding with default weights", len(made))
    facts["decoded"] = _decoded(systems, Scales(**facts["best"]), "decoding with tuned weights", len(made))
    return facts


def _decoded(systems: Sequence[System], scales: Scales, what: str, total: int) -> float:
    """The WER of real searches at `scales`, in percent."""
    errors = length = 0
    searches = [one.search.at(replace(one.search.options, lattice_beam=None, **scales._asdict())) for one in systems]
    waiting = (
        (search, utterance)
        for one, search in zip(systems, searches, strict=True)
        for utterance in read_log_probs(one.folder / "log_probs")
    )
    for search, utterance in progress(waiting, what, total, "utterances"):
        counts = count_words(align_words(utterance.ref, " ".join(search.decode(utterance.log_probs).words)))
        errors, length = errors + counts.errors, length + counts.length
    return round(100 * errors / max(1, length), 4)


def best(found: dict[Scales, float]) -> Scales:
    """The scales with the lowest WER; of several, those nearest to doing nothing."""
    return min(found, key=lambda scales: (found[scales], np.log(scales[0]) ** 2 + scales[1] ** 2 + scales[2] ** 2))


def _made(search: GraphSearch, utterance: Utterance) -> tuple[str, Lattice]:
    options = replace(search.options, blank_penalty=0.0)
    scaled = options.costs(utterance.log_probs, search.priors)
    lattice, _ = make_lattice(search.fst, scaled, options)
    acoustic = lattice.acoustic / options.acoustic_scale
    final = lattice.final / [1.0, options.acoustic_scale]
    return utterance.ref, replace(lattice, acoustic=acoustic, final=final)


def error_rates(made: Sequence[Made], asked: Sequence[Scales]) -> list[float]:
    """The WER in percent of the lattices' best paths at each of `asked`."""
    errors, length = np.zeros(len(asked)), 0
    for ref, lattice, words in progress(made, f"{len(asked)} scales", len(made), "utterances"):
        found = best_words(lattice, asked)
        texts = {labels: " ".join(words[label] for label in labels) for labels in set(found)}  # mostly a few
        counts = {labels: count_words(align_words(ref, text)).errors for labels, text in texts.items()}
        errors += [counts[labels] for labels in found]
        length += len(ref.split())
    return (100 * errors / max(1, length)).tolist()


def best_words(lattice: Lattice, asked: Sequence[Scales]) -> list[tuple[int, ...]]:
    """The words of the best path at each of the S scales: the Viterbi algorithm for all of them at once.

    States are taken in groups of equal depth (the longest way from the start), so that numpy does a group in one go.
    """
    scales = np.array(asked)
    arcs, bounds = _by_depth(lattice)
    costs, back = np.full((lattice.states, len(asked)), NEVER), np.zeros((lattice.states, len(asked)), dtype=np.int64)
    costs[0] = 0.0
    for first, last in itertools.pairwise(bounds):
        group = arcs[first:last]
        reach = costs[lattice.source[group]] + _arc_costs(lattice, group, scales)
        targets, starts = np.unique(lattice.target[group], return_index=True)
        costs[targets] = np.minimum.reduceat(reach, starts)
        is_best = reach == np.repeat(costs[targets], np.diff([*starts, len(group)]), axis=0)
        back[targets] = np.minimum.reduceat(np.where(is_best, group[:, None], len(arcs)), starts)
    graph, acoustic = lattice.final.T[:, :, None]
    ends = (costs + graph + acoustic * scales[:, 0]).argmin(axis=0)
    return _trace(lattice, back, ends)


def _arc_costs(lattice: Lattice, group: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(arcs, S)"""
    blank, word = (lattice.inputs[group] == 1)[:, None], (lattice.outputs[group] > 0)[:, None]
    acoustic = lattice.acoustic[group][:, None] + blank * scales[:, 1]
    return scales[:, 0] * acoustic + lattice.graph[group][:, None] + word * scales[:, 2]


def _by_depth(lattice: Lattice) -> tuple[np.ndarray, list[int]]:
    """Arcs sorted by the depth of their target, then by target, and where each depth begins, and the last ends."""
    depth = [0] * lattice.states
    for source, target in zip(lattice.source.tolist(), lattice.target.tolist(), strict=True):
        depth[target] = max(depth[target], depth[source] + 1)
    depths = np.array(depth)[lattice.target]
    arcs = np.lexsort((lattice.target, depths))
    return arcs, [*np.unique(depths[arcs], return_index=True)[1].tolist(), len(arcs)]


def _trace(lattice: Lattice, back: np.ndarray, ends: np.ndarray) -> list[tuple[int, ...]]:
    """The words on the way back from `ends`, (S,), to the start."""
    state, columns, found = ends, np.arange(len(ends)), []
    while state.any():
        arc = back[state, columns]
        found.append(np.where(state > 0, lattice.outputs[arc] if len(lattice.outputs) else 0, 0))
        state = np.where(state > 0, lattice.source[arc], 0)
    rows = np.array(found[::-1], dtype=np.int64).reshape(-1, len(ends)).T.tolist()
    return [tuple(label for label in row if label) for row in rows]
