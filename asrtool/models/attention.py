"""Self-attention over the whole utterance, a sliding window, or chunks with memory."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from asrtool.models.caches import Caches
from asrtool.models.dropout import dropout as drop
from asrtool.models.masks import sliding_mask, valid_frames, windows


class AttentionContext(NamedTuple):
    """The frames that a frame sees: `left` before it and `right` after it; or, with `chunk`, `left` before its chunk,
    and its chunk.

    None means no limit. Chunks are counted from the start of the utterance. With `chunk`, `left` is the key
    model.memory of the configuration.
    """

    left: int | None = None
    right: int | None = None
    chunk: int | None = None

    @property
    def delay(self) -> int | None:
        """Frames after the current one or its chunk that a stream waits for; None: the rest of the utterance."""
        return 0 if self.chunk else self.right

    @property
    def can_stream(self) -> bool:
        """Whether there is a bound to what a stream waits for and keeps."""
        return self.left is not None and self.delay is not None

    @property
    def cache_size(self) -> int:
        """Frames that a stream keeps from earlier steps."""
        assert self.left is not None and self.delay is not None
        return self.left + self.delay


class RelativePositions(nn.Module):
    """The position terms of Transformer-XL's score (arXiv 1901.02860, section 3.3):

        score(i, j) = [(q_i + u) . k_j  +  (q_i + v) . (W_r R_(i-j))] / sqrt(d_head)

    with u and v learned for each head, R sinusoidal and W_r without bias. i - j is negative where j is in the future.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.projection = nn.Linear(dim, dim, bias=False)  # W_r
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))  # u
        self.position_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))  # v
        # R of the last call, and its key: the steps of a stream all have the same distances
        self._cached_key: tuple[int, int, torch.device] | None = None
        self._cached_encodings = torch.empty(0)

    def forward(self, q: Tensor, keys: int, offset: int) -> Tensor:
        """The position terms (..., H, Q, keys) of queries (..., H, Q, D/H); the caller adds the content terms.

        Query i is at the position of key i + offset.
        """
        queries, head_dim = q.shape[-2:]
        r = self._encodings(queries - 1 + offset, offset - keys - 1, q.device)  # (Q + keys, D)
        r = self.projection(r.to(q.dtype))
        r = r.unflatten(-1, (-1, head_dim)).transpose(0, 1)  # (Q + keys, H, D/H) to (H, Q + keys, D/H)
        scores = (q + self.position_bias) @ r.transpose(-1, -2)  # (..., H, Q, Q + keys)
        return relative_shift(scores, keys) / math.sqrt(head_dim)

    def _encodings(self, first: int, end: int, device: torch.device) -> Tensor:
        """R of the distances first, first - 1, ..., end + 1.

        These are all i - j of the queries and keys, the largest first, and one more for `relative_shift`.
        """
        dim = self.projection.in_features
        if torch.compiler.is_exporting():  # distances are symbols then, which cannot be compared
            return sinusoids(torch.arange(first, end, -1, device=device), dim)
        key = (first, end, device)
        if self._cached_key != key:
            self._cached_encodings = sinusoids(torch.arange(first, end, -1, device=device), dim)
            self._cached_key = key
        return self._cached_encodings


def relative_shift(x: Tensor, keys: int) -> Tensor:
    """Scores (..., Q, Q + keys) by distance, the largest first, to scores (..., Q, keys) by key.

    The scores of query i begin in column Q - 1 - i. With Q 2, keys 3:

        . a b c .  ->  a b c
        d e f . .      d e f

    In the flattened rows, the scores of query i + 1 begin Q + keys - 1 places after those of query i: dropping the
    first Q - 1 places and cutting the rest into rows of that length puts them below each other.
    """
    queries, distances = x.shape[-2:]
    x = x.flatten(-2)  # (..., Q * (Q + keys))
    x = x[..., queries - 1 : queries - 1 + queries * (distances - 1)]
    return x.unflatten(-1, (queries, distances - 1))[..., :keys]  # (..., Q, Q + keys - 1) to (..., Q, keys)


