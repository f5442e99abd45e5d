"""Which frames are data, and which frames may attend to which. All masks are True where a frame counts."""

import torch
from torch import Tensor

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
    return x.unfold(1, memory + chunk, chunk).transpose(2, 3)  # (N, M, D, memory + chunk) before the transpose
