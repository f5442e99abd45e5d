"""Graph search by k2: a batch at a time, on CPU or GPU. No other module imports k2.

k2's FSAs read a symbol on every arc, unit 0 (the blank) as label 0, and end with an arc of label -1 to their one final
state. A graph of asrtool/graphs/folder.py is therefore converted: its epsilons are removed (which takes memory: a graph
with a backing-off language model then has several times the arcs), and its input labels decrease by one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrtool.decoding.graph_options import GraphOptions, require_log_likelihoods
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.kaldi_search import add_insertion_penalty, require_num_outputs
from asrtool.decoding.lattice import POS_INF, Lattice, LatticePath
from asrtool.errors import UserError
from asrtool.graphs.folder import DecodingGraph

if TYPE_CHECKING:
    import k2

BEST_PATH_BEAM = 1.0  # output beam where only the best path is used: k2 never prunes it


def require_k2() -> Any:
    """Returns the module k2. Raises UserError where it is missing or cannot be imported."""
    try:
        import k2
    except ImportError as error:
        hint = "`bash tools/install_k2.sh` says what to do"
        raise UserError(f"k2 cannot be imported ({_import_problem(error)}); {hint}") from error
    return k2


def _import_problem(error: ImportError) -> str:
    """Returns why k2 cannot be imported: a wheel that does not fit this Python and torch, or the error's first line."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("k2")
    except PackageNotFoundError:
        return str(error).splitlines()[0]
    if "+" not in installed:  # the wheels of k2's own page name their torch: 1.24.4.dev20250714+cpu.torch2.7.1
        return f"{installed} of the package index is built for another Python and torch"
    return str(error).splitlines()[0]


class K2Search(GraphSearch):
    """`GraphSearch` by k2: a batch at a time, on the device of its log-probs.

    `beam`, `max_active` and `min_active` are k2's search beam and its bounds on active states, which hold for lattices
    as well; `lattice_beam` is its output beam. An utterance without a path to the end of the graph is searched again by
    kaldi-decoder, for its best partial path.
    """

    def __init__(
        self,
        graph: DecodingGraph,
        options: GraphOptions,
        priors: np.ndarray | None = None,
        rescore: Callable[[Lattice], Lattice] | None = None,
        keep_lattices: bool = False,
    ):
        require_k2()
        super().__init__(graph, options, priors=priors, rescore=rescore, keep_lattices=keep_lattices)
        self.k2_graph = convert_graph(self.fst)

    def prepare(self, graph: DecodingGraph, insertion_penalty: float) -> Any:
        """Returns the FST in the type that k2 converts."""
        return add_insertion_penalty(graph.fst, insertion_penalty, len(graph.words))

    def __call__(self, log_probs: Tensor, lens: Tensor) -> list[Hypothesis]:
        """See GraphSearch."""
        require_num_outputs(log_probs.size(2), self.num_outputs)
        hypotheses = self._search(log_probs.detach().float(), lens.cpu())
        return [
            self.decode_by_kaldi(row[:length].cpu().numpy()) if hypothesis is None else hypothesis
            for hypothesis, row, length in zip(hypotheses, log_probs, lens.tolist(), strict=True)
        ]

    def decode(self, log_probs: np.ndarray) -> Hypothesis:
        """Returns the hypothesis of one utterance, log_probs (T, V)."""
        return self(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]))[0]

    def decode_by_kaldi(self, log_probs: np.ndarray) -> Hypothesis:
        """Returns the hypothesis of one utterance, log_probs (T, V), by kaldi-decoder."""
        return super().decode(log_probs)

    def with_options(self, options: GraphOptions) -> "K2Search":
        """Returns a search of the same graph and priors with other options; it neither rescores nor keeps lattices."""
        return K2Search(self.graph, options, priors=self.priors)

    @property
    def settings(self) -> dict:
        """What determines the result, besides graph and log-probs."""
        return super().settings | {"engine": "k2"}

    def _search(self, log_probs: Tensor, lens: Tensor) -> list[Hypothesis | None]:
        """Returns a hypothesis for each utterance; None for those without a complete path."""
        import k2

        hypotheses: list[Hypothesis | None] = [None] * len(lens)
        chosen = [n for n, length in enumerate(lens.tolist()) if length]
        if not chosen:
            return hypotheses
        options = self.options
        segments = torch.tensor([[n, 0, lens[n]] for n in chosen], dtype=torch.int32)
        lattices = k2.intersect_dense_pruned(
            self._graph_on(log_probs.device),
            k2.DenseFsaVec(self._scaled_log_likelihoods(log_probs, lens), segments),
            search_beam=options.beam,
            output_beam=options.lattice_beam or BEST_PATH_BEAM,
            min_active_states=min(options.min_active, options.max_active),
            max_active_states=options.max_active,
        )
        if options.lattice_beam is None:
            lattices = k2.shortest_path(lattices, use_double_scores=True)
        for n, arcs in zip(chosen, split_lattices(lattices), strict=True):
            if len(arcs.table):
                hypotheses[n] = self._arcs_hypothesis(arcs)
        return hypotheses

    def _arcs_hypothesis(self, arcs: "LatticeArcs") -> Hypothesis:
        """Returns the hypothesis of a lattice, which is a single path without a lattice beam."""
        if self.options.lattice_beam is None:
            return self.path_hypothesis(_linear_path(arcs), is_complete=True)
        final = np.full((arcs.num_states, 2), POS_INF)
        final[arcs.final_state] = 0.0
        return self.lattice_hypothesis(Lattice.from_arcs(arcs.table, final), is_complete=True)

    def _scaled_log_likelihoods(self, log_probs: Tensor, lens: Tensor) -> Tensor:
        """Does what GraphOptions.scaled_log_likelihoods does on the device of the log-probs; padding becomes 0."""
        is_frame = (torch.arange(log_probs.size(1)) < lens[:, None]).to(log_probs.device)
        scaled = torch.where(is_frame[:, :, None], log_probs, 0.0)
        if self.priors is not None:
            scaled -= torch.from_numpy(self.priors).to(scaled)
        scaled[:, :, 0] -= self.options.blank_penalty
        scaled *= self.options.acoustic_scale
        require_log_likelihoods(bool((scaled < torch.inf).all()))
        return scaled

    def _graph_on(self, device: torch.device) -> "k2.Fsa":
        """Returns the graph on `device`, where it stays for the next batches."""
        if self.k2_graph.device != device:
            self.k2_graph = self.k2_graph.to(device)
        return self.k2_graph


