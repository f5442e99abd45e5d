"""Self-attention over the whole utterance, a sliding window, or chunks with memory."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asrtool.models.caches import Caches
from asrtool.models.dot_product import dot_product_attention, unmask_empty_rows
from asrtool.models.masks import (
    StepFrames,
    additive_mask,
    band_mask,
    packed_chunk_mask,
    sliding_mask,
    utterance_numbers,
    window_parts,
    windows,
)
from asrtool.models.memory_projection import project_with_memory
from asrtool.models.relative_positions import RelativePositions

BAND_BLOCK = 64  # queries of a block where the mask is a band: products are slower with fewer, and useless with more


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
    def band_keys(self) -> float:
        """The keys that a block of BAND_BLOCK queries sees; infinite where the mask is not a band."""
        if self.chunk or self.left is None or self.right is None:
            return math.inf
        return self.left + BAND_BLOCK + self.right

    @property
    def cache_size(self) -> int:
        """Frames that a stream keeps from earlier steps."""
        assert self.left is not None and self.delay is not None
        return self.left + self.delay


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

        x may also be packed, with the list of lengths instead of padding_mask: x (sum of lengths, D), where each
        utterance is padded to whole chunks if there are chunks; returns the same shape.
        """
        past_kv = None
        if memory is None:
            q, kv = self.qkv(x).split([x.shape[-1], 2 * x.shape[-1]], -1)  # (N, T, D), (N, T, 2D)
        else:
            q, kv, past_kv = project_with_memory(self.qkv, x, memory)
        if isinstance(padding_mask, list):
            return self.out(self._attend_packed(q, kv, padding_mask, past_kv))
        if self.context.chunk:
            return self.out(self._attend_whole_utterances_in_chunks(q, kv, padding_mask, past_kv))
        if not torch.compiler.is_exporting() and self._band_has_fewer_scores([q.shape[1]]):
            numbers = torch.arange(len(q), device=q.device)[:, None]
            utterances = torch.where(padding_mask, numbers, -1)  # (N, T)
            y = self._attend_in_band(q.flatten(0, 1), kv.flatten(0, 1), utterances.flatten())
            return self.out(y.view_as(q))
        mask = padding_mask[:, None, :]  # (N, 1, T)
        window = self._window(q)
        if window is not None:
            mask = window & mask  # (N, T, T)
        return self.out(self._attend(q, kv, unmask_empty_rows(mask), 0))

    def initial_state(self, batch: int) -> list[Tensor]:
        """Zeros for keys and values of the cached frames, and for queries where these wait for later frames."""
        parts = 3 if self.context.delay else 2
        return [self.qkv.weight.new_zeros(batch, self.context.cache_size, parts * self.out.in_features)]

    def step(self, x: Tensor, behind: int, frames: StepFrames, caches: Caches) -> Tensor:
        """x (N, n, D), `behind` frames earlier than `frames`; returns (N, n, D), `context.delay` earlier than x."""
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
        key = (self.context, behind)  # layers that have it in common have the same mask
        mask = caches.compute_once(key, lambda: self._step_mask(size, behind, frames, caches, q.dtype))
        if self.context.chunk:
            return self.out(self._attend_in_chunks(q, kv, mask, is_step=True))
        return self.out(self._attend(q, kv, mask, left, is_step=True))

    def _step_mask(self, size: int, behind: int, frames: StepFrames, caches: Caches, dtype: torch.dtype) -> Tensor:
        """What `step` adds to the scores: (N * M, 1, W) with chunks, (N, n, left + delay + n) for a sliding window."""
        valid = caches.compute_once(dtype, lambda: additive_mask(frames.valid, dtype))  # (N, frames)
        keys = self.context.cache_size + size
        end = valid.shape[1] - behind
        valid = valid[:, end - keys : end]  # (N, keys)
        left = self.context.left
        assert left is not None
        if self.context.chunk:
            return windows(valid[:, :, None], self.context.chunk, left).flatten(0, 1).transpose(1, 2)
        # Layers of the same context have the same window, but wait for different frames.
        window = caches.compute_once(
            self.context,
            lambda: additive_mask(sliding_mask(size, keys, left, left, self.context.right, valid.device), dtype),
        )
        return window + valid[:, None, :]

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

    def _attend_packed(self, q: Tensor, kv: Tensor, lens: list[int], past_kv: Tensor | None) -> Tensor:
        """q (T, D), kv and past_kv (T, 2D), packed as in `forward`, for utterances of `lens` frames; returns (T, D)."""
        if self.context.chunk:
            return self._attend_packed_chunks(q, kv, lens, past_kv)
        if self._band_has_fewer_scores(lens):
            return self._attend_in_band(q, kv, utterance_numbers(lens))
        utterances = zip(q[None].split(lens, 1), kv[None].split(lens, 1), strict=True)  # (1, T, D), (1, T, 2D)
        return torch.cat([self._attend(q, kv, self._window(q), 0)[0] for q, kv in utterances])

    def _attend_packed_chunks(self, q: Tensor, kv: Tensor, lens: list[int], past_kv: Tensor | None) -> Tensor:
        """As `_attend_packed`, where there are chunks."""
        left, chunk = self._chunk_sizes()
        mask = packed_chunk_mask(lens, chunk, left)[:, None]  # (M, 1, W)
        if past_kv is not None:
            past_kv = pad(past_kv, (0, 0, left, 0))[None]  # (1, left + T, 2D)
        return self._attend_in_chunks(q[None], pad(kv, (0, 0, left, 0))[None], mask, past_kv)[0]

    def _band_has_fewer_scores(self, lens: list[int]) -> bool:
        """Whether blocks of a band have fewer scores than all pairs of frames of utterances of these lengths."""
        keys = self.context.band_keys
        # torch.compile cannot compare infinity with sizes that vary
        return math.isfinite(keys) and keys * sum(lens) < sum(length**2 for length in lens)

    def _attend_in_band(self, q: Tensor, kv: Tensor, utterances: Tensor) -> Tensor:
        """Attention within a band, in blocks of queries (see band_mask); returns (T, D).

        q (T, D), kv (T, 2D): the frames of all utterances, one after the other; utterances (T,): the number of each
        frame's utterance, or -1 at padding.
        """
        left = self.context.left
        right = self.context.right
        assert left is not None and right is not None
        size = len(q)
        rest = -size % BAND_BLOCK
        q = pad(q, (0, 0, 0, rest)).unflatten(0, (-1, BAND_BLOCK))  # (M, block, D)
        kv = windows(pad(kv, (0, 0, left, rest + right))[None], BAND_BLOCK, left + right)[0]  # (M, W, 2D)
        mask = band_mask(pad(utterances, (0, rest), value=-1), BAND_BLOCK, left, right)  # (M, block, W)
        return self._attend(q, kv, mask, left).flatten(0, 1)[:size]

    def _attend_whole_utterances_in_chunks(
        self, q: Tensor, kv: Tensor, padding_mask: Tensor, past_kv: Tensor | None
    ) -> Tensor:
        """q (N, T, D), kv and past_kv (N, T, 2D), padding_mask (N, T); returns (N, T, D)."""
        left, _ = self._chunk_sizes()
        if past_kv is not None:
            past_kv = pad(past_kv, (0, 0, left, 0))  # (N, left + T, 2D)
        mask = self._chunk_mask(pad(padding_mask, (left, 0)))
        return self._attend_in_chunks(q, pad(kv, (0, 0, left, 0)), mask, past_kv)

    def _attend_in_chunks(
        self, q: Tensor, kv: Tensor, mask: Tensor, past_kv: Tensor | None = None, is_step: bool = False
    ) -> Tensor:
        """All chunks at once, as a batch of windows: q (N, M * chunk, D), kv (N, left + M * chunk, 2D), mask (N * M, 1,
        W); returns (N, M * chunk, D).

        past_kv, like kv, replaces kv for the frames before each chunk.
        """
        left, chunk = self._chunk_sizes()
        if past_kv is None and q.shape[1] == chunk:
            return self._attend(q, kv, mask, left, is_step)  # a single chunk, which kv is the window of
        if past_kv is None or not left:
            window = windows(kv, chunk, left)  # (N, M, W, 2D)
        else:
            parts = window_parts(past_kv, chunk, left)
            own = kv[:, left:].unflatten(1, (-1, chunk))  # (N, M, chunk, 2D)
            window = torch.cat([*parts[:-1], own], dim=2)  # (N, M, W, 2D)
        q_chunks = q.unflatten(1, (-1, chunk)).flatten(0, 1)  # (N * M, chunk, D)
        y = self._attend(q_chunks, window.flatten(0, 1), mask, left, is_step)  # (N * M, chunk, D)
        return y.unflatten(0, (q.shape[0], -1)).flatten(1, 2)  # (N, M * chunk, D); a trace takes len(q) for a constant

    def _attend(self, q: Tensor, kv: Tensor, mask: Tensor | None, offset: int, is_step: bool = False) -> Tensor:
        """q (N, Q, D), kv (N, K, 2D), mask (N or 1, 1 or Q, K) or None to see everything; returns (N, Q, D).

        Query i is at the position of key i + offset. The mask of a step is numbers to add to the scores.
        """
        k, v = kv.chunk(2, -1)  # (N, K, D) each
        q = self._split_heads(q)  # (N, H, Q, D/H)
        k = self._split_heads(k)  # (N, H, K, D/H)
        v = self._split_heads(v)
        if mask is not None:
            mask = mask[:, None]  # (N or 1, 1, 1 or Q, K)
        positions = None
        if self.relative is not None:
            scores = self.relative.step if is_step else self.relative
            positions = scores(q, k.shape[2], offset)  # (N, H, Q, K)
            q = q + self.relative.content_bias
        dropout = self.dropout if self.training else 0.0
        y = dot_product_attention(q, k, v, mask, dropout, positions)  # (N, H, Q, D/H)
        return y.transpose(1, 2).flatten(2)  # (N, Q, H, D/H) to (N, Q, D)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, T, D) to (N, T, H, D/H) to (N, H, T, D/H)
