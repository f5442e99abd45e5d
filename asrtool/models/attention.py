"""Self-attention over the whole utterance, a sliding window, or chunks with memory."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from asrtool.models.caches import Caches
from asrtool.models.dropout import dropout as drop
from asrtool.models.masks import sliding_mask, valid, windows


class Context(NamedTuple):
    """What a frame sees: `left` frames before it and `right` after it; or, with `chunk`, `left` before its chunk.

    None is no limit. A chunk counts from the start of the utterance, and is seen whole from all its frames.
    """

    left: int | None = None
    right: int | None = None
    chunk: int | None = None

    @property
    def delay(self) -> int:
        """Frames that a stream waits for beyond the chunk."""
        return 0 if self.chunk else self.right

    @property
    def kept(self) -> int:
        """Earlier frames that a stream remembers."""
        return self.left + self.delay


class RelativePositions(nn.Module):
    """The position terms of Transformer-XL's score (arXiv 1901.02860, section 3.3):

        score(i, j) = [(q_i + u) . k_j  +  (q_i + v) . (W_r R_(i-j))] / sqrt(d_head)

    with u and v learned per head, R sinusoidal and W_r without bias. i - j is negative where j is in the future.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.projection = nn.Linear(dim, dim, bias=False)  # W_r
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))  # u
        self.position_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))  # v
        self._table: tuple = (None, None)  # distances and their R of the last call: a stream's steps are all alike

    def forward(self, q: Tensor, keys: int, offset: int) -> Tensor:
        """(..., H, Q, D/H) queries, query i standing at key i + offset; returns the second term, (..., H, Q, keys)."""
        size = q.shape[-1]
        r = self.projection(self._sinusoids(q.shape[-2] - 1 + offset, offset - keys - 1, q.device).to(q.dtype))
        r = r.unflatten(-1, (-1, size)).transpose(0, 1)  # (H, Q + keys, D/H)
        return relative_shift((q + self.position_bias) @ r.transpose(-1, -2), keys) / math.sqrt(size)

    def _sinusoids(self, first: int, end: int, device: torch.device) -> Tensor:
        """R of the distances i - j, the largest first, and of one more."""
        key, dim = (first, end, device), self.projection.in_features
        if torch.compiler.is_exporting():  # which knows the distances by name alone
            return sinusoids(torch.arange(first, end, -1, device=device), dim)
        if self._table[0] != key:
            self._table = key, sinusoids(torch.arange(first, end, -1, device=device), dim)
        return self._table[1]


def relative_shift(x: Tensor, keys: int) -> Tensor:
    """(..., Q, Q + keys) by distance, the largest first, to (..., Q, keys) by key: row i starts at Q - 1 - i.

    Q 2, keys 3:   . a b c .      a b c         A slice and a view of the rows laid end to end: row i + 1 starts one
                   d e f . .  ->  d e f         place to the left of row i.
    """
    queries, distances = x.shape[-2:]
    x = x.flatten(-2)[..., queries - 1 : queries - 1 + queries * (distances - 1)]
    return x.unflatten(-1, (queries, distances - 1))[..., :keys]


