"""1-D convolution after attention blocks (arXiv 1910.10352). It carries position, so encodings may be left out."""

from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from asrtool.config import ConvolutionConfig
from asrtool.models.caches import Caches
from asrtool.models.dropout import Dropout
from asrtool.models.masks import valid_frames, windows


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

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """(N, T, D), (N, T) bool, False at padding; T is a multiple of the chunk, if there is one."""
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
            y = windows(y, self.chunk, self.left)  # (N, M, left + chunk, D)
            y = pad(y, (0, 0, 0, self.right)).flatten(0, 1)  # (N * M, left + chunk + right, D)
        y = self.after(self.convolution(y))
        if self.chunk:
            y = y.reshape(middle.shape)  # (N * M, chunk, D) to (N, T, D); tracing is slow with a size it does not know
        return middle + self.dropout(y) if self.is_residual else y
