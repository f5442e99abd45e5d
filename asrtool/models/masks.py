"""Which frames are data, and which frames may attend to which. All masks are True where a frame counts."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

ENDLESS = 1 << 60  # the length of a stream that has not ended


def valid_frames(first: Tensor | int, size: int, lens: Tensor) -> Tensor:
    """(N, size) bool: which of the frames first, first + 1, ... lie in their utterance of `lens` (N,) frames.

    first -1, lens 3, 1; size 5  ->  . 1 1 1 .
                                     . 1 . . .
    """
    if isinstance(first, Tensor):
        first = first[:, None]  # (N, 1)
    index = first + torch.arange(size, device=lens.device)  # (N, size), or (size,) for an int
    return (index >= 0) & (index < lens[:, None])


def padding_mask(lens: Tensor, size: int) -> Tensor:
    """(N,) lengths to a mask (N, size) bool, False at padding (torch's `key_padding_mask` is its complement).

    lens 3, 1; size 4  ->  1 1 1 .
                           1 . . .
    """
    return valid_frames(0, size, lens)


def utterance_numbers(lens: list[int], chunk: int = 1) -> Tensor:
    """(T,) int64: the number of each frame's utterance if they follow each other, each padded to whole chunks; -1 at
    padding.

    lens 3, 1; chunk 2  ->  0 0 0 -1 1 -1
    """
    parts = torch.tensor([[length, -length % chunk] for length in lens]).flatten()  # frames and padding by turns
    numbers = torch.stack([torch.arange(len(lens)), torch.full((len(lens),), -1)], 1).flatten()
    return numbers.repeat_interleave(parts)


def sliding_mask(
    queries: int, keys: int, offset: int, left: int | None, right: int | None, device: torch.device | None = None
) -> Tensor:
    """(queries, keys) bool: query i is at the position of key i + offset, and sees `left` keys before it and `right`
    after it.

    None means no limit. Whole utterance (offset 0), left 2, right 1:    a stream's step of 2 frames (offset = left):

                        key 0 1 2 3 4                                 key 0 1 2 3 4
              query 0       1 1 . . .                       query 0       1 1 1 1 .
                    1       1 1 1 . .                             1       . 1 1 1 1
                    2       1 1 1 1 .
                    3       . 1 1 1 1
                    4       . . 1 1 1

    Each layer looks `right` frames further: 12 layers with right 1 wait for 12 frames.
    """
    position = torch.arange(queries, device=device)[:, None] + offset  # (queries, 1)
    distance = torch.arange(keys, device=device) - position  # (queries, keys), negative before the query
    mask = torch.ones_like(distance, dtype=torch.bool)
    if left is not None:
        mask = mask & (distance >= -left)
    if right is not None:
        mask = mask & (distance <= right)
    return mask


class StepFrames(NamedTuple):
    """The frames of a step of N streams, which all layers have in common, however far they run behind."""

    first: Tensor  # (N,) index of the first frame of the encoder's input
    lens: Tensor  # (N,) frames of each utterance
    valid: Tensor  # (N, reach + n) bool: the last `reach` frames before the step, and the step's n frames


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as numbers to add to scores of `dtype`: 0 where it is True, and else a number that is next to -inf.

    It is finite, and two of them still are in sum: a query that sees nothing attends to everything instead of NaN.
    """
    return (~mask).to(dtype) * (torch.finfo(dtype).min / 4)


def windows(x: Tensor, chunk: int, memory: int) -> Tensor:
    """(N, memory + M * chunk, D) to (N, M, memory + chunk, D): the window that each of M chunks sees, which is `memory`
    frames and the chunk itself.

    chunk 2, memory 3, M 3; frames a b c come before the first chunk:

        frames    a b c 0 1 2 3 4 5               seen by     a b c 0 1 2 3 4 5
        chunk 0   a b c 0 1                       frame 0     1 1 1 1 1 . . . .
        chunk 1       c 0 1 2 3                         1     1 1 1 1 1 . . . .
        chunk 2           1 2 3 4 5                     2     . . 1 1 1 1 1 . .
                                                        3     . . 1 1 1 1 1 . .
                                                        4     . . . . 1 1 1 1 1
                                                        5     . . . . 1 1 1 1 1

    A frame waits for the end of its chunk however many layers there are; what it remembers grows with the layers.
    """
    return torch.cat(window_parts(x, chunk, memory), dim=2)


def window_parts(x: Tensor, chunk: int, memory: int) -> list[Tensor]:
    """The windows of `windows` in parts of at most a chunk, from the earliest to the chunk itself, which are views.

    (N, memory + M * chunk, D) to some (N, M, size, D), whose sizes are chunk, and in the first memory % chunk. The
    backward pass of such slices takes a fraction of the time of torch's `unfold`.
    """
    first = memory % chunk
    starts = range(first, memory + 1, chunk)
    length = x.shape[1] - memory  # M * chunk
    parts = [x.narrow(1, start, length).unflatten(1, (-1, chunk)) for start in starts]  # (N, M, chunk, D) each
    if first:
        parts.insert(0, x.narrow(1, 0, length).unflatten(1, (-1, chunk))[:, :, :first])
    return parts


def packed_chunk_mask(lens: list[int], chunk: int, memory: int) -> Tensor:
    """(M, memory + chunk) bool: which frames of each chunk's window are of its utterance, and no padding.

    The utterances of `lens` frames follow each other, each padded to whole chunks.
    """
    numbers = utterance_numbers(lens, chunk)
    padded = nn.functional.pad(numbers, (memory, 0), value=-1)
    return windows(padded[None, :, None], chunk, memory)[0, :, :, 0] == numbers[::chunk, None]


def band_mask(utterances: Tensor, block: int, left: int, right: int) -> Tensor:
    """The mask of a band over frames in blocks: utterances (M * block,) to (M, block, left + block + right) bool.

    The frames of all utterances follow each other, and `utterances` has the number of each one's utterance, or -1 at
    padding. Query i of a block sees the keys from i to left + i + right of the block's window, which begins `left`
    frames before the block, if they are of the same utterance. Block 3, left 1, right 1, utterances 0 0 1 1 1 -1:

        block 0, keys    . 0 0 1 1        block 1, keys    1 1 1 - .
        frame 0          . 1 1 . .        frame 3          1 1 1 . .
              1          . 1 1 . .              4          . 1 1 . .
              2          . . . 1 1              5          . . . 1 1      padding sees padding, so that no row is empty
    """
    own = utterances.view(-1, block, 1)  # (M, block, 1)
    padded = nn.functional.pad(utterances, (left, right), value=-1)
    seen = windows(padded[None, :, None], block, left + right)[0].transpose(1, 2)  # (M, 1, left + block + right)
    return (own == seen) & sliding_mask(block, seen.shape[2], left, left, right, utterances.device)
