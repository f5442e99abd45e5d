"""fMLLR: the affine transform of the features under which a speaker's frames are most likely in a GMM.

Gales 1998, "Maximum likelihood linear transformations for HMM-based speech recognition", section 3: the transform
x -> A x + b is estimated row by row, from sums over the frames (`TransformStatistics`); it is also known as constrained
MLLR. Here the statistics of a speaker may be smoothed by an average speaker.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_PASSES = 20  # over the rows of a transform; each is optimal given the others
BLOCK_DIMS = 8  # whose statistics are summed at once


@dataclass
class TransformStatistics:
    """Sums over the frames of a speaker, in float64, for x (D,) extended by a one to y (D + 1,).

    `outer` (D, D + 1, D + 1): for each dimension the sum of y y^T by the Gaussians' precision; `linear` (D, D + 1): the
    sum of y by their precision and mean; `num_frames`: the number of frames.
    """

    outer: Tensor
    linear: Tensor
    num_frames: float

    @classmethod
    def zeros(cls, dims: int) -> "TransformStatistics":
        """Returns the statistics of no frames of `dims` dimensions."""
        outer = torch.zeros(dims, dims + 1, dims + 1, dtype=torch.float64)
        return cls(outer, torch.zeros(dims, dims + 1, dtype=torch.float64), 0.0)

    def add(self, frames: Tensor, precisions: Tensor, products: Tensor) -> None:
        """Adds untransformed frames (T, D), with the `GaussianMixtures.expected_precisions` of the transformed ones."""
        extended = torch.cat([frames, torch.ones(len(frames), 1)], dim=1)  # (T, D + 1)
        self.linear += (products.T @ extended).double()
        self.num_frames += len(frames)
        for begin in range(0, frames.shape[1], BLOCK_DIMS):
            block = slice(begin, begin + BLOCK_DIMS)
            weighted = precisions[:, block].T[:, :, None] * extended  # (BLOCK_DIMS, T, D + 1)
            self.outer[block] += (weighted.mT @ extended).double()

    def smoothed(self, average: "TransformStatistics", num_frames: float) -> "TransformStatistics":
        """Returns these statistics with `num_frames` further frames, of an average speaker.

        The identity is about the best transform for an average speaker: the fewer frames a speaker has, the closer the
        transform is to it.
        """
        share = num_frames / max(average.num_frames, 1.0)
        outer, linear = self.outer + share * average.outer, self.linear + share * average.linear
        return TransformStatistics(outer, linear, self.num_frames + num_frames)


def identity_transform(dims: int) -> Tensor:
    """Returns the transform (D, D + 1), [A b], that changes nothing; in float64."""
    return torch.eye(dims, dims + 1, dtype=torch.float64)


def apply_transform(transform: Tensor, frames: Tensor) -> Tensor:
    """Returns A x + b for each of the frames (T, D); `transform` (D, D + 1) is [A b]."""
    matrix = transform.to(frames.dtype)
    return frames @ matrix[:, :-1].T + matrix[:, -1]


def estimate_transform(sums: TransformStatistics, initial: Tensor) -> Tensor:
    """Returns the transform (D, D + 1) of the highest likelihood that NUM_PASSES passes from `initial` lead to."""
    transform = initial.clone()
    inverses = torch.linalg.inv(sums.outer)
    for _ in range(NUM_PASSES):
        for row in range(len(transform)):
            cofactors = torch.linalg.inv(transform[:, :-1])[:, row]  # of the row, up to a factor
            extended = torch.cat([cofactors, cofactors.new_zeros(1)])
            transform[row] = _best_row(extended, sums, row, inverses[row])
    return transform


def log_likelihood_gain(sums: TransformStatistics, transform: Tensor) -> float:
    """Returns how much more likely the frames are with a transform than without, in nats a frame."""
    identity = identity_transform(len(transform))
    return (_objective(sums, transform) - _objective(sums, identity)) / max(sums.num_frames, 1.0)


def _best_row(cofactors: Tensor, sums: TransformStatistics, row: int, inverse: Tensor) -> Tensor:
    """Returns the best row (D + 1,), given the others: Gales 1998, equations 23 to 26.

    It is (alpha p + k) G^-1, where alpha is a root of a quadratic equation, p are the `cofactors`, and G and k the sums
    of this row.
    """
    linear = sums.linear[row]
    weighted = cofactors @ inverse
    quadratic, middle = weighted @ cofactors, weighted @ linear
    root = torch.sqrt(middle**2 + 4 * quadratic * sums.num_frames)
    alphas = ((root - middle) / (2 * quadratic), (-root - middle) / (2 * quadratic))
    rows = [(alpha * cofactors + linear) @ inverse for alpha in alphas]
    values = [
        sums.num_frames * (cofactors @ found).abs().log() + found @ linear - 0.5 * found @ sums.outer[row] @ found
        for found in rows
    ]
    return rows[0] if values[0] >= values[1] else rows[1]


def _objective(sums: TransformStatistics, transform: Tensor) -> float:
    """Returns the part of the frames' log-likelihood that depends on the transform."""
    determinant = torch.linalg.slogdet(transform[:, :-1]).logabsdet
    squares = torch.einsum("di,dij,dj->", transform, sums.outer, transform)
    return float(sums.num_frames * determinant + (transform * sums.linear).sum() - 0.5 * squares)
