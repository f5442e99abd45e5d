"""All that needs k2: search in decoding graphs by batches, on CPU or GPU.

k2's FSAs read a symbol on every arc, unit 0 (the blank) as label 0, and end with an arc of label -1 to their one final
state. So a graph of asrtool/graphs/folder.py loses its epsilons on the way here (which takes memory: a graph with a
backing-off language model has several times the arcs then), and its input labels go down by one.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrtool.decoding.graph_search import GraphSearch, check_outputs, require_costs
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.lattice import NEVER, Lattice, Path
from asrtool.errors import UserError

if TYPE_CHECKING:
    import k2

ONE_PATH = 1.0  # output beam where only the best path counts: k2 never prunes that


def require_k2() -> Any:
    """The module k2. UserError where it is missing or cannot be imported."""
    try:
        import k2
    except ImportError as error:
        raise UserError(
            f"k2 cannot be imported ({_reason(error)}); `bash tools/install_k2.sh` says what to do"
        ) from error
    return k2


def _reason(error: ImportError) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("k2")
    except PackageNotFoundError:
        return str(error).splitlines()[0]
    if "+" not in installed:  # those of k2's own page name their torch: 1.24.4.dev20250714+cpu.torch2.7.1
        return f"{installed} of the package index is built for another Python and torch"
    return str(error).splitlines()[0]


class K2Search(GraphSearch):
    """`GraphSearch` with k2: a batch at a time, where its log-probs are.

    `beam`, `max_active` and `min_active` are k2's search beam and its bounds on active states, which hold for lattices,
    too; `lattice_beam` is its output beam. An utterance without a path to the end of the graph is searched again by
    kaldi-decoder, for its best partial one.
    """

    def __init__(self, graph: Any, options: Any, **further: Any):
        require_k2()
        super().__init__(graph, options, **further)
        self.decoding_graph = decoding_graph(self.fst)

    def __call__(self, log_probs: Tensor, lens: Tensor) -> list[Hypothesis]:
        """See GraphSearch."""
        check_outputs(log_probs.size(2), self.outputs)
        found = self._search(log_probs.detach().float(), lens.cpu())
        return [
            self.decode_alone(row[:length].cpu().numpy()) if hypothesis is None else hypothesis
            for hypothesis, row, length in zip(found, log_probs, lens.tolist(), strict=True)
        ]

    def decode(self, log_probs: np.ndarray) -> Hypothesis:
        """One utterance, (T, V)."""
        return self(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]))[0]

    def decode_alone(self, log_probs: np.ndarray) -> Hypothesis:
        """One utterance, (T, V), by kaldi-decoder."""
        return super().decode(log_probs)

    def at(self, options: Any) -> "K2Search":
        """A search of the same graph with other options."""
        return K2Search(self.graph, options, priors=self.priors)

    @property
    def facts(self) -> dict:
        """What decides over the result, beside graph and log-probs."""
        return super().facts | {"engine": "k2"}

    def _search(self, log_probs: Tensor, lens: Tensor) -> list[Hypothesis | None]:
        """None for those without a complete path."""
        import k2

        found: list[Hypothesis | None] = [None] * len(lens)
        chosen = [n for n, length in enumerate(lens.tolist()) if length]
        if not chosen:
            return found
        options = self.options
        segments = torch.tensor([[n, 0, lens[n]] for n in chosen], dtype=torch.int32)
        lattices = k2.intersect_dense_pruned(
            self._graph_on(log_probs.device),
            k2.DenseFsaVec(self._scaled(log_probs, lens), segments),
            search_beam=options.beam,
            output_beam=options.lattice_beam or ONE_PATH,
            min_active_states=min(options.min_active, options.max_active),
            max_active_states=options.max_active,
        )
        if options.lattice_beam is None:
            lattices = k2.shortest_path(lattices, use_double_scores=True)
        for n, arcs in zip(chosen, utterances(lattices), strict=True):
            if len(arcs.table):
                found[n] = self.hypothesis(_path(arcs), True) if options.lattice_beam is None else self._best(arcs)
        return found

    def _best(self, arcs: "LatticeArcs") -> Hypothesis:
        final = np.full((arcs.states, 2), NEVER)
        final[arcs.final] = 0.0
        return self.of_lattice(Lattice.of_arcs(arcs.table, final), True)

    def _scaled(self, log_probs: Tensor, lens: Tensor) -> Tensor:
        """As GraphOptions.costs, where the log-probs are; padding is 0."""
        inside = (torch.arange(log_probs.size(1)) < lens[:, None]).to(log_probs.device)
        scaled = torch.where(inside[:, :, None], log_probs, 0.0)
        if self.priors is not None:
            scaled -= torch.from_numpy(self.priors).to(scaled)
        scaled[:, :, 0] -= self.options.blank_penalty
        scaled *= self.options.acoustic_scale
        require_costs(bool((scaled < torch.inf).all()))
        return scaled

    def _graph_on(self, device: torch.device) -> "k2.Fsa":
        if self.decoding_graph.device != device:
            self.decoding_graph = self.decoding_graph.to(device)
        return self.decoding_graph


def decoding_graph(fst: Any) -> "k2.Fsa":
    """A kaldifst graph as k2's: without epsilons, `aux_labels` the words of each arc, `graph_scores` its own score."""
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
    """k2's arcs (A, 4) and their words (A, 1), changed so that no word is on an epsilon: (B, 4) and (B, W), 0 is none.

    Such an arc becomes as many as leave the state that it leads to. k2.remove_epsilon alone would keep but the best of
    the words that lead from one state to another without a unit, as homophones do.
    """
    while (silent := (arcs[:, 2] == 0) & (words > 0).any(1)).any():
        degree = np.bincount(arcs[:, 0], minlength=arcs[:, :2].max() + 1)
        following = degree[arcs[silent, 1]]
        before = np.repeat(np.flatnonzero(silent), following)
        number = np.arange(len(before)) - np.repeat(following.cumsum() - following, following)
        behind = (degree.cumsum() - degree)[arcs[before, 1]] + number
        both = arcs[behind].copy()
        both[:, 0] = arcs[before, 0]
        both[:, 3] = (arcs[before, 3].view(np.float32) + arcs[behind, 3].view(np.float32)).view(np.int32)
        arcs = np.concatenate([arcs[~silent], both])
        words = np.concatenate(
            [np.pad(words[~silent], ((0, 0), (0, words.shape[1]))), np.hstack([words[before], words[behind]])]
        )
        order = np.argsort(arcs[:, 0], kind="stable")
        arcs, words = arcs[order], words[order]
    return arcs, words


