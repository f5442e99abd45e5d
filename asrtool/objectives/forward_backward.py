"""Sums over all paths of a graph through log-probabilities, with exact gradients: forward-backward in log space.

A frame graph (`asrtool.graphs.training_graphs.FrameGraph`) has no epsilons; entering a state consumes a frame. With
alpha_0 = start and, for each frame t,

    alpha_t+1(s) = log_probs_t(label s) + log sum over arcs a into s of exp(alpha_t(source a) + weight a)

an utterance of T frames has the score log sum_s exp(alpha_T(s) + final(s)). Its gradient with respect to log_probs_t(v)
is the posterior of label v at frame t: the sum of exp(alpha_t+1(s) + beta_t+1(s) - score) over the states s of label v,
where beta is the same recursion from the right (Rabiner 1989, section III). Autograd's forward pass already computes
the posteriors, and keeps nothing else for the backward pass: alpha, frames x states, is freed at once.

scaled.py computes most batches, without logs. It also reports utterances for which its result is not exact; where a
batch has one, `log_space_sums` computes the whole batch by the recursion above.
"""

from typing import Any

import torch
from torch import Tensor

from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.scaled import PathSums, scaled_sums


def path_sum(log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leaky_weights: Tensor | None = None) -> Tensor:
    """The score of each utterance's graph, (N,) nats; -inf, and a gradient of 0, where no path has `lens` frames.

    log_probs (N, T, V) of the graphs' dtype; lens (N,) int64, at least 1. `leaky_weights` (S,), natural logs, is the
    leaky HMM of Povey et al. 2016, section 3.4, for a graph that all utterances share: a path may go from any state to
    state s with this weight before every frame except the first.
    """
    leaky_weights = None if leaky_weights is None else leaky_weights[:, None]  # (S, 1)
    return _PathSum.apply(log_probs, lens, graphs, leaky_weights)


class _PathSum(torch.autograd.Function):
    """`path_sum` with leaky_weights (S, 1); the forward pass saves the gradient, (N, T, V)."""

    @staticmethod
    def forward(
        context: Any, log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leaky_weights: Tensor | None
    ) -> Tensor:
        # (N, T, 1), added to the score at the end, so that the sums over paths stay small
        peaks = log_probs.amax(2, keepdim=True)
        emissions, state_row = graphs.emissions(log_probs - peaks)
        leaky_probs = None if leaky_weights is None else leaky_weights.double().exp()
        sums = scaled_sums(emissions, state_row, lens, graphs, leaky_probs)
        if not sums.is_exact.all():
            sums = log_space_sums(emissions, state_row, lens, graphs, leaky_weights)
        is_padding = torch.arange(len(emissions), device=lens.device) >= lens[:, None]  # (N, T)
        posteriors = graphs.emissions_to_batch(sums.posteriors, log_probs.shape).to(log_probs.dtype)  # (N, T, V)
        context.save_for_backward(posteriors.masked_fill(is_padding[:, :, None], 0.0))
        return (sums.score + peaks[:, :, 0].double().masked_fill(is_padding, 0.0).sum(1)).to(log_probs.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor):
        (posteriors,) = context.saved_tensors
        return posteriors * gradient[:, None, None], None, None, None


def log_space_sums(
    emissions: Tensor, state_row: Tensor, lens: Tensor, graphs: GraphBatch, leaky_weights: Tensor | None
) -> PathSums:
    """As `scaled_sums`, but in log space and always exact; `leaky_weights` (S, 1), natural logs."""
    num_columns = emissions.shape[2]
    shortest = int(lens.min())  # up to here no utterance has ended; after its end, alpha and beta of one do not change
    alpha = graphs.start.expand(-1, num_columns).contiguous()  # (S, C)
    alphas = []
    incoming = graphs.incoming.with_columns(num_columns)
    for time, frame in enumerate(emissions):
        previous = alpha
        if leaky_weights is not None and time:
            previous = torch.logaddexp(alpha, alpha.logsumexp(0, keepdim=True) + leaky_weights)
        following = incoming.logsumexp(previous).add_(frame[state_row])
        alpha = following if time < shortest else torch.where(graphs.per_state(lens > time), following, alpha)
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
        beta = previous if time < shortest else torch.where(graphs.per_state(lens > time), previous, beta)
    return PathSums(score=score, posteriors=posteriors, is_exact=torch.ones_like(score, dtype=torch.bool))