def convert_graph(fst: Any) -> "k2.Fsa":
    """Returns a kaldifst graph as k2's FSA, without epsilons.

    `aux_labels` are the words of each arc, `graph_scores` its score in the graph.
    """
    k2 = require_k2()
    graph = k2.Fsa.from_openfst(fst.to_str(show_weight_one=True), acceptor=False)
    arcs, words = _words_on_units(graph.arcs.values().numpy(), graph.aux_labels.numpy()[:, None])
    graph = k2.Fsa(torch.from_numpy(arcs), k2.RaggedTensor(torch.from_numpy(words)).remove_values_leq(0))
    if (graph.labels == 0).any():
        graph = k2.connect(k2.remove_epsilon(graph))
    graph.labels = torch.where(graph.labels > 0, graph.labels - 1, graph.labels)
    graph = k2.arc_sort(graph)
    graph.graph_scores = graph.scores.clone()
    return graph


def _words_on_units(arcs: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns arcs (B, 4) and words (B, W) in which no word is on an epsilon, of k2's arcs (A, 4) and words (A, 1).

    The columns of the arcs are source, target, label and score (float32 bits); they are sorted by source. A word of 0
    is none. An epsilon arc with a word is joined with each arc that leaves its target: the joined arc has the words of
    both. k2.remove_epsilon alone would keep only the best of the words that lead from one state to another without a
    unit, as homophones do.
    """
    while (is_epsilon_word := (arcs[:, 2] == 0) & (words > 0).any(1)).any():
        out_degree = np.bincount(arcs[:, 0], minlength=arcs[:, :2].max() + 1)
        num_next = out_degree[arcs[is_epsilon_word, 1]]
        # The joined pairs of arcs, by their indices: each epsilon arc with a word, and each arc that follows it
        first = np.repeat(np.flatnonzero(is_epsilon_word), num_next)
        offset = np.arange(len(first)) - np.repeat(num_next.cumsum() - num_next, num_next)
        second = (out_degree.cumsum() - out_degree)[arcs[first, 1]] + offset
        joined = arcs[second].copy()
        joined[:, 0] = arcs[first, 0]
        joined[:, 3] = (arcs[first, 3].view(np.float32) + arcs[second, 3].view(np.float32)).view(np.int32)
        arcs = np.concatenate([arcs[~is_epsilon_word], joined])
        padded_words = np.pad(words[~is_epsilon_word], ((0, 0), (0, words.shape[1])))
        words = np.concatenate([padded_words, np.hstack([words[first], words[second]])])
        order = np.argsort(arcs[:, 0], kind="stable")
        arcs, words = arcs[order], words[order]
    return arcs, words


class LatticeArcs(NamedTuple):
    """The arcs of an utterance's lattice, and its one final state, where no path has a further cost."""

    table: np.ndarray  # (A, 6) float64: rows as `Lattice.from_arcs` takes them
    num_states: int
    final_state: int


def split_lattices(lattices: "k2.Fsa") -> Iterator[LatticeArcs]:
    """Yields the arcs of each lattice of an FsaVec of k2, whose scores become costs; no arcs where there is no path."""
    lattices = lattices.to("cpu")
    shape = lattices.arcs.shape()
    first_state = shape.row_splits(1).long()
    first_arc = shape.row_splits(2).long()[first_state].tolist()
    numbers = lattices.arcs.values()[:, :3].long().numpy()
    graph = lattices.graph_scores.double().numpy()
    acoustic = lattices.scores.double().numpy() - graph
    words = lattices.aux_labels
    first_word, labels = words.shape.row_splits(1).numpy(), words.values.numpy()
    # The first word of each arc, 0 for an arc without a word
    output = np.where(first_word[1:] > first_word[:-1], np.append(labels, 0)[first_word[:-1]], 0)
    for n, num_states in enumerate(first_state.diff().tolist()):
        own = slice(first_arc[n], first_arc[n + 1])  # the arcs of this lattice
        source, target = numbers[own, :2].T
        columns = source, target, numbers[own, 2] + 1, output[own], -graph[own], -acoustic[own]
        table = np.stack(columns, axis=1, dtype=np.float64)
        has_several_words = np.diff(first_word[own.start : own.stop + 1]) > 1
        several = np.flatnonzero(has_several_words)  # rows of the table
        several_words = [labels[first_word[a] : first_word[a + 1]] for a in several + own.start]
        yield _one_word_per_arc(table, several, several_words, num_states)


def _one_word_per_arc(table: np.ndarray, arcs: np.ndarray, words: Sequence[np.ndarray], num_states: int) -> LatticeArcs:
    """Replaces each arc that has several words by a chain of arcs, of which the first one reads the frame.

    `arcs` are the rows of the table (A, 6) that have several words, in order; `words` are all words of each of them.
    """
    final_state = num_states - 1
    blocks = []
    copied = 0  # number of rows of the table that are in the blocks
    for arc, labels in zip(arcs.tolist(), words, strict=True):
        target = table[arc, 1]
        table[arc, 1] = num_states
        blocks.append(table[copied : arc + 1])
        chain = np.array([(num_states + n, num_states + n + 1, 0, label, 0, 0) for n, label in enumerate(labels[1:])])
        chain = chain.astype(np.float64)
        chain[-1, 1] = target
        blocks.append(chain)
        num_states += len(chain)
        copied = arc + 1
    return LatticeArcs(np.concatenate([*blocks, table[copied:]]), num_states, final_state)


def _linear_path(arcs: LatticeArcs) -> LatticePath:
    """Returns the path of a lattice of one path, whose arcs are in order."""
    columns = arcs.table.T
    inputs, outputs = columns[2:4].astype(np.int64).tolist()
    graph, acoustic = columns[4:].sum(1).tolist()
    return LatticePath(inputs, outputs, graph, acoustic)
