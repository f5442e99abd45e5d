"""1-D convolution interleaved with attention blocks (arXiv 1910.10352; it carries position, so encodings may go)."""

from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from asrtool.config import ConvolutionConfig
from asrtool.models.caches import Caches
from asrtool.models.dropout import Dropout
from asrtool.models.masks import valid, windows


class Taps(nn.Conv1d):
    """A convolution along axis 1 of (N, T, D), without padding."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, T + kernel - 1, D); returns (N, T, D)."""
        if self.groups == 1:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        # In two dimensions and channels last, one channel at a time is four times as fast on a CPU.
        y = conv2d(x.transpose(1, 2)[:, :, :, None], self.weight[:, :, :, None], self.bias, groups=self.groups)
        return y[:, :, :, 0].transpose(1, 2)


class InterleavedConvolution(nn.Module):
    """One of

        "interleaved"   relu(conv(x)), as published
        "residual"      x + dropout(relu(conv(norm(x))))
        "conformer"     x + dropout(linear(silu(norm(conv(glu(linear(norm(x))))))))     (arXiv 2005.08100, section 2.2)

    The convolution is dense, that of "conformer" over each channel by itself, with a LayerNorm, which can stream, in
    the place of BatchNorm. It sees valid frames only: padding is zeroed before it is looked at. A symmetric one looks
    as far ahead as back, and every layer of them adds to the look-ahead; a causal one only looks back. Among chunks of
    `chunk` frames a symmetric one takes what lies behind the end of the chunk for zeros, so that it waits for nothing:

        chunk 3, kernel 3       frames 0 1 2 | 3 4 5
        output 1                       1 1 1 | . . .
        output 2                       . 1 1 | . . .      frame 3 is not there yet
        output 3                       . . 1 | 1 1 .
    """

    def __init__(self, config: ConvolutionConfig, dim: int, dropout: float, chunk: int | None):
        super().__init__()
        self.left = config.kernel - 1 if config.causal else config.kernel // 2
        self.right, self.chunk = config.kernel - 1 - self.left, chunk
        self.dim, self.residual = dim, config.kind != "interleaved"
        self.norm = nn.LayerNorm(dim) if self.residual else nn.Identity()
        if config.kind == "conformer":
            self.gate = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GLU(-1))
            self.convolution = Taps(dim, dim, config.kernel, groups=dim)
            self.after = nn.Sequential(nn.LayerNorm(dim), nn.SiLU(), nn.Linear(dim, dim))
        else:
            self.gate, self.convolution, self.after = nn.Identity(), Taps(dim, dim, config.kernel), nn.ReLU()
        self.dropout = Dropout(dropout)

    @property
    def delay(self) -> int:
        """Frames that a stream runs behind."""
        return 0 if self.chunk else self.right

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(N, T, D), (N, T) bool, true where there is data; T a multiple of the chunk, if there is one."""
        edges = (self.left, self.delay)
        return self._convolve(pad(x, (0, 0, *edges)), pad(keep, edges))

    def initial_state(self, batch: int) -> list[Tensor]:
        """The last frames of the input."""
        return [self.convolution.weight.new_zeros(batch, self.left + self.delay, self.dim)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D), frames `first` (N,) and on of `lens` (N,); returns those `delay` earlier."""
        x = caches.extend(x)
        return self._convolve(x, valid(first - self.left - self.delay, x.shape[1], lens))

    def _convolve(self, x: Tensor, keep: Tensor) -> Tensor:
        """x (N, left + T + delay, D); returns (N, T, D)."""
        middle = x[:, self.left : x.shape[1] - self.delay]
        y = self.gate(self.norm(x)) * keep[:, :, None]
        if self.chunk:
            y = pad(windows(y, self.chunk, self.left), (0, 0, 0, self.right)).flatten(0, 1)
        y = self.after(self.convolution(y))
        if self.chunk:
            y = y.reshape(middle.shape)  # a size that a trace knows; another, layer upon layer, takes it minutes
        return middle + self.dropout(y) if self.residual else y
