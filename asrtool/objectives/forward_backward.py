"""Sums over all paths of a graph through log-probabilities, with exact gradients: forward-backward in log space.

A graph is states and arcs without epsilons (`asrtool.graphs.training_graphs.Arcs`); whoever enters a state reads a frame. With
alpha_0 = start and, for each frame t,

    alpha_t+1(s) = log_probs_t(label s) + log sum over arcs a into s of exp(alpha_t(source a) + weight a)

an utterance of T frames has the score log sum_s exp(alpha_T(s) + final(s)). Its gradient by log_probs_t(v) is the share
of all paths, by their probability, that read v at t: the sum of exp(alpha_t+1(s) + beta_t+1(s) - score) over the states
of label v, where beta is the same recursion from the right (Rabiner 1989, section III). Only alpha is kept, so that
memory is frames x states, and only till the gradient is there, which is found at once.

Most batches go by scaled.py, without logs; it also finds the few for which that would not be exact, and these go by
the recursion above. Utterances that share one graph are columns beside each other; utterances with a graph each are one
graph without arcs between its parts.
"""

import torch
from torch import Tensor

from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.scaled import Sums, scaled_sums


def path_sum(log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None = None) -> Tensor:
    """The score of each utterance's graph, (N,) nats; -inf, and no gradient, where no path has so many frames.

    log_probs (N, T, V) of the graphs' dtype; lens (N,) int64, at least 1. `leak` (S,), natural logs, lets a path go
    from any state to state s with this weight before every frame but the first (the leaky HMM of Povey et al. 2016,
    section 3.4), in a graph that all utterances share.
    """
    return _PathSum.apply(log_probs, lens, graphs, None if leak is None else leak[:, None])


class _PathSum(torch.autograd.Function):
    @staticmethod
    def forward(context, log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None) -> Tensor:
        peaks = log_probs.amax(2, keepdim=True)  # kept apart: sums over many frames stay small, and exact
        frames, lines = graphs.frames(log_probs - peaks)
        sums = scaled_sums(frames, lines, lens, graphs, None if leak is None else leak.double().exp())
        if not sums.exact.all():
            sums = log_sums(frames, lines, lens, graphs, leak)
        beyond = torch.arange(len(frames), device=lens.device) >= lens[:, None]
        shares = graphs.unframed(sums.shares, log_probs.shape).to(log_probs.dtype)
        context.save_for_backward(shares.masked_fill(beyond[:, :, None], 0.0))
        return (sums.total + peaks[:, :, 0].double().masked_fill(beyond, 0.0).sum(1)).to(log_probs.dtype)

    @staticmethod
    def backward(context, gradient: Tensor):
        (shares,) = context.saved_tensors
        return shares * gradient[:, None, None], None, None, None


def log_sums(frames: Tensor, lines: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None) -> Sums:
    """What `scaled_sums` finds, in log space; `leak` (S, 1), natural logs."""
    all_alive, columns = int(lens.min()), frames.shape[2]
    alpha = graphs.start.expand(-1, columns).contiguous()
    kept, entering = [], graphs.entering.beside(columns)
    for time, frame in enumerate(frames):
        before = alpha
        if leak is not None and time:
            before = torch.logaddexp(alpha, alpha.logsumexp(0, keepdim=True) + leak)
        after = entering.sums(before).add_(frame[lines])
        alpha = after if time < all_alive else torch.where(graphs.beside(lens > time), after, alpha)
        kept.append(alpha)
    total = graphs.total(alpha + graphs.final)
    least = graphs.beside(total.masked_fill(total == -torch.inf, torch.inf))  # no path: no share of any
    beta, leaving = graphs.final.expand(-1, columns), graphs.leaving.beside(columns)
    shares = torch.zeros_like(frames)
    for time in range(len(frames) - 1, -1, -1):
        shares[time].index_add_(0, lines, kept.pop().add_(beta).sub_(least).exp_())
        before = leaving.sums(beta + frames[time][lines])
        if leak is not None and time:
            before = torch.logaddexp(before, (before + leak).logsumexp(0, keepdim=True))
        beta = before if time < all_alive else torch.where(graphs.beside(lens > time), before, beta)
    return Sums(total, shares, torch.ones_like(total, dtype=torch.bool))


@torch.no_grad()
def best_path(log_probs: Tensor, lens: Tensor, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
    """The most likely path of each utterance: its score (N,) nats, and the state behind each frame (N, T).

    States are numbered as in the utterance's own graph, -1 behind its last frame and where no path has so many frames,
    whose score is -inf.
    """
    (frames, lines), columns = graphs.frames(log_probs), 1 if not graphs.shared else len(log_probs)
    entering, alpha, came = graphs.entering.beside(columns), graphs.start.expand(-1, columns).contiguous(), []
    for time, frame in enumerate(frames):
        best, source = entering.best(alpha)
        alive = graphs.beside(lens > time)
        stay = torch.arange(len(alpha), device=alpha.device)[:, None]
        came.append(torch.where(alive, source, stay))
        alpha = torch.where(alive, best + frame[lines], alpha)
    scores, state = graphs.best(alpha + graphs.final)
    path = []
    for time in range(len(frames) - 1, -1, -1):
        path.append(torch.where((lens > time) & scores.isfinite(), state - graphs.first, -1))
        state = came[time][state, torch.arange(columns, device=state.device) if graphs.shared else 0]
    return scores, torch.stack(path[::-1], 1)
