"""Search in a decoding graph on the CPU, by kaldi-decoder: Viterbi beam search over numpy log-probs.

    cost of a path = sum over its frames of acoustic_scale * (-log p(unit) + log prior(unit) + [blank] blank_penalty)
                     + the graph's costs (language model, lexicon, topology) + insertion_penalty * its words

The best path is found by Kaldi's FasterDecoder, lattices by its LatticeSimpleDecoder, which has a beam but no limit on
the number of active states.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.lattice import Lattice, Path, kaldi_arcs, nbest
from asrtool.errors import UserError
from asrtool.interrupts import start_worker

MOST_COST = 1e4  # nats: differences beyond it decide nothing, and float32 holds the sum of an hour of frames
MOST_STATES = 10_000_000  # active in a frame: 1 GB of them, and more than any beam keeps in practice
MOST_NBEST = 100_000  # hypotheses of an utterance: about 10 MB of hyps.jsonl
BOUNDS = {  # of GraphOptions, both included; NaN is outside
    "beam": (1e-4, MOST_COST),
    "lattice_beam": (1e-4, MOST_COST),
    "acoustic_scale": (1e-4, MOST_COST),
    "blank_penalty": (-MOST_COST, MOST_COST),
    "insertion_penalty": (-MOST_COST, MOST_COST),
    "max_active": (2, MOST_STATES),
    "min_active": (0, MOST_STATES),
    "nbest": (1, MOST_NBEST),
}
AHEAD = 200  # utterances that wait for worker processes, or for being asked for: a batch of short ones


def require_range(name: str, value: float, least: float, most: float) -> None:
    """UserError that names the option unless `value` is from `least` to `most`; NaN is not."""
    if not least <= value <= most:
        flag = "--" + name.replace("_", "-")
        raise UserError(f"{flag} {value:g} is out of range; give a number from {least:g} to {most:g}")


@dataclass(frozen=True)
class GraphOptions:
    """How to search. Penalties are costs: natural logarithms, in the units of the scaled total.

    Raises UserError for a value outside of BOUNDS: kaldi-decoder takes any, and crashes or finds nonsense.
    """

    beam: float = 16.0  # how much worse than the best a path may be; Kaldi's default
    max_active: int = 7000  # states a frame, at least 2; that of Kaldi's recipes for big graphs
    min_active: int = 20  # states kept whatever the beam says; Kaldi's default
    acoustic_scale: float = 1.0  # the inverse of a weight on the graph, so a language model's weight of 2 is 0.5
    blank_penalty: float = 0.0
    insertion_penalty: float = 0.0
    nbest: int = 1
    lattice_beam: float | None = None  # make lattices: how much worse than the best a path in them may be

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None:
                require_range(name, value, least, most)

    def costs(self, log_probs: np.ndarray, priors: np.ndarray | None = None, blank: int = 0) -> np.ndarray:
        """What kaldi-decoder is given: scaled log-likelihoods, (T, V) float32. `priors` are log-probabilities, (V,).

        Raises ValueError for NaN and infinity (its negative is an output that is impossible): the decoder would lose
        all paths without a word.
        """
        scaled = np.array(log_probs, dtype=np.float32)
        if priors is not None:
            scaled -= priors.astype(np.float32)
        scaled[:, blank] -= self.blank_penalty
        scaled *= self.acoustic_scale
        require_costs(bool((scaled < np.inf).all()))
        return scaled


def require_costs(are_costs: bool) -> None:
    """ValueError unless all scaled log-likelihoods are below infinity, and none is NaN."""
    if not are_costs:
        raise ValueError("the log-probs hold NaN or infinity; is the checkpoint or the audio damaged?")


class GraphSearch:
    """The search of one graph, as `Search` in asrtool/decoding/decode.py; also what its worker processes run.

    `graph`: a `Graph` of asrtool/graphs/folder.py. `priors`: see GraphOptions.costs. `rescore`: changes each lattice
    before the best words are taken from it. With `jobs` > 1 as many processes are forked at once, after the graph was
    loaded, so that they share its memory; they never touch a GPU.
    """

    def __init__(
        self,
        graph: Any,
        options: GraphOptions,
        jobs: int = 1,
        priors: np.ndarray | None = None,
        rescore: Callable[[Lattice], Lattice] | None = None,
        keep_lattices: bool = False,
    ):
        self.graph, self.words, self.options, self.priors, self.rescore = graph, graph.words, options, priors, rescore
        self.topology, self.outputs = graph.meta["topology"], graph.meta["outputs"]
        self.keep_lattices = keep_lattices
        self.fst = penalise_words(graph.fst, options.insertion_penalty, len(graph.words))
        self.pool = _fork(jobs, self) if jobs > 1 else None

    def __call__(self, log_probs: torch.Tensor, lens: torch.Tensor) -> list[Hypothesis]:
        """A Hypothesis an utterance: log_probs (N, T, V), any device; lens (N,) valid frames.

        Raises UserError when the graph is for another number of outputs than V.
        """
        check_outputs(log_probs.size(2), self.outputs)
        rows = log_probs.detach().float().cpu().numpy()
        frames = [row[:length] for row, length in zip(rows, lens.tolist(), strict=True)]
        return list(self.map(_decode, frames))

    def map(self, work: Callable[["GraphSearch", Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """work(search, item) for each item, in their order, by the worker processes where there are some.

        Only some items are taken ahead of what has been returned. Raises UserError when a process was killed.
        """
        if self.pool is None:
            yield from (work(self, item) for item in items)
            return
        waiting: deque[Future] = deque()
        try:
            for item in items:
                waiting.append(self.pool.submit(_work, work, item))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError("a decoding process was killed, for memory perhaps; try fewer --jobs") from error

    def decode(self, log_probs: np.ndarray) -> Hypothesis:
        """One utterance, (T, V)."""
        scaled = self.options.costs(log_probs, self.priors)
        if self.options.lattice_beam is None:
            path, complete = best_path(self.fst, scaled, self.options)
            return self.hypothesis(path, complete)
        return self.of_lattice(*make_lattice(self.fst, scaled, self.options))

    def of_lattice(self, lattice: Lattice, complete: bool) -> Hypothesis:
        """The best of a lattice, rescored if need be, with as many others as were asked for."""
        lattice = self.rescore(lattice) if self.rescore else lattice
        best, *others = [self.hypothesis(path, complete) for path in nbest(lattice, self.options.nbest)]
        best = best.among(others)
        return replace(best, lattice=lattice.to_text()) if self.keep_lattices else best

    def hypothesis(self, path: Path, complete: bool) -> Hypothesis:
        """What the labels of a path say."""
        tokens, frames = units(path, self.topology)
        labels, when = words(path)
        return Hypothesis(tokens, frames, -path.cost, [self.words[label] for label in labels], when, complete)

    def at(self, options: GraphOptions) -> "GraphSearch":
        """A search of the same graph, in this process, with other options."""
        return GraphSearch(self.graph, options, priors=self.priors)

    @property
    def facts(self) -> dict:
        """What decides over the result, beside graph and log-probs."""
        return asdict(self.options)

    def close(self) -> None:
        """End the worker processes."""
        if self.pool is not None:
            self.pool.shutdown()


def best_path(fst, scaled: np.ndarray, options: GraphOptions) -> tuple[Path, bool]:
    """The best path for scaled log-likelihoods (T, V), and whether it ends in a final state.

    If no path does, it is the best one to any state; if no state is left before the end (a graph with dead ends), the
    best one of as many frames as there are paths for.
    """
    decoder = _advance(fst, scaled, options)
    found, path = decoder.get_best_path()
    if found:
        return read_path(path), decoder.reached_final()
    alive, dead = 0, len(scaled)
    while dead - alive > 1:  # once no state is left, none comes back
        middle = (alive + dead) // 2
        decoder = _advance(fst, scaled[:middle], options)
        alive, dead = (middle, dead) if decoder.get_best_path()[0] else (alive, middle)
    return read_path(_advance(fst, scaled[:alive], options).get_best_path(False)[1]), False


def _advance(fst, scaled: np.ndarray, options: GraphOptions):
    import kaldi_decoder

    decoder = new_decoder(fst, options)
    decoder.advance_decoding(kaldi_decoder.DecodableCtc(scaled))
    return decoder


def new_decoder(fst, options: GraphOptions):
    """A FasterDecoder before its first frame. It does not keep the graph alive: the caller has to."""
    import kaldi_decoder

    config = kaldi_decoder.FasterDecoderOptions(
        beam=options.beam, max_active=options.max_active, min_active=min(options.min_active, options.max_active - 1)
    )
    decoder = kaldi_decoder.FasterDecoder(fst, config)
    decoder.init_decoding()
    return decoder


def make_lattice(fst, scaled: np.ndarray, options: GraphOptions) -> tuple[Lattice, bool]:
    """The raw lattice for scaled log-likelihoods (T, V), and whether its paths end in final states.

    If none does, all of its last states count as final; if no state is left before the end, it is `best_path`'s path.
    """
    import kaldi_decoder

    config = kaldi_decoder.LatticeSimpleDecoderConfig(beam=options.beam, lattice_beam=options.lattice_beam)
    decoder = kaldi_decoder.LatticeSimpleDecoder(fst, config)
    if len(scaled) == 0 or not decoder.decode(kaldi_decoder.DecodableCtc(scaled)):
        path, complete = best_path(fst, scaled, options)
        return _linear(path), complete
    _, lattice = decoder.get_raw_lattice()
    return Lattice.of_kaldi(lattice), decoder.final_relative_cost() < float("inf")


def read_path(lattice) -> Path:
    """The path of a linear kaldifst.Lattice, as decoders return it."""
    arcs, state = [], lattice.start
    while lattice.num_arcs(state):
        arcs += kaldi_arcs(lattice, state)
        state = arcs[-1][1]
    end = lattice.final(state)
    graph, acoustic = sum((arc[4] for arc in arcs), end.value1), sum((arc[5] for arc in arcs), end.value2)
    return Path([arc[2] for arc in arcs], [arc[3] for arc in arcs], graph, acoustic)


def _linear(path: Path) -> Lattice:
    """A lattice of one path, its costs on the final state."""
    arcs = [(n, n + 1, *labels, 0.0, 0.0) for n, labels in enumerate(zip(path.inputs, path.outputs, strict=True))]
    final = np.full((len(arcs) + 1, 2), np.inf)
    final[-1] = path.graph, path.acoustic
    return Lattice.of_arcs(arcs, final)


def units(path: Path, topology: str = "ctc", blank: int = 0) -> tuple[list[int], list[int]]:
    """Units of a path, without blanks, and the frame in which each begins.

    CTC topologies are collapsed; of the modified one, what two equal units in a row were is not to be seen any more. In
    the HMM, output 2 u is the beginning of unit u (asrtool/graphs/topology.py).
    """
    labels = [label - 1 for label in path.inputs if label]
    if topology == "hmm":
        starts = [t for t, output in enumerate(labels) if output % 2 == 0]
        return [labels[t] // 2 for t in starts], starts
    starts = [t for t, unit in enumerate(labels) if unit != blank and (t == 0 or labels[t - 1] != unit)]
    return [labels[t] for t in starts], starts


def check_outputs(model: int, graph: int) -> None:
    """Refuse a graph for another model. kaldi-decoder would read past the end of a frame."""
    if model != graph:
        raise UserError(f"the graph is for a model of {graph} outputs, this one has {model}; see `asrtool graph`")


def words(path: Path) -> tuple[list[int], list[int]]:
    """The word labels of a path, and the frame in which each was put out."""
    before = itertools.accumulate((label > 0 for label in path.inputs), initial=0)
    last = max(0, sum(label > 0 for label in path.inputs) - 1)  # a word may come after the last frame
    pairs = [(label, min(frame, last)) for label, frame in zip(path.outputs, before) if label]  # noqa: B905
    return [label for label, _ in pairs], [frame for _, frame in pairs]


def penalise_words(fst, penalty: float, count: int):
    """The graph with `penalty` added to every arc that puts out one of its `count` labels; itself for 0.

    Raises UserError for a graph without a path to a final state: nothing would be left of it.
    """
    import kaldifst

    if penalty == 0:
        return fst
    loops = "".join(f"0 0 {label} {label} {penalty}\n" for label in range(1, count))
    words = kaldifst.compile(f"{loops}0\n")
    penalised = kaldifst.compose(fst, words, match_side="right")  # of the two, it is the sorted one
    if not penalised.num_states:
        raise UserError("the graph has no path from its start to a final state; make it again with `asrtool graph`")
    return penalised


_worker: GraphSearch | None = None  # of a forked process


def _fork(jobs: int, search: GraphSearch) -> ProcessPoolExecutor:
    """`jobs` processes that hold `search`. All start at the first call, so there is one here."""
    pool = ProcessPoolExecutor(jobs, get_context("fork"), initializer=_become, initargs=(search,))
    pool.submit(int).result()
    return pool


def _become(search: GraphSearch) -> None:
    global _worker
    _worker = search
    start_worker()


def _decode(search: GraphSearch, log_probs: np.ndarray) -> Hypothesis:
    return search.decode(log_probs)


def _work(work: Callable[[GraphSearch, Any], Any], item: Any) -> Any:
    return work(_worker, item)


def load_priors(values: Sequence[float]) -> np.ndarray:
    """Log-probabilities of the classes from counts or probabilities; one never seen counts as seen half a time."""
    counts = np.asarray(values, dtype=np.float64)
    counts = np.where(counts > 0, counts, 0.5 * counts[counts > 0].min())
    return np.log(counts / counts.sum())
