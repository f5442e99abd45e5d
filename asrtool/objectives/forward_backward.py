"""Sums over all paths of a graph through log-probabilities, with exact gradients: forward-backward in log space.

A frame graph (`asrtool.graphs.training_graphs.FrameGraph`) has no epsilons; entering a state consumes a frame. With
alpha_0 = start and, for each frame t,

    alpha_t+1(s) = log_probs_t(label s) + log sum over arcs a into s of exp(alpha_t(source a) + weight a)

an utterance of T frames has the score log sum_s exp(alpha_T(s) + final(s)). Its gradient with respect to log_probs_t(v)
is the posterior of label v at frame t: the sum of exp(alpha_t+1(s) + beta_t+1(s) - score) over the states s of label v,
where beta is the same recursion from the right (Rabiner 1989, section III). Autograd's forward pass already computes
the posteriors, and keeps nothing else for the backward pass: alpha, frames x states, is freed at once.

scaled.py computes most batches, without logs. It also reports utterances for which its result is not exact; where a
batch has one, `log_space_sums` computes the whole batch by the recursion above. To learn it, the host waits for the
device, once for all the graphs of a call of `path_sums`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrtool.device import to_device
from asrtool.objectives.cuda_graphs import CudaGraphs
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.scaled import PathSums, scaled_sums


class WeightedGraphs(NamedTuple):
    """Graphs whose paths are summed, and the weights of their leaky HMM."""

    graphs: GraphBatch
    # (S,) natural logs: the leaky HMM of Povey et al. 2016, section 3.4, for a graph that all utterances share: a path
    # may go from any state to state s with this weight before every frame except the first
    leaky_weights: Tensor | None = None


def path_sum(log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leaky_weights: Tensor | None = None) -> Tensor:
    """`path_sums` of one batch of graphs."""
    return path_sums(log_probs, lens, [WeightedGraphs(graphs, leaky_weights)])[0]


def path_sums(
    log_probs: Tensor, lens: Tensor, terms: Sequence[WeightedGraphs], cuda_graphs: CudaGraphs | None = None
) -> list[Tensor]:
    """The score of each utterance's graph for each of the `terms`, (N,) nats.

    It is -inf, with a gradient of 0, where no path has `lens` frames. log_probs (N, T, V) of the graphs' dtype; lens
    (N,) int64, at least 1, on the host. `cuda_graphs` is for log_probs on a GPU.
    """
    run = cuda_graphs.scaled_sums if cuda_graphs else scaled_sums
    with torch.no_grad():
        # (N, T, 1), added to the score at the end, so that the sums over paths stay small
        peaks = log_probs.amax(2, keepdim=True)
        is_padding = to_device(torch.arange(log_probs.shape[1]) >= lens[:, None], log_probs.device)  # (N, T)
        peak_sums = peaks[:, :, 0].double().masked_fill(is_padding, 0.0).sum(1)  # (N,)
        sums = []
        for graphs, leaky_weights in terms:
            emissions, state_row = graphs.emissions(log_probs - peaks)
            leaky_probs = None if leaky_weights is None else leaky_weights.double().exp()[:, None]  # (S, 1)
            sums.append(run(emissions, state_row, lens, graphs, leaky_probs))
        are_exact = torch.stack([one.is_exact.all() for one in sums]).tolist()
        scores = []
        for term, one, is_exact in zip(terms, sums, are_exact, strict=True):
            if not is_exact:
                one = _log_space_sums(log_probs - peaks, lens, term)
            posteriors = term.graphs.emissions_to_batch(one.posteriors, log_probs.shape).to(log_probs.dtype)
            posteriors = posteriors.masked_fill(is_padding[:, :, None], 0.0)  # (N, T, V)
            scores.append(((one.score + peak_sums).to(log_probs.dtype), posteriors))
    return [_PathSum.apply(log_probs, score, posteriors) for score, posteriors in scores]


class _PathSum(torch.autograd.Function):
    """A score (N,) with its gradient by log_probs, the posteriors (N, T, V)."""

    @staticmethod
    def forward(context: Any, log_probs: Tensor, score: Tensor, posteriors: Tensor) -> Tensor:
        context.save_for_backward(posteriors)
        return score

    @staticmethod
    def backward(context: Any, gradient: Tensor):
        (posteriors,) = context.saved_tensors
        return posteriors * gradient[:, None, None], None, None


def _log_space_sums(log_probs: Tensor, lens: Tensor, term: WeightedGraphs) -> PathSums:
    emissions, state_row = term.graphs.emissions(log_probs)
    leaky_weights = None if term.leaky_weights is None else term.leaky_weights[:, None]  # (S, 1)
    return log_space_sums(emissions, state_row, lens, term.graphs, leaky_weights)


def log_space_sums(
    emissions: Tensor, state_row: Tensor, lens: Tensor, graphs: GraphBatch, leaky_weights: Tensor | None
) -> PathSums:
    """As `scaled_sums`, but in log space and always exact; `leaky_weights` (S, 1), natural logs."""
    num_columns = emissions.shape[2]
    device_lens = to_device(lens, emissions.device)
    shortest = int(lens.min())  # up to here no utterance has ended; after its end, alpha and beta of one do not change
    alpha = graphs.start.expand(-1, num_columns).contiguous()  # (S, C)
    alphas = []
    incoming = graphs.incoming.with_columns(num_columns)
    for time, frame in enumerate(emissions):
        previous = alpha
        if leaky_weights is not None and time:
            previous = torch.logaddexp(alpha, alpha.logsumexp(0, keepdim=True) + leaky_weights)
        following = incoming.logsumexp(previous).add_(frame[state_row])
        alpha = following if time < shortest else torch.where(graphs.per_state(device_lens > time), following, alpha)
        alphas.append(alpha)
    score = graphs.logsumexp_states(alpha + graphs.final)
    norm = graphs.per_state(score.masked_fill(score == -torch.inf, torch.inf))  # no path: all posteriors are 0
    beta = graphs.final.expand(-1, num_columns)
    posteriors = torch.zeros_like(emissions)
    outgoing = graphs.outgoing.with_columns(num_columns)
    for time in range(len(emissions) - 1, -1, -1):
        posteriors[time].index_add_(0, state_row, alphas.pop().add_(beta).sub_(norm).exp_())
        previous = outgoing.logsumexp(beta + emissions[time][state_row])
        if leaky_weights is not None and time:
            previous = torch.logaddexp(previous, (previous + leaky_weights).logsumexp(0, keepdim=True))
        beta = previous if time < shortest else torch.where(graphs.per_state(device_lens > time), previous, beta)
    return PathSums(score=score, posteriors=posteriors, is_exact=torch.ones_like(score, dtype=torch.bool))
