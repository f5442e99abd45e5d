"""The most likely path through a frame graph (Viterbi), and forced CTC alignment of a known token sequence.

One utterance at a time, in numpy: a frame of a small graph takes about 5 microseconds; launching the same
operations in torch takes 20 times as long.
"""

import numpy as np
from torch import Tensor

from asrtool.graphs.training_graphs import FrameGraph, ctc_graph


def viterbi(log_probs: np.ndarray, graph: FrameGraph) -> tuple[float, np.ndarray]:
    """The most likely path of one utterance: its score in nats, and the state entered at each frame, (T,) int64.

    log_probs (T, V). Scores are added up in the dtype of `log_probs`. The score is -inf, and the states mean nothing,
    where no path of the graph has T frames. Of equally likely arcs into a state, the first one in `graph` wins.
    """
    sources, weights = _incoming_arcs(graph, log_probs.dtype)
    scores = np.empty((len(log_probs) + 1, graph.num_states), log_probs.dtype)  # of the best path into each state
    scores[0] = graph.start
    candidates = np.empty_like(weights)  # (W, S)
    for time, frame in enumerate(log_probs):
        scores[time].take(sources, out=candidates, mode="clip")
        candidates += weights
        np.add(candidates.max(axis=0), frame.take(graph.label), out=scores[time + 1])
    final_scores = scores[-1] + graph.final.astype(log_probs.dtype)
    state = int(final_scores.argmax())
    sources_of_state = list(sources.T.copy())  # S arrays (W,)
    weights_of_state = list(weights.T.copy())
    path = np.empty(len(log_probs), np.int64)
    for time in range(len(log_probs) - 1, -1, -1):
        path[time] = state
        predecessors = sources_of_state[state]
        best = (scores[time].take(predecessors) + weights_of_state[state]).argmax()
        state = predecessors.item(best)
    return float(final_scores.max()), path


def _incoming_arcs(graph: FrameGraph, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Sources and weights (W, S) of the arcs into each state, in their order; padded with weight -inf."""
    degree = np.bincount(graph.target, minlength=graph.num_states)
    order = np.argsort(graph.target, kind="stable")
    first = degree.cumsum() - degree  # (S,) place in `order` of each state's first arc
    rank = np.arange(len(order)) - np.repeat(first, degree)  # (A,) of each arc among those into its state
    sources = np.zeros((degree.max(), graph.num_states), np.int64)
    weights = np.full(sources.shape, -np.inf, dtype)
    sources[rank, graph.target[order]] = graph.source[order]
    weights[rank, graph.target[order]] = graph.weight[order]
    return sources, weights


def align_tokens(log_probs: Tensor, tokens: list[int], blank: int = 0) -> list[int]:
    """The frame where each token begins on the best CTC path of `tokens`: len(tokens) strictly increasing indices.

    log_probs (T, V) on the CPU. Raises ValueError when no path of T frames yields `tokens`.
    """
    if not tokens:
        return []
    score, path = viterbi(log_probs.detach().double().numpy(), ctc_graph(tokens, blank))
    if not score > -np.inf:  # NaN is refused, too
        raise ValueError(f"{len(tokens)} tokens have no CTC path through {len(log_probs)} frames")
    enters_state = np.diff(path, prepend=0) != 0
    is_token = path % 2 == 1  # see `ctc_graph`
    return np.flatnonzero(enters_state & is_token).tolist()
