"""Front ends that reduce the frame rate."""

from torch import Tensor, nn

from asrtool.config import Subsampling
from asrtool.models.masks import padding_mask


class ConvSubsampling(nn.Module):
    """Two 3x3 convolutions of stride 2 over time and frequency, then a projection: (N, T, F) to (N, T/4, D).

    Each pads one frame of zeros on both sides; frames beyond an utterance's end are zeroed before each convolution, so
    that a padded utterance meets the same zeros as it does alone.
    """

    factor = 4

    def __init__(self, config: Subsampling, bins: int, dim: int):
        super().__init__()
        channels = config.channels
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.Conv2d(channels, channels, 3, stride=2, padding=1)]
        )
        self.projection = nn.Linear(channels * _half(_half(bins)), dim)

    def out_length(self, n):
        """Frames that come out for `n` that go in, an int or a tensor of them."""
        return _half(_half(n))

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, F), (N,); returns (N, T', D), (N,)."""
        x = x[:, None]
        for convolution in self.convolutions:
            x = x * padding_mask(x_lens, x.shape[2])[:, None, :, None]
            x = convolution(x).relu()
            x_lens = _half(x_lens)
        return self.projection(x.transpose(1, 2).flatten(2)), x_lens


def _half(n):
    """Length after a convolution of width 3, stride 2, padding 1."""
    return (n + 1) // 2
