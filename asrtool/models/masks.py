"""Which frames are data, and which frames may see which."""

from torch import Tensor, arange

ENDLESS = 1 << 60  # the length of a stream that has not ended


def valid(first: Tensor | int, size: int, lens: Tensor) -> Tensor:
    """(N, size) bool: which of the frames first, first + 1, ... lie in their utterance of `lens` (N,) frames.

    first -1, lens 3, 1; size 5  ->  . 1 1 1 .
                                     . 1 . . .
    """
    if isinstance(first, Tensor):
        first = first[:, None]
    index = first + arange(size, device=lens.device)
    return (index >= 0) & (index < lens[:, None])


def padding_mask(lens: Tensor, size: int) -> Tensor:
    """(N,) lengths to (N, size) bool, true where there is data:

    lens 3, 1; size 4  ->  1 1 1 .
                           1 . . .
    """
    return valid(0, size, lens)


def sliding_mask(queries: int, keys: int, offset: int, left: int | None, right: int | None, device=None) -> Tensor:
    """(queries, keys) bool: query i stands at key i + offset, and sees `left` keys before it and `right` after it.

    None is no limit. Whole utterance (offset 0), left 2, right 1:    a stream's step of 2 frames (offset = left):

                        key 0 1 2 3 4                                 key 0 1 2 3 4
              query 0       1 1 . . .                       query 0       1 1 1 1 .
                    1       1 1 1 . .                             1       . 1 1 1 1
                    2       1 1 1 1 .
                    3       . 1 1 1 1
                    4       . . 1 1 1

    Each layer looks `right` frames further: 12 layers with right 1 wait for 12 frames.
    """
    ahead = arange(keys, device=device) - (arange(queries, device=device)[:, None] + offset)
    seen = ahead == ahead
    if left is not None:
        seen = seen & (ahead >= -left)
    return seen if right is None else seen & (ahead <= right)


def windows(x: Tensor, chunk: int, memory: int) -> Tensor:
    """(N, memory + M*chunk, D) to (N, M, memory + chunk, D): what each of M chunks sees, `memory` frames and itself.

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
    return x.unfold(1, memory + chunk, chunk).transpose(2, 3)
