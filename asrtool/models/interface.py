"""What every front end and every encoder has: the sizes that a stream needs, `forward` and `step`.

`forward` takes whole utterances, padded to the longest. Where a layer can stream, `step` takes the next frames of each
stream and returns the same numbers as `forward`, some frames later. A stream's state is a flat list of tensors, a row
for each stream: `initial_state` creates it, `step` reads and replaces it through `Caches`.

In `step`, `first` (N,) is the index of the first frame of x in its utterance; it is negative where frames are fed that
come before the utterance. `lens` (N,) is the length of the utterance, ENDLESS until the stream ends.
"""

from typing import TypeVar

from torch import Tensor, nn

from asrtool.models.caches import Caches

Length = TypeVar("Length", int, Tensor)  # a number of frames, or a tensor of them


class FrontEnd(nn.Module):
    """Reduces the frame rate: feature frames (N, T, F) to encoder frames (N, T / factor, D)."""

    factor: int  # feature frames for each encoder frame
    # Output frame k depends on the feature frames from factor * k - left up to factor * (k + 1) - 1 + right.
    left: int
    right: int
    delay: int  # encoder frames that `step` runs behind

    def out_length(self, n: Length) -> Length:
        """Encoder frames for `n` feature frames."""
        raise NotImplementedError

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, F), (N,) to (N, T', D)."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> list[Tensor]:
        """The state of `batch` streams before their first step."""
        raise NotImplementedError

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, F) to (N, n / factor, D), `delay` frames earlier; n and `first` are multiples of `factor`."""
        raise NotImplementedError


class Encoder(nn.Module):
    """Encoder frames (N, T, D) to the input of the output layer, (N, T, D)."""

    chunk: int  # frames that are computed together; streams take whole chunks
    left: float  # frames before its chunk that an output depends on
    right: float  # frames after its chunk that an output depends on, by which `step` runs behind
    can_stream: bool  # whether there is a bound to what a stream waits for and keeps

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,) to (N, T, D)."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> list[Tensor]:
        """The state of `batch` streams before their first step."""
        raise NotImplementedError

    def step(self, x: Tensor, first: Tensor, lens: Tensor, caches: Caches) -> Tensor:
        """(N, n, D) to (N, n, D), `right` frames earlier; n is a multiple of `chunk`."""
        raise NotImplementedError
