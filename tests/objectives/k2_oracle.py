"""Sums over the paths of training graphs by k2: an oracle for asrtool/objectives/forward_backward.py.

k2's FSAs read a symbol on every arc and end with an arc of label -1 to their one final state.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asrtool.decoding.k2_search import require_k2
from asrtool.graphs.training_graphs import FrameGraph

if TYPE_CHECKING:
    import k2

EXACT_BEAM = 60.0  # output beam: leaves out e^-60 of the best path; with k2's default of 10, gradients are off by 1e-2
MAX_STATES = 2**30  # of an intersection; where there are more, k2 silently makes the beam smaller


def path_sum(log_probs: Tensor, lens: Tensor, graphs: "k2.Fsa", beam: float = EXACT_BEAM) -> Tensor:
    """As `path_sum` of asrtool/objectives/forward_backward.py, without a leaky HMM; `graphs` come from `fsa_vector`.

    All paths except those that are `beam` nats worse than the best are in memory at once, frame by frame.
    """
    k2 = require_k2()
    order = lens.argsort(descending=True, stable=True).cpu()  # k2 wants the longest first
    segments = torch.stack([order, torch.zeros_like(order), lens.cpu()[order]], 1).int()
    dense = k2.DenseFsaVec(log_probs.float(), segments)
    if graphs.shape[0] == 1:
        chosen = torch.zeros(len(lens), dtype=torch.int32, device=log_probs.device)
    else:
        chosen = order.to(log_probs.device, torch.int32)
    paths = k2.intersect_dense(k2.index_fsa(graphs, chosen), dense, beam, max_states=MAX_STATES)
    total = paths.get_tot_scores(use_double_scores=True, log_semiring=True)
    return total[order.argsort().to(total.device)].to(log_probs.dtype)


def fsa_vector(graphs: FrameGraph | list[FrameGraph], device: torch.device | str = "cpu") -> "k2.Fsa":
    """Frame graphs as a k2 FsaVec: one graph for each utterance, or one for all."""
    k2 = require_k2()
    parts = [graphs] if isinstance(graphs, FrameGraph) else graphs
    return k2.create_fsa_vec([k2.arc_sort(_acceptor(part)) for part in parts]).to(device)


def _acceptor(graph: FrameGraph) -> "k2.Fsa":
    """A k2 FSA with one start state and one final state.

    State s of `graph` is state s + 1. State 0 has the arcs of all states where a path may start, and an arc to the
    final state, since k2 wants at least one arc; no path takes it, since every utterance has frames.
    """
    k2 = require_k2()
    count = graph.num_states
    start_weights = graph.start[graph.source]
    label = graph.label[graph.target]
    source = np.concatenate([np.zeros_like(graph.source), graph.source + 1, np.arange(count + 1)])
    target = np.concatenate([graph.target + 1, graph.target + 1, np.full(count + 1, count + 1)])
    labels = np.concatenate([label, label, np.full(count + 1, -1)])
    scores = np.concatenate([start_weights + graph.weight, graph.weight, [0.0], graph.final]).astype(np.float32)
    arcs = np.stack([source, target, labels, scores.view(np.int32)], 1).astype(np.int32)
    order = np.argsort(source, kind="stable")
    return k2.Fsa(torch.from_numpy(arcs[order][np.isfinite(scores[order])]))
