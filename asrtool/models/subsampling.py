"""Front ends, which reduce the frame rate: (N, T, F) features to (N, T', D), T' = T / factor rounded up.

interface.py describes their attributes (`left`, `right` and `delay`) and methods.

Whatever lies outside an utterance is zeroed before each convolution, so that padding and the edges of a stream look as
the utterance's own ends do.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, pad

from asrtool.config import SubsamplingConfig
from asrtool.models.caches import Caches
from asrtool.models.interface import FrontEnd, Length
from asrtool.models.masks import valid_frames


def make_front_end(config: SubsamplingConfig, bins: int, dim: int) -> FrontEnd:
    """The front end that `config.kind` names."""
    front_ends: dict[str, type[FrameStacking | ConvSubsampling | Vgg]] = {
        "stack": FrameStacking,
        "conv": ConvSubsampling,
        "vgg": Vgg,
    }
    return front_ends[config.kind](config, bins, dim)


class FrameStacking(FrontEnd):
    """`factor` frames stacked into one vector, then a projection: the front end of hybrid models."""

    def __init__(self, config: SubsamplingConfig, bins: int, dim: int):
        super().__init__()
        self.factor = config.factor
        self.left = 0
        self.right = 0
        self.delay = 0
        self.projection = nn.Linear(bins * config.factor, dim)

    def out_length(self, n: Length) -> Length:
        """Encoder frames for `n` feature frames."""
        return (n + self.factor - 1) // self.factor

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, F), (N,); returns (N, T', D). The last frame is filled up with zeros."""
        return self._stack(pad(x, (0, 0, 0, -x.shape[1] % self.factor)), 0, x_lens)

    def initial_state(self, batch: int) -> list[Tensor]:
        """No state: a step has all the frames that it needs."""
        return []

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """x (N, n, F) begins at frame `first` (N,), n and first multiples of `factor`; returns (N, n / factor, D)."""
        return self._stack(x, first, lens)

    def _stack(self, x: Tensor, first: Tensor | int, lens: Tensor) -> Tensor:
        x = x * valid_frames(first, x.shape[1], lens)[:, :, None]
        x = x.unflatten(1, (-1, self.factor)).flatten(2)  # (N, T', factor, F) to (N, T', factor * F)
        return self.projection(x)


