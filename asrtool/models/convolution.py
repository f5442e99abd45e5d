"""1-D convolution interleaved with attention blocks (arXiv 1910.10352; it carries position, so encodings may go)."""

from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from asrtool.config import Convolution
from asrtool.models.caches import Caches
from asrtool.models.masks import valid, windows


class InterleavedConvolution(nn.Module):
    """ "interleaved": relu(conv(x)), as published. "residual": x + dropout(relu(conv(norm(x)))).

    Dense, over valid frames only: padding is zeroed before it is looked at. A symmetric one looks as far ahead as back,
    and every layer of them adds to the look-ahead; a causal one only looks back. Among chunks of `chunk` frames a
    symmetric one takes what lies behind the end of the chunk for zeros, so that it waits for nothing:

        chunk 3, kernel 3       frames 0 1 2 | 3 4 5
        output 1                       1 1 1 | . . .
        output 2                       . 1 1 | . . .      frame 3 is not there yet
        output 3                       . . 1 | 1 1 .
    """

    def __init__(self, config: Convolution, dim: int, dropout: float, chunk: int | None):
        super().__init__()
        self.left = config.kernel - 1 if config.causal else config.kernel // 2
        self.right, self.chunk = config.kernel - 1 - self.left, chunk
        self.norm = nn.LayerNorm(dim) if config.kind == "residual" else None
        self.convolution = nn.Conv1d(dim, dim, config.kernel)
        self.dropout = nn.Dropout(dropout)

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
        return [self.convolution.weight.new_zeros(batch, self.left + self.delay, self.convolution.in_channels)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D), frames `first` (N,) and on of `lens` (N,); returns those `delay` earlier."""
        x = caches.extend(x)
        return self._convolve(x, valid(first - self.left - self.delay, x.shape[1], lens))

    def _convolve(self, x: Tensor, keep: Tensor) -> Tensor:
        """x (N, left + T + delay, D); returns (N, T, D)."""
        y = (x if self.norm is None else self.norm(x)) * keep[:, :, None]
        if self.chunk:
            y = pad(windows(y, self.chunk, self.left), (0, 0, 0, self.right)).flatten(0, 1)
        y = conv1d(y.transpose(1, 2), self.convolution.weight, self.convolution.bias).relu().transpose(1, 2)
        if self.chunk:
            y = y.unflatten(0, (len(x), -1)).flatten(1, 2)
        return y if self.norm is None else x[:, self.left : self.left + y.shape[1]] + self.dropout(y)
