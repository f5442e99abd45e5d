"""Front ends, which reduce the frame rate: (N, T, F) features to (N, T / factor, D).

Each has `factor`; `left` and `right`, the feature frames that an output looks at beyond its own `factor`; and `delay`,
the output frames that `step` runs behind. Whatever lies outside an utterance is zeroed before each convolution, so
that padding and the edges of a stream look as the utterance's own ends do.
"""

from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, pad

from asrtool.config import SubsamplingConfig
from asrtool.models.caches import Caches
from asrtool.models.masks import valid


def make_front_end(config: SubsamplingConfig, bins: int, dim: int) -> nn.Module:
    """The front end that `config.kind` names."""
    return {"stack": FrameStacking, "conv": ConvSubsampling, "vgg": Vgg}[config.kind](config, bins, dim)


class FrameStacking(nn.Module):
    """`factor` frames side by side, then a projection: the front end of hybrid models."""

    left = right = delay = 0

    def __init__(self, config: SubsamplingConfig, bins: int, dim: int):
        super().__init__()
        self.factor = config.factor
        self.projection = nn.Linear(bins * config.factor, dim)

    def out_length(self, n):
        """Frames that come out for `n` that go in, an int or a tensor of them."""
        return (n + self.factor - 1) // self.factor

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, F), (N,); returns (N, T', D). The last frame is filled up with zeros."""
        return self._stack(pad(x, (0, 0, 0, -x.shape[1] % self.factor)), 0, x_lens)

    def initial_state(self, batch: int) -> list[Tensor]:
        """Nothing."""
        return []

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, F), frames `first` (N,) and on; n and first multiples of `factor`. Returns (N, n / factor, D)."""
        return self._stack(x, first, lens)

    def _stack(self, x: Tensor, first: Tensor | int, lens: Tensor) -> Tensor:
        x = x * valid(first, x.shape[1], lens)[:, :, None]
        return self.projection(x.unflatten(1, (-1, self.factor)).flatten(2))


class ConvSubsampling(nn.Module):
    """3x3 convolutions of stride 2 over time and frequency, one for each halving, then a projection.

    An output needs no frame beyond its own `factor`: output k of one convolution looks at 2k-1, 2k and 2k+1.
    """

    right = delay = 0

    def __init__(self, config: SubsamplingConfig, bins: int, dim: int):
        super().__init__()
        self.factor, self.bins, self.left = config.factor, bins, config.factor - 1
        widths = [1] + [config.channels] * halvings(config.factor)
        convolutions = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(widths, widths[1:], strict=False)]
        self.convolutions = nn.ModuleList(convolutions)
        self.projection = nn.Linear(config.channels * halve(bins, len(convolutions)), dim)

    def out_length(self, n):
        """Frames that come out for `n` that go in, an int or a tensor of them."""
        return halve(n, len(self.convolutions))

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, F), (N,); returns (N, T', D)."""
        x = x[:, None]
        for convolution in self.convolutions:
            x = convolution(x * _mask(x, 0, x_lens)).relu()
            x_lens = halve(x_lens)
        return self._project(x)

    def initial_state(self, batch: int) -> list[Tensor]:
        """A frame of the input of each convolution."""
        shapes = [(c.in_channels, 1, halve(self.bins, i)) for i, c in enumerate(self.convolutions)]
        return [self.projection.weight.new_zeros(batch, *shape) for shape in shapes]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, F), frames `first` (N,) and on; n and first multiples of `factor`. Returns (N, n / factor, D)."""
        x = x[:, None]
        for layer in self.convolutions:
            x = caches.extend(x * _mask(x, first, lens), axis=2)
            x = conv2d(x, layer.weight, layer.bias, stride=2, padding=(0, 1)).relu()
            first, lens = first // 2, halve(lens)
        return self._project(x)

    def _project(self, x: Tensor) -> Tensor:
        return self.projection(x.transpose(1, 2).flatten(2))


class VggBlock(nn.Module):
    """Two 3x3 convolutions, then the maximum over pairs of frames and of bins: (N, C, T, F) to (N, C', T/2, F/2).

    Each convolution looks `ahead` frames ahead, so in a stream it runs as many behind; its input is `behind` already.
    """

    def __init__(self, inputs: int, outputs: int, bins: int, ahead: int, behind: int):
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(inputs, outputs, 3), nn.Conv2d(outputs, outputs, 3)])
        self.bins, self.ahead, self.behind = bins, ahead, behind
        self.wait = behind % 2  # frames more, since a pooled pair starts at an even frame
        self.delay = (behind + 2 * ahead + self.wait) // 2  # pooled frames that a stream is behind

    def forward(self, x: Tensor, lens: Tensor) -> Tensor:
        """(N, C, T, F), (N,)."""
        for layer in self.convolutions:
            x = self._convolve(layer, pad(x * _mask(x, 0, lens), (0, 0, 2 - self.ahead, self.ahead)))
        return self._pool(pad(x * _mask(x, 0, lens), (0, 0, 0, x.shape[2] % 2)))

    def initial_state(self, batch: int) -> list[Tensor]:
        """Two frames of the input of each convolution, and what waits for its pair."""
        widths = [(layer.in_channels, 2) for layer in self.convolutions]
        widths += [(self.convolutions[1].out_channels, 1)] * self.wait
        return [self.convolutions[0].weight.new_zeros(batch, *width, self.bins) for width in widths]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, C, n, F), n even: frames `first` (N,), even, and on, but for those that it is behind."""
        first = first - self.behind
        for layer in self.convolutions:
            x = self._convolve(layer, caches.extend(x * _mask(x, first, lens), axis=2))
            first = first - self.ahead
        x = caches.delay(x, axis=2) if self.wait else x
        return self._pool(x * _mask(x, first - self.wait, lens))

    @staticmethod
    def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
        return conv2d(x, layer.weight, layer.bias, padding=(0, 1)).relu()

    @staticmethod
    def _pool(x: Tensor) -> Tensor:
        return max_pool2d(pad(x, (0, x.shape[3] % 2)), 2)  # an odd last bin is alone; zeros are below what relu left


class Vgg(nn.Module):
    """A VGG block for each halving (arXiv 1409.1556), with twice the channels each time, then a projection.

    `causal` convolutions look two frames back instead of one to each side. Symmetric ones need right = 6 feature frames
    more at factor 4; a stream runs two output frames behind, the next multiple.
    """

    def __init__(self, config: SubsamplingConfig, bins: int, dim: int):
        super().__init__()
        self.factor, ahead = config.factor, 0 if config.causal else 1
        self.blocks, self.left, self.right, self.delay, inputs = nn.ModuleList(), 0, 0, 0, 1
        for i in range(halvings(config.factor)):
            outputs = config.channels << i
            self.blocks.append(VggBlock(inputs, outputs, bins, ahead, self.delay))
            self.left, self.right = self.left + (2 * (2 - ahead) << i), self.right + (2 * ahead << i)
            inputs, bins, self.delay = outputs, halve(bins), self.blocks[-1].delay
        self.projection = nn.Linear(inputs * bins, dim)

    def out_length(self, n):
        """Frames that come out for `n` that go in, an int or a tensor of them."""
        return halve(n, len(self.blocks))

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, F), (N,); returns (N, T', D)."""
        x = x[:, None]
        for block in self.blocks:
            x, x_lens = block(x, x_lens), halve(x_lens)
        return self.projection(x.transpose(1, 2).flatten(2))

    def initial_state(self, batch: int) -> list[Tensor]:
        """Of the blocks, in their order."""
        return [tensor for block in self.blocks for tensor in block.initial_state(batch)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, F), frames `first` (N,) and on; n and first multiples of `factor`. Returns (N, n / factor, D)."""
        x = x[:, None]
        for block in self.blocks:
            x, first, lens = block.step(x, first, lens, caches), first // 2, halve(lens)
        return self.projection(x.transpose(1, 2).flatten(2))


def halvings(factor: int) -> int:
    """How often a frame rate is halved to divide it by `factor`, a power of two."""
    return factor.bit_length() - 1


def halve(n, times: int = 1):
    """Length after `times` halvings that round up; an int or a tensor."""
    for _ in range(times):
        n = (n + 1) // 2
    return n


def _mask(x: Tensor, first: Tensor | int, lens: Tensor) -> Tensor:
    """(N, 1, T, 1) bool for x (N, C, T, F)."""
    return valid(first, x.shape[2], lens)[:, None, :, None]
