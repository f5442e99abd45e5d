"""1-D convolution after attention blocks (arXiv 1910.10352). It carries position, so encodings may be left out."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from asrtool.config import ConvolutionConfig
from asrtool.models.caches import Caches
from asrtool.models.dropout import Dropout
from asrtool.models.masks import packed_chunk_mask, valid_frames, windows


class TimeConvolution(nn.Conv1d):
    """A convolution over axis 1 of (N, T, D), without padding."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, T + kernel - 1, D); returns (N, T, D)."""
        x = x.transpose(1, 2)  # (N, D, T + kernel - 1)
        if self.groups == 1:
            return super().forward(x).transpose(1, 2)  # (N, T, D)
        # A depthwise convolution in two dimensions and channels last is four times as fast on a CPU.
        y = conv2d(x[:, :, :, None], self.weight[:, :, :, None], self.bias, groups=self.groups)  # (N, D, T, 1)
        return y[:, :, :, 0].transpose(1, 2)  # (N, T, D)


class InterleavedConvolution(nn.Module):
    """One of

        "interleaved"   relu(conv(x)), as published
        "residual"      x + dropout(relu(conv(norm(x))))
        "conformer"     x + dropout(linear(silu(norm(conv(glu(linear(norm(x))))))))     (arXiv 2005.08100, section 2.2)

    The convolution is dense; "conformer" has a depthwise one, and a LayerNorm, which can stream, replaces BatchNorm.
    Padding is zeroed before the convolution. A symmetric convolution looks as far ahead as back, and each such layer
    adds to the look-ahead; a causal one only looks back. With chunks of `chunk` frames, a symmetric convolution sees
    zeros after the end of the chunk, so that it waits for nothing:

        chunk 3, kernel 3       frames 0 1 2 | 3 4 5
        output 1                       1 1 1 | . . .
        output 2                       . 1 1 | . . .      frame 3 is not there yet
        output 3                       . . 1 | 1 1 .
    """

    def __init__(self, config: ConvolutionConfig, dim: int, dropout: float, chunk: int | None):
        super().__init__()
        self.left = config.kernel - 1 if config.causal else config.kernel // 2
        self.right = config.kernel - 1 - self.left
        self.chunk = chunk
        self.delay = 0 if chunk else self.right  # frames that `step` runs behind
        self.dim = dim
        self.is_residual = config.kind != "interleaved"
        self.norm: nn.Module = nn.LayerNorm(dim) if self.is_residual else nn.Identity()
        is_conformer = config.kind == "conformer"
        self.gate: nn.Module = nn.Identity()
        if is_conformer:
            self.gate = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GLU(-1))
        self.convolution = TimeConvolution(dim, dim, config.kernel, groups=dim if is_conformer else 1)
        self.after: nn.Module = nn.ReLU()
        if is_conformer:
            self.after = nn.Sequential(nn.LayerNorm(dim), nn.SiLU(), nn.Linear(dim, dim))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, padding_mask: Tensor | list[int]) -> Tensor:
        """(N, T, D), (N, T) bool, False at padding; T is a multiple of the chunk, if there is one.

        x may also be packed, with a list of lengths: see Block.
        """
        if isinstance(padding_mask, list):
            return self._convolve_packed(x, padding_mask)
        x = pad(x, (0, 0, self.left, self.delay))  # (N, left + T + delay, D)
        return self._convolve(x, pad(padding_mask, (self.left, self.delay)))

    def initial_state(self, batch: int) -> list[Tensor]:
        """The last frames of the input."""
        return [self.convolution.weight.new_zeros(batch, self.left + self.delay, self.dim)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D), frames `first` (N,) and on of `lens` (N,); returns those `delay` earlier."""
        x = caches.extend(x)  # (N, left + delay + n, D)
        return self._convolve(x, valid_frames(first - self.left - self.delay, x.shape[1], lens))

    def _convolve(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """x (N, left + T + delay, D); returns (N, T, D)."""
        middle = x[:, self.left : x.shape[1] - self.delay]  # (N, T, D)
        y = self.gate(self.norm(x)) * padding_mask[:, :, None]
        if self.chunk:
            y = self._convolve_windows(windows(y, self.chunk, self.left).flatten(0, 1))
            y = y.reshape(middle.shape)  # (N * M, chunk, D) to (N, T, D); tracing is slow with a size it does not know
        else:
            y = self.convolution(y)
        return self._add_branch(middle, y)

    def _convolve_packed(self, x: Tensor, lens: list[int]) -> Tensor:
        """x (T, D), packed utterances of `lens` frames; returns (T, D)."""
        y = self.gate(self.norm(x))
        if self.chunk:
            window = windows(pad(y, (0, 0, self.left, 0))[None], self.chunk, self.left)[0]  # (M, W, D)
            mask = packed_chunk_mask(lens, self.chunk, self.left)  # (M, W)
            y = self._convolve_windows(window * mask[:, :, None]).flatten(0, 1)
        else:
            y = self._convolve_apart(y, lens)
        return self._add_branch(x, y)

    def _convolve_windows(self, y: Tensor) -> Tensor:
        """Windows y (M, left + chunk, D) of the chunks; returns (M, chunk, D)."""
        return self.convolution(pad(y, (0, 0, 0, self.right)))

    def _convolve_apart(self, y: Tensor, lens: list[int]) -> Tensor:
        """y (T, D), packed utterances; returns (T, D). Zeros between them keep each from seeing the next."""
        gap = y.new_zeros(max(self.left, self.right), self.dim)
        parts = [part for utterance in y.split(lens) for part in (utterance, gap)]
        y = self.convolution(torch.cat([y.new_zeros(self.left, self.dim), *parts])[None])[0]
        sizes = [size for length in lens for size in (length, len(gap))]
        sizes[-1] = len(y) - sum(sizes[:-1])
        return torch.cat(y.split(sizes)[::2])

    def _add_branch(self, x: Tensor, y: Tensor) -> Tensor:
        """The output for an input x and the convolution's output y, of the same shape."""
        y = self.after(y)
        return x + self.dropout(y) if self.is_residual else y
