"""Search in a decoding graph on the CPU by kaldi-decoder, by several processes.

cost of a path = sum over its frames of acoustic_scale * (-log p(unit) + log prior(unit) + [blank] blank_penalty)
                 + the graph's costs (language model, lexicon, topology) + insertion_penalty * number of words
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from copy import copy
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from asrtool.decoding.graph_options import GraphOptions, max_mean_entropy
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.kaldi_search import (
    add_insertion_penalty,
    path_units,
    path_words,
    require_num_outputs,
    search_best_path,
    search_lattice,
)
from asrtool.decoding.lattice import Lattice, LatticePath, nbest_paths
from asrtool.decoding.lattice_posteriors import word_posteriors
from asrtool.errors import UserError
from asrtool.forking import fork_context
from asrtool.graphs.folder import DecodingGraph
from asrtool.graphs.graph_cache import cached_fst
from asrtool.interrupts import init_worker

MAX_PENDING = 200  # utterances that are submitted to worker processes ahead of what is returned: a batch of short ones


class GraphSearch:
    """The search in one graph. It is a `Search` of asrtool/decoding/hypothesis.py, and what its worker processes run.

    `priors`: see GraphOptions.scaled_log_likelihoods. `rescore`: changes each lattice before its best words are taken.
    With `jobs` > 1 as many processes are forked at once, after the graph was loaded, so that they share its memory;
    they never touch a GPU.
    """

    def __init__(
        self,
        graph: DecodingGraph,
        options: GraphOptions,
        jobs: int = 1,
        priors: np.ndarray | None = None,
        rescore: Callable[[Lattice], Lattice] | None = None,
        keep_lattices: bool = False,
    ):
        self.graph = graph
        self.words = graph.words
        self.topology = graph.meta["topology"]
        self.num_outputs = graph.meta["outputs"]
        self.options = options
        self.priors = priors
        self.rescore = rescore
        self.keep_lattices = keep_lattices
        self.fst = self.prepare(graph, options.insertion_penalty)
        self.pool = _fork(jobs, self) if jobs > 1 else None

    def prepare(self, graph: DecodingGraph, insertion_penalty: float) -> Any:
        """Returns the FST that is searched, from the user's cache if the graph is large."""
        cached = cached_fst(graph, insertion_penalty)
        if cached is not None:
            return cached
        return add_insertion_penalty(graph.fst, insertion_penalty, len(graph.words))

    def __call__(self, log_probs: torch.Tensor, lens: torch.Tensor) -> list[Hypothesis]:
        """Returns a Hypothesis for each utterance: log_probs (N, T, V), any device; lens (N,) valid frames.

        Raises UserError when the graph is for another number of outputs than V.
        """
        require_num_outputs(log_probs.size(2), self.num_outputs)
        rows = log_probs.detach().float().cpu().numpy()
        frames = [row[:length] for row, length in zip(rows, lens.tolist(), strict=True)]
        return list(self.map(_decode, frames))

    def map(self, work: Callable[["GraphSearch", Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yields work(search, item) for each item in order, computed by the worker processes where there are some.

        At most MAX_PENDING items are read ahead. Raises UserError when a process was killed.
        """
        if self.pool is None:
            yield from (work(self, item) for item in items)
            return
        pending: deque[Future] = deque()
        try:
            for item in items:
                pending.append(self.pool.submit(_work, work, item))
                if len(pending) == MAX_PENDING:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError("a decoding process was killed, for memory perhaps; try fewer --jobs") from error

    def decode(self, log_probs: np.ndarray) -> Hypothesis:
        """Returns the hypothesis of one utterance, log_probs (T, V)."""
        scaled = self.options.scaled_log_likelihoods(log_probs, self.priors)
        if self.options.lattice_beam is None or self._is_uncertain(scaled):
            path, is_complete = search_best_path(self.fst, scaled, self.options)
            return self.path_hypothesis(path, is_complete)
        lattice, is_complete = search_lattice(self.fst, scaled, self.options)
        return self.lattice_hypothesis(lattice, is_complete)

    def _is_uncertain(self, scaled: np.ndarray) -> bool:
        """Returns whether lattice search would keep most states of a large graph; scaled log-likelihoods (T, V)."""
        limit = self.options.lattice_max_entropy
        if limit is None or self.fst.num_states <= self.options.max_active:
            return False
        return max_mean_entropy(scaled) > limit

    def lattice_hypothesis(self, lattice: Lattice, is_complete: bool) -> Hypothesis:
        """Returns the best hypothesis of a lattice, after rescoring if asked for, with the other n-best ones."""
        if self.rescore:
            lattice = self.rescore(lattice)
        paths = list(nbest_paths(lattice, self.options.nbest))
        best, *others = [self.path_hypothesis(path, is_complete) for path in paths]
        posteriors = word_posteriors(lattice, paths[0].words, best.word_frames)
        best = replace(best.with_others(others), word_posteriors=posteriors)
        return replace(best, lattice=lattice.to_text()) if self.keep_lattices else best

    def path_hypothesis(self, path: LatticePath, is_complete: bool) -> Hypothesis:
        """Returns the hypothesis of a path: its units, words and times."""
        tokens, frames = path_units(path, self.topology)
        labels, word_frames = path_words(path)
        return Hypothesis(
            tokens=tokens,
            frames=frames,
            score=-path.cost,
            words=[self.words[label] for label in labels],
            word_frames=word_frames,
            complete=is_complete,
        )

    def with_options(self, options: GraphOptions) -> "GraphSearch":
        """Returns a search of the same graph, in this process, with other options."""
        search = copy(self)
        search.options = options
        search.pool = None
        if options.insertion_penalty != self.options.insertion_penalty:
            search.fst = self.prepare(self.graph, options.insertion_penalty)
        return search

    @property
    def settings(self) -> dict:
        """What determines the result, besides graph and log-probs."""
        settings = asdict(self.options)
        if self.options.lattice_max_entropy is None:
            del settings["lattice_max_entropy"]  # so that results of earlier versions have the same settings
        return settings

    def close(self) -> None:
        """Ends the worker processes."""
        if self.pool is not None:
            self.pool.shutdown()


_worker_search: GraphSearch | None = None  # of a forked process


def _fork(jobs: int, search: GraphSearch) -> ProcessPoolExecutor:
    """Returns a pool of `jobs` processes that hold `search`."""
    pool = ProcessPoolExecutor(jobs, fork_context(), initializer=_start_search_worker, initargs=(search,))
    pool.submit(int).result()  # the first call starts them all
    return pool


def _start_search_worker(search: GraphSearch) -> None:
    global _worker_search
    _worker_search = search
    init_worker(ends_on_sigterm=True)


def _decode(search: GraphSearch, log_probs: np.ndarray) -> Hypothesis:
    return search.decode(log_probs)


def _work(work: Callable[[GraphSearch, Any], Any], item: Any) -> Any:
    assert _worker_search is not None
    return work(_worker_search, item)