class ConvSubsampling(FrontEnd):
    """Convolutions over time and frequency, one for each prime factor of `factor`, then a projection.

    A convolution divides the frame rate by its factor s, 2 or 3, and halves the bins. They never look ahead: output k
    depends on the inputs (k - 1) s + 1 to k s + s - 1, of which the last s are the frames that it stands for.
    """

    convolutions: Sequence[nn.Conv2d]

    def __init__(self, config: SubsamplingConfig, bins: int, dim: int):
        super().__init__()
        self.factor = config.factor
        self.left = config.factor - 1
        self.right = 0
        self.delay = 0
        self.bins = bins
        convolutions = []
        channels = 1
        for stride in config.strides:
            kernel = (2 * stride - 1, 3)
            convolutions.append(nn.Conv2d(channels, config.channels, kernel, (stride, 2), padding=(stride - 1, 1)))
            channels = config.channels
        self.convolutions = nn.ModuleList(convolutions)  # type: ignore[assignment]  # torch has no type for its elements
        self.projection = nn.Linear(channels * halve(bins, len(convolutions)), dim)

    def out_length(self, n: Length) -> Length:
        """Encoder frames for `n` feature frames."""
        return (n + self.factor - 1) // self.factor

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, F), (N,); returns (N, T', D)."""
        x = x[:, None]  # (N, 1, T, F)
        for layer in self.convolutions:
            x = layer(x * _frame_mask(x, 0, x_lens)).relu()  # (N, C, T / s, F / 2)
            x_lens = (x_lens + layer.stride[0] - 1) // layer.stride[0]
        return self._project(x)

    def initial_state(self, batch: int) -> list[Tensor]:
        """s - 1 frames of the input of each convolution."""
        shapes = [
            (layer.in_channels, layer.stride[0] - 1, halve(self.bins, number))
            for number, layer in enumerate(self.convolutions)
        ]
        return [self.projection.weight.new_zeros(batch, *shape) for shape in shapes]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """x (N, n, F) begins at frame `first` (N,), n and first multiples of `factor`; returns (N, n / factor, D)."""
        x = x[:, None]  # (N, 1, n, F)
        for layer in self.convolutions:
            x = caches.extend(x * _frame_mask(x, first, lens), axis=2)
            x = conv2d(x, layer.weight, layer.bias, layer.stride, padding=(0, 1)).relu()
            first = first // layer.stride[0]
            lens = (lens + layer.stride[0] - 1) // layer.stride[0]
        return self._project(x)

    def _project(self, x: Tensor) -> Tensor:
        return self.projection(x.transpose(1, 2).flatten(2))  # (N, C, T', F') to (N, T', C * F') to (N, T', D)


class VggBlock(nn.Module):
    """Two 3x3 convolutions, then max pooling over pairs of frames and of bins: (N, C, T, F) to (N, C', T/2, F/2).

    Each convolution looks `look_ahead` frames ahead, so that in a stream it runs as many frames late; its input already
    comes `input_delay` frames late.
    """

    convolutions: Sequence[nn.Conv2d]

    def __init__(self, inputs: int, outputs: int, bins: int, look_ahead: int, input_delay: int):
        super().__init__()
        convolutions = [nn.Conv2d(inputs, outputs, 3), nn.Conv2d(outputs, outputs, 3)]
        self.convolutions = nn.ModuleList(convolutions)  # type: ignore[assignment]  # torch has no type for its elements
        self.bins = bins
        self.look_ahead = look_ahead
        self.input_delay = input_delay
        self.wait = input_delay % 2  # further frames of delay, since a pooled pair starts at an even frame
        self.delay = (input_delay + 2 * look_ahead + self.wait) // 2  # pooled frames that a stream runs behind

    def forward(self, x: Tensor, lens: Tensor) -> Tensor:
        """(N, C, T, F), (N,); returns (N, C', T/2, F/2)."""
        for layer in self.convolutions:
            x = x * _frame_mask(x, 0, lens)
            x = self._convolve(layer, pad(x, (0, 0, 2 - self.look_ahead, self.look_ahead)))
        x = x * _frame_mask(x, 0, lens)
        return self._pool(pad(x, (0, 0, 0, x.shape[2] % 2)))

    def initial_state(self, batch: int) -> list[Tensor]:
        """Two frames of the input of each convolution, and the frame that waits for the other one of its pair."""
        shapes = [(layer.in_channels, 2, self.bins) for layer in self.convolutions]
        if self.wait:
            shapes.append((self.convolutions[1].out_channels, 1, self.bins))
        return [self.convolutions[0].weight.new_zeros(batch, *shape) for shape in shapes]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, C, n, F), n even; returns (N, C', n/2, F/2), `delay` frames behind.

        x has the frames `first` (N,), which is even, and on, but `input_delay` earlier.
        """
        size = x.shape[2]
        reach = 2 * self.look_ahead + self.wait
        mask = valid_frames(first - self.input_delay - reach, reach + size, lens)[:, None, :, None].to(x.dtype)
        behind = 0
        for layer in self.convolutions:
            x = x * mask[:, :, reach - behind :][:, :, :size]
            x = self._convolve(layer, caches.extend(x, axis=2))  # (N, C, 2 + n, F) to (N, C', n, F)
            behind += self.look_ahead
        if self.wait:
            x = caches.delay(x, axis=2)
        return self._pool(x * mask[:, :, :size])

    @staticmethod
    def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
        """The layer, with channels last in memory: on a CPU, pooling them is six times as fast."""
        weight = layer.weight.contiguous(memory_format=torch.channels_last)  # the result takes it from the weights
        return conv2d(x, weight, layer.bias, padding=(0, 1)).relu()

    @staticmethod
    def _pool(x: Tensor) -> Tensor:
        x = pad(x, (0, x.shape[3] % 2))  # the last one of an odd number of bins; after relu, zeros change no maximum
        return max_pool2d(x, 2)


class Vgg(FrontEnd):
    """A VGG block for each halving (arXiv 1409.1556), with twice the channels each time, then a projection.

    Causal convolutions look two frames back, symmetric ones a frame back and a frame ahead. At factor 4, symmetric ones
    look `right` = 6 feature frames ahead; a stream then runs `delay` = 2 encoder frames (8 feature frames) behind.
    """

    blocks: Sequence[VggBlock]

    def __init__(self, config: SubsamplingConfig, bins: int, dim: int):
        super().__init__()
        self.factor = config.factor
        self.left = 0
        self.right = 0
        self.delay = 0
        look_ahead = 0 if config.causal else 1
        channels = 1
        blocks = []
        for number in range(len(config.strides)):
            outputs = config.channels * 2**number
            block = VggBlock(channels, outputs, bins, look_ahead, self.delay)
            blocks.append(block)
            frame_size = 2**number  # feature frames for each frame of the block's input
            self.left += 2 * (2 - look_ahead) * frame_size  # two convolutions
            self.right += 2 * look_ahead * frame_size
            self.delay = block.delay
            channels = outputs
            bins = halve(bins)
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]  # torch has no type for its elements
        self.projection = nn.Linear(channels * bins, dim)

    def out_length(self, n: Length) -> Length:
        """Encoder frames for `n` feature frames."""
        return halve(n, len(self.blocks))

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, F), (N,); returns (N, T', D)."""
        x = x[:, None]  # (N, 1, T, F)
        for block in self.blocks:
            x = block(x, x_lens)
            x_lens = halve(x_lens)
        return self._project(x)

    def initial_state(self, batch: int) -> list[Tensor]:
        """The states of the blocks, in their order."""
        return [tensor for block in self.blocks for tensor in block.initial_state(batch)]

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """x (N, n, F) begins at frame `first` (N,), n and first multiples of `factor`; returns (N, n / factor, D)."""
        x = x[:, None]  # (N, 1, n, F)
        for block in self.blocks:
            x = block.step(x, first, lens, caches)
            first = first // 2
            lens = halve(lens)
        return self._project(x)

    def _project(self, x: Tensor) -> Tensor:
        return self.projection(x.transpose(1, 2).flatten(2))  # (N, C, T', F') to (N, T', C * F') to (N, T', D)


def halve(n: Length, times: int = 1) -> Length:
    """A length after `times` halvings that round up."""
    for _ in range(times):
        n = (n + 1) // 2
    return n


def _frame_mask(x: Tensor, first: Tensor | int, lens: Tensor) -> Tensor:
    """(N, 1, T, 1) bool for x (N, C, T, F): which frames are in the utterance."""
    return valid_frames(first, x.shape[2], lens)[:, None, :, None]
