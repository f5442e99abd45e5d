"""Tuning the decoding weights on a development set, with one pass over its log-probs.

The decoding weights are acoustic scale, blank penalty and insertion penalty. Each utterance is searched once, into a
lattice. The costs of a lattice's arcs with other weights are known exactly:

    acoustic_scale * (acoustic + [blank] blank_penalty) + graph + [word] insertion_penalty

so its best path with any weights follows without another search, for many weights at once. It is approximate only in
that just the paths of the lattice compete, which was built with the first weights. Therefore the last step is a real
search with the best weights.

Weights fit the speakers they are tuned on. The folds of a cross-validation are tuned together, on all speakers: each
fold's system is searched in its own graph, and the errors of all are added.
"""

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrtool.data.shards import manifest_name
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.kaldi_search import search_lattice
from asrtool.decoding.lattice import Lattice
from asrtool.decoding.lattice_weights import DecodingWeights, best_words
from asrtool.decoding.log_probs import UtteranceLogProbs, read_log_probs, store_log_probs
from asrtool.decoding.options import read_decoding_weights
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.files import require_output, require_same_kind, write_json
from asrtool.locks import write_lock
from asrtool.progress import progress
from asrtool.scoring.wer import align_words, count_word_errors


class TunedSystem(NamedTuple):
    """A model, the manifest that it recognises for tuning, and the search in its graph.

    The lattices are built with the options of the search; they need a lattice_beam.
    """

    experiment: Experiment
    cuts: Path
    search: GraphSearch

    @property
    def folder(self) -> Path:
        """EXP/decode/SET, where the log-probs are."""
        return self.experiment.folder / "decode" / manifest_name(self.cuts)


class ReferenceLattice(NamedTuple):
    """The lattice of an utterance with its transcript, and the words of its graph.

    It has the costs of the decoding weights 1, 0, 0, whatever weights it was built with.
    """

    ref: str
    lattice: Lattice
    words: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """The values of the coarse grid, and how often the steps are halved around the best of it.

    Acoustic scales are a factor of 1.4 apart; the language model weights of published recipes are between 0.3 and 2.
    Blank penalties: a peaky CTC model overestimates blank by a factor of up to e^2. Insertion penalties can be
    negative.
    """

    acoustic_scale: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
    blank_penalty: tuple[float, ...] = (0.0, 1.0, 2.0)
    insertion_penalty: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    rounds: int = 2

    def coarse(self) -> list[DecodingWeights]:
        """Returns all combinations of the values."""
        axes = (self.acoustic_scale, self.blank_penalty, self.insertion_penalty)
        return [DecodingWeights(*values) for values in itertools.product(*axes)]

    def around(self, best: DecodingWeights, refinement: int) -> list[DecodingWeights]:
        """Returns the neighbours of `best` in a refinement, counted from 1."""
        factor, step = np.sqrt(2.0) ** 0.5**refinement, 0.5**refinement
        return [
            DecodingWeights(
                acoustic_scale=best.acoustic_scale * factor**a,
                blank_penalty=best.blank_penalty + step * b,
                insertion_penalty=best.insertion_penalty + step * c,
            )
            for a, b, c in itertools.product((-1, 0, 1), repeat=3)
        ]


def reference_lattices(
    search: GraphSearch, utterances: Iterable[UtteranceLogProbs], total: int | None = None
) -> list[ReferenceLattice]:
    """Returns the lattice of each utterance, in order."""
    lattices = progress(search.map(_search_reference_lattice, utterances), "lattices", total)
    return [ReferenceLattice(ref, lattice, search.words) for ref, lattice in lattices]


def _search_reference_lattice(search: GraphSearch, utterance: UtteranceLogProbs) -> tuple[str, Lattice]:
    options = replace(search.options, blank_penalty=0.0)
    scaled = options.scaled_log_likelihoods(utterance.log_probs, search.priors)
    lattice, _ = search_lattice(search.fst, scaled, options)
    acoustic = lattice.acoustic / options.acoustic_scale
    final = lattice.final / [1.0, options.acoustic_scale]
    return utterance.ref, replace(lattice, acoustic=acoustic, final=final)