class LatticeArcs(NamedTuple):
    """Arcs of an utterance as for `Lattice.of_arcs`, (A, 6) float64; the number of states, and which one is final."""

    table: np.ndarray
    states: int
    final: int


def utterances(lattices: "k2.Fsa") -> Iterator[LatticeArcs]:
    """Each of a vector of k2's lattices; no arcs where there is no path."""
    lattices = lattices.to("cpu")
    shape = lattices.arcs.shape()
    first_state = shape.row_splits(1).long()
    first_arc = shape.row_splits(2).long()[first_state].tolist()
    numbers = lattices.arcs.values()[:, :3].long().numpy()
    graph = lattices.graph_scores.double().numpy()
    acoustic = lattices.scores.double().numpy() - graph
    words = lattices.aux_labels
    begin, labels = words.shape.row_splits(1).numpy(), words.values.numpy()
    label = np.where(begin[1:] > begin[:-1], np.append(labels, 0)[begin[:-1]], 0)
    for n, states in enumerate(first_state.diff().tolist()):
        own = slice(first_arc[n], first_arc[n + 1])
        columns = *numbers[own, :2].T, numbers[own, 2] + 1, label[own], -graph[own], -acoustic[own]
        table = np.stack(columns, axis=1, dtype=np.float64)
        many = np.flatnonzero(np.diff(begin[own.start : own.stop + 1]) > 1)
        yield _unfold(table, many, [labels[begin[a] : begin[a + 1]] for a in many + own.start], states)


def _unfold(table: np.ndarray, arcs: np.ndarray, words: Sequence[np.ndarray], states: int) -> LatticeArcs:
    """`arcs` with several words each as that many arcs in a row, of which the first one reads the frame."""
    rows, final = [], states - 1
    parts, at = [], 0
    for arc, labels in zip(arcs.tolist(), words, strict=True):
        target = table[arc, 1]
        table[arc, 1] = states
        parts.append(table[at : arc + 1])
        rows = [(states + n, states + n + 1, 0, label, 0, 0) for n, label in enumerate(labels[1:])]
        states += len(rows)
        parts.append(np.array(rows, dtype=np.float64))
        parts[-1][-1, 1] = target
        at = arc + 1
    return LatticeArcs(np.concatenate([*parts, table[at:]]), states, final)


def _path(arcs: LatticeArcs) -> Path:
    """That of a lattice of one path, whose arcs are in order."""
    columns = arcs.table.T
    return Path(*columns[2:4].astype(np.int64).tolist(), *columns[4:].sum(1).tolist())