class SelfAttention(nn.Module):
    """Multi-head self-attention. Dropout of the attention weights triples the time of the layer on a CPU in fp32."""

    def __init__(self, dim: int, heads: int, context: Context = Context(), relative=False, dropout=0.0):  # noqa: B008
        super().__init__()
        self.heads, self.context, self.dropout = heads, context, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.relative = RelativePositions(dim, heads) if relative else None

    def forward(self, x: Tensor, keep: Tensor | list[int], memory: Tensor | None = None) -> Tensor:
        """(N, T, D); `keep` (N, T) bool, true where there is data; T a multiple of the chunk, if there is one.

        `memory` (N, T, D) stands in for `x` where a frame is seen from later chunks: Transformer-XL's has the same
        numbers, but no gradient. Without chunks also (sum of lengths, D) and the list of lengths, without padding.
        """
        dim, qkv = x.shape[-1], self.qkv(x)
        q, kv = qkv[..., :dim], qkv[..., dim:]
        if isinstance(keep, list):
            utterances = zip(q[None].split(keep, 1), kv[None].split(keep, 1), strict=True)
            return self.out(torch.cat([self._attend(*one, self._window(one[0]), 0)[0] for one in utterances]))
        if not self.context.chunk:
            window, keep = self._window(q), keep[:, None, :]
            return self.out(self._attend(q, kv, bearable(keep if window is None else window & keep), 0))
        left = self.context.left
        past = None if memory is None else linear(memory, self.qkv.weight[dim:], self.qkv.bias[dim:])
        past = None if past is None else pad(past, (0, 0, left, 0))
        mask = self._chunk_mask(pad(keep, (left, 0)))
        return self.out(self._in_chunks(q, pad(kv, (0, 0, left, 0)), mask, past))

    def initial_state(self, batch: int) -> list[Tensor]:
        """Keys and values of the frames that are kept; their queries too where these wait for later frames."""
        parts = 3 if self.context.delay else 2
        return [self.qkv.weight.new_zeros(batch, self.context.kept, parts * self.out.in_features)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D), frames `first` (N,) and on of `lens` (N,); returns those `context.delay` earlier."""
        dim, size, qkv = x.shape[2], x.shape[1], self.qkv(x)
        if self.context.delay:
            qkv = caches.extend(qkv)
            q, kv = qkv[:, self.context.left :][:, :size, :dim], qkv[..., dim:]
        else:
            q, kv = qkv[..., :dim], caches.extend(qkv[..., dim:])
        keep = functools.partial(valid, first - self.context.kept, kv.shape[1], lens)
        if self.context.chunk:
            mask = caches.shared(self.context, lambda: self._chunk_mask(keep()))
            return self.out(self._in_chunks(q, kv, mask))
        window = caches.shared(self.context, lambda: self._window(q, kv.shape[1], self.context.left))
        return self.out(self._attend(q, kv, bearable(window & keep()[:, None, :]), self.context.left))

    def _window(self, q: Tensor, keys: int | None = None, offset: int = 0) -> Tensor | None:
        """(1, Q, keys), by default as many as queries; None where everything is seen."""
        if self.context.left is None and self.context.right is None:
            return None
        sizes = q.shape[1], keys or q.shape[1]
        return sliding_mask(*sizes, offset, self.context.left, self.context.right, q.device)[None]

    def _chunk_mask(self, keep: Tensor) -> Tensor:
        """keep (N, left + M * chunk); returns (N * M, 1, left + chunk)."""
        return bearable(windows(keep[:, :, None], self.context.chunk, self.context.left).flatten(0, 1).transpose(1, 2))

    def _in_chunks(self, q: Tensor, kv: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """All chunks at once, as a batch of windows; one alone is its own window."""
        left, chunk = self.context.left, self.context.chunk
        if memory is None and q.shape[1] == chunk:
            return self._attend(q, kv, mask, left)
        if memory is None or not left:
            seen = windows(kv, chunk, left)
        else:
            past = memory[:, :-chunk].unfold(1, left, chunk).transpose(2, 3)
            seen = torch.cat([past, kv[:, left:].unflatten(1, (-1, chunk))], dim=2)
        y = self._attend(q.unflatten(1, (-1, chunk)).flatten(0, 1), seen.flatten(0, 1), mask, left)
        return y.unflatten(0, (q.shape[0], -1)).flatten(1, 2)  # not len(q): a trace would take it for a number

    def _attend(self, q: Tensor, kv: Tensor, mask: Tensor | None, offset: int) -> Tensor:
        """q (N, Q, D), kv (N, W, 2D), mask (N or 1, 1 or Q, W) or None for all; query i stands at key i + offset."""
        mask = None if mask is None else mask[:, None]
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, *kv.chunk(2, -1)))
        if self.relative:
            scores = self.relative(q, k.shape[2], offset)
            mask = scores if mask is None else torch.where(mask, scores, -math.inf)
            q = q + self.relative.content_bias
        dropout = self.dropout if self.training else 0.0
        return weighted_means(q, k, v, mask, dropout).transpose(1, 2).flatten(2)


def weighted_means(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Scaled dot-product attention; q (N, H, Q, d), k and v (N, H, W, d), mask as torch's takes it, or None for all.

    Where bf16 numbers are trained on a CPU it is spelt out, since the backward pass of torch's own takes longer than
    all the rest of a layer's attention. Its scores are rounded to bf16, as those of other products are.
    """
    if not (torch.is_grad_enabled() and k.dtype == torch.bfloat16 and k.device.type == "cpu"):
        return scaled_dot_product_attention(q, k, v, mask, dropout)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    if mask is not None:
        mask = mask if mask.is_floating_point() else torch.where(mask, 0.0, -math.inf)
        scores += mask.to(scores.dtype)  # adding numbers of another type takes as long as a quarter of the layer
    return drop(scores.softmax(-1), dropout) @ v


def bearable(mask: Tensor) -> Tensor:
    """A mask whose rows that see nothing, which are padding, see all: not every kernel bears a softmax of nothing."""
    return mask | ~mask.any(-1, keepdim=True)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """(..., dim) encodings of positions (...), sines before cosines (arXiv 1706.03762, section 3.5)."""
    kind = torch.float64 if positions.dtype == torch.float64 else torch.float32
    rates = torch.exp(torch.arange(0, dim, 2, device=positions.device, dtype=kind) * (-math.log(10000.0) / dim))
    angles = positions[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :dim]