def search_grid(lattices: Sequence[ReferenceLattice], grid: Grid) -> dict:
    """Evaluates the grid. Returns {"best": the weights, "wer": their WER in the lattices, "tried": all, in order}."""
    wers: dict[DecodingWeights, float] = {}
    for refinement in range(grid.rounds + 1):
        candidates = grid.around(best_weights(wers), refinement) if refinement else grid.coarse()
        candidates = [weights for weights in dict.fromkeys(candidates) if weights not in wers]
        wers |= zip(candidates, error_rates(lattices, candidates), strict=True)
    tried = [weights._asdict() | {"wer": round(wer, 4)} for weights, wer in wers.items()]
    best = best_weights(wers)
    return {"best": best._asdict(), "wer": wers[best], "tried": tried}


def best_weights(wers: dict[DecodingWeights, float]) -> DecodingWeights:
    """Returns the weights with the lowest WER; of several, those nearest to 1, 0, 0."""
    return min(wers, key=lambda weights: (wers[weights], weights.distance_from_defaults()))


def error_rates(lattices: Sequence[ReferenceLattice], candidates: Sequence[DecodingWeights]) -> list[float]:
    """Returns the WER in percent of the lattices' best paths with each of the candidate weights."""
    errors = np.zeros(len(candidates))
    num_words = 0
    description = f"{len(candidates)} decoding weights"
    for ref, lattice, words in progress(lattices, description, len(lattices), "utterances"):
        results = best_words(lattice, candidates)
        texts = {labels: " ".join(words[label] for label in labels) for labels in set(results)}  # mostly a few
        counts = {labels: count_word_errors(align_words(ref, text)).errors for labels, text in texts.items()}
        errors += [counts[labels] for labels in results]
        num_words += len(ref.split())
    return (100 * errors / max(1, num_words)).tolist()


def tune_systems(
    systems: Sequence[TunedSystem], out: Path, grid: Grid, batch_seconds: float = 200.0, workers: int = 1
) -> dict:
    """Tunes on the manifests of all systems together. Writes the file `out` and returns its content.

    Log-probs are stored in each system's folder, and used again. The result has the entries of `search_grid`,
    `decoded`, the WER of a real search with the best weights, and `before`, the same with 1, 0, 0. Raises UserError for
    an `out` that is another kind of file, for two systems with one folder, and without transcripts.
    """
    require_output(out, (".json",), [system.cuts for system in systems])
    require_same_kind(out, "decoding weights of `asrtool tune`", read_decoding_weights)
    cuts_of: dict[Path, Path] = {}  # folder of log-probs -> manifest
    for system in systems:
        folder, cuts = (system.folder / "log_probs").absolute(), system.cuts.absolute()
        if cuts_of.setdefault(folder, cuts) != cuts:
            raise UserError(f"two sets would store their log-probs in {folder}; give one of them another file name")
    with contextlib.ExitStack() as locks:
        for folder in cuts_of:
            locks.enter_context(write_lock(folder, "asrtool tune"))
        facts = _tune_on_stored(systems, grid, batch_seconds, workers)
        write_json(out, facts)
    return facts


def _tune_on_stored(systems: Sequence[TunedSystem], grid: Grid, batch_seconds: float, workers: int) -> dict:
    lattices: list[ReferenceLattice] = []
    for system in systems:
        folder = system.folder / "log_probs"
        count = store_log_probs(system.experiment, system.cuts, folder, batch_seconds, workers)
        lattices += reference_lattices(system.search, read_log_probs(folder), count)
    if not any(lattice.ref.split() for lattice in lattices):
        raise UserError(f"{systems[0].cuts} has no transcripts to compare with; tune on a set that has some")
    facts = search_grid(lattices, grid) | {"precision": systems[0].experiment.computed_precision}
    defaults, best = DecodingWeights(1.0, 0.0, 0.0), DecodingWeights(**facts["best"])
    facts["before"] = _decoded_wer(systems, defaults, "decoding with default weights", len(lattices))
    facts["decoded"] = _decoded_wer(systems, best, "decoding with tuned weights", len(lattices))
    return facts


def _decoded_wer(systems: Sequence[TunedSystem], weights: DecodingWeights, description: str, total: int) -> float:
    """Returns the WER of real searches with these weights, in percent."""
    errors = num_words = 0
    searches = [
        system.search.with_options(replace(system.search.options, lattice_beam=None, **weights._asdict()))
        for system in systems
    ]
    utterances = (
        (search, utterance)
        for system, search in zip(systems, searches, strict=True)
        for utterance in read_log_probs(system.folder / "log_probs")
    )
    for search, utterance in progress(utterances, description, total, "utterances"):
        words = search.decode(utterance.log_probs).words
        counts = count_word_errors(align_words(utterance.ref, " ".join(words or [])))
        errors += counts.errors
        num_words += counts.length
    return round(100 * errors / max(1, num_words), 4)