class SelfAttention(nn.Module):
    """Multi-head self-attention within an `AttentionContext`; None is the whole utterance.

    In the shapes below, M is the number of chunks and W = left + chunk is a window: what the frames of a chunk see.
    `relative` adds RelativePositions. `dropout` of the attention weights triples the layer's time on a CPU in fp32.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        context: AttentionContext | None = None,
        relative: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.heads = heads
        self.context = context or AttentionContext()
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.relative = RelativePositions(dim, heads) if relative else None

    def forward(self, x: Tensor, padding_mask: Tensor | list[int], memory: Tensor | None = None) -> Tensor:
        """x (N, T, D), padding_mask (N, T) bool, False at padding; returns (N, T, D).

        With chunks, T is a multiple of the chunk. `memory` (N, T, D) replaces `x` where a frame is seen from later
        chunks: Transformer-XL's memory has the same numbers as x, but no gradient.

        Without chunks, x may also be packed, without padding: x (sum of lengths, D), with the list of lengths instead
        of padding_mask; returns (sum of lengths, D).
        """
        dim = x.shape[-1]
        qkv = self.qkv(x)  # (N, T, 3D)
        q = qkv[..., :dim]
        kv = qkv[..., dim:]
        if isinstance(padding_mask, list):
            return self.out(self._attend_packed(q, kv, padding_mask))
        if self.context.chunk:
            return self.out(self._attend_whole_utterances_in_chunks(q, kv, padding_mask, memory))
        mask = padding_mask[:, None, :]  # (N, 1, T)
        window = self._window(q)
        if window is not None:
            mask = window & mask  # (N, T, T)
        return self.out(self._attend(q, kv, unmask_empty_rows(mask), 0))

    def initial_state(self, batch: int) -> list[Tensor]:
        """Zeros for keys and values of the cached frames, and for queries where these wait for later frames."""
        parts = 3 if self.context.delay else 2
        return [self.qkv.weight.new_zeros(batch, self.context.cache_size, parts * self.out.in_features)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """x (N, n, D) begins at frame `first` (N,) of utterances of `lens` (N,) frames; returns (N, n, D).

        The output begins `context.delay` frames earlier than x.
        """
        size, dim = x.shape[1:]
        left = self.context.left
        assert left is not None
        qkv = self.qkv(x)  # (N, n, 3D)
        if self.context.delay:
            qkv = caches.extend(qkv)  # (N, left + delay + n, 3D)
            q = qkv[:, left:][:, :size, :dim]  # (N, n, D)
            kv = qkv[..., dim:]  # (N, left + delay + n, 2D)
        else:
            q = qkv[..., :dim]
            kv = caches.extend(qkv[..., dim:])  # (N, left + n, 2D)
        keys = kv.shape[1]
        first_key = first - self.context.cache_size
        if self.context.chunk:
            # All layers have the same mask of chunks (N * M, 1, W).
            mask = caches.compute_once(self.context, lambda: self._chunk_mask(valid_frames(first_key, keys, lens)))
            return self.out(self._attend_in_chunks(q, kv, mask))
        # Layers of the same context have the same window (1, n, left + delay + n), but wait for different frames.
        window = caches.compute_once(
            self.context, lambda: sliding_mask(size, keys, left, left, self.context.right, q.device)[None]
        )
        mask = unmask_empty_rows(window & valid_frames(first_key, keys, lens)[:, None, :])  # (N, n, left + delay + n)
        return self.out(self._attend(q, kv, mask, left))

    def _window(self, q: Tensor) -> Tensor | None:
        """The sliding mask (1, T, T) of whole utterances, q (N, T, D); None where everything is seen."""
        if self.context.left is None and self.context.right is None:
            return None
        size = q.shape[1]
        return sliding_mask(size, size, 0, self.context.left, self.context.right, q.device)[None]

    def _chunk_mask(self, padding_mask: Tensor) -> Tensor:
        """The mask of each chunk's window, (N * M, 1, W), from padding_mask (N, left + M * chunk)."""
        left, chunk = self._chunk_sizes()
        mask = windows(padding_mask[:, :, None], chunk, left)  # (N, M, W, 1)
        return unmask_empty_rows(mask.flatten(0, 1).transpose(1, 2))

    def _chunk_sizes(self) -> tuple[int, int]:
        assert self.context.left is not None and self.context.chunk is not None  # the configuration requires both
        return self.context.left, self.context.chunk

    def _attend_packed(self, q: Tensor, kv: Tensor, lens: list[int]) -> Tensor:
        """q (sum of lens, D), kv (sum of lens, 2D), one utterance after the other; returns (sum of lens, D)."""
        utterances = zip(q[None].split(lens, 1), kv[None].split(lens, 1), strict=True)  # (1, T, D), (1, T, 2D)
        return torch.cat([self._attend(q, kv, self._window(q), 0)[0] for q, kv in utterances])

    def _attend_whole_utterances_in_chunks(
        self, q: Tensor, kv: Tensor, padding_mask: Tensor, memory: Tensor | None
    ) -> Tensor:
        """q (N, T, D), kv (N, T, 2D), padding_mask (N, T), memory (N, T, D); returns (N, T, D)."""
        left, _ = self._chunk_sizes()
        dim = q.shape[-1]
        past_kv = None
        if memory is not None:
            past_kv = linear(memory, self.qkv.weight[dim:], self.qkv.bias[dim:])  # (N, T, 2D)
            past_kv = pad(past_kv, (0, 0, left, 0))  # (N, left + T, 2D)
        mask = self._chunk_mask(pad(padding_mask, (left, 0)))
        return self._attend_in_chunks(q, pad(kv, (0, 0, left, 0)), mask, past_kv)

    def _attend_in_chunks(self, q: Tensor, kv: Tensor, mask: Tensor, past_kv: Tensor | None = None) -> Tensor:
        """All chunks at once, as a batch of windows: q (N, M * chunk, D), kv (N, left + M * chunk, 2D), mask (N * M, 1,
        W); returns (N, M * chunk, D).

        past_kv, like kv, replaces kv for the frames before each chunk.
        """
        left, chunk = self._chunk_sizes()
        if past_kv is None and q.shape[1] == chunk:
            return self._attend(q, kv, mask, left)  # a single chunk, which kv is the window of
        if past_kv is None or not left:
            window = windows(kv, chunk, left)  # (N, M, W, 2D)
        else:
            past = past_kv[:, :-chunk].unfold(1, left, chunk).transpose(2, 3)  # (N, M, left, 2D)
            own = kv[:, left:].unflatten(1, (-1, chunk))  # (N, M, chunk, 2D)
            window = torch.cat([past, own], dim=2)
        q_chunks = q.unflatten(1, (-1, chunk)).flatten(0, 1)  # (N * M, chunk, D)
        y = self._attend(q_chunks, window.flatten(0, 1), mask, left)  # (N * M, chunk, D)
        return y.unflatten(0, (q.shape[0], -1)).flatten(1, 2)  # (N, M * chunk, D); a trace takes len(q) for a constant

    def _attend(self, q: Tensor, kv: Tensor, mask: Tensor | None, offset: int) -> Tensor:
        """q (N, Q, D), kv (N, K, 2D), mask (N or 1, 1 or Q, K) or None to see everything; returns (N, Q, D).

        Query i is at the position of key i + offset.
        """
        k, v = kv.chunk(2, -1)  # (N, K, D) each
        q = self._split_heads(q)  # (N, H, Q, D/H)
        k = self._split_heads(k)  # (N, H, K, D/H)
        v = self._split_heads(v)
        if mask is not None:
            mask = mask[:, None]  # (N or 1, 1, 1 or Q, K)
        if self.relative is not None:  # the mask of torch's function may be numbers that it adds to the scores
            position_scores = self.relative(q, k.shape[2], offset)  # (N, H, Q, K)
            mask = position_scores if mask is None else torch.where(mask, position_scores, -math.inf)
            q = q + self.relative.content_bias
        y = dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)  # (N, H, Q, D/H)
        return y.transpose(1, 2).flatten(2)  # (N, Q, H, D/H) to (N, Q, D)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, T, D) to (N, T, H, D/H) to (N, H, T, D/H)


def dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Scaled dot-product attention; q (N, H, Q, d), k and v (N, H, K, d), mask as torch's takes it, or None.

    bf16 training on a CPU does it in single operations: the backward pass of torch's own function takes longer than the
    rest of a layer's attention. Its scores are rounded to bf16, like other products.
    """
    if not (torch.is_grad_enabled() and k.dtype == torch.bfloat16 and k.device.type == "cpu"):
        return scaled_dot_product_attention(q, k, v, mask, dropout)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)  # (N, H, Q, K)
    if mask is not None:
        mask = mask if mask.is_floating_point() else torch.where(mask, 0.0, -math.inf)
        scores += mask.to(scores.dtype)  # adding numbers of another type takes as long as a quarter of the layer
    return drop(scores.softmax(-1), dropout) @ v


def unmask_empty_rows(mask: Tensor) -> Tensor:
    """Unmasks every key for queries that would attend to none (padding rows); mask (..., Q, K) bool.

    Softmax over an empty set is NaN in some attention kernels. The outputs of these queries are ignored.
    """
    return mask | ~mask.any(-1, keepdim=True)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """(..., dim) encodings of positions (...), sines before cosines (arXiv 1706.03762, section 3.5)."""
    dtype = torch.float64 if positions.dtype == torch.float64 else torch.float32
    rates = torch.exp(torch.arange(0, dim, 2, device=positions.device, dtype=dtype) * (-math.log(10000.0) / dim))
    angles = positions[..., None] * rates  # (..., dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :dim]
