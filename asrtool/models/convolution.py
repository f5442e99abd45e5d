"""1-D convolution interleaved with attention blocks (arXiv 1910.10352; it carries position, so encodings may go)."""

from torch import Tensor, nn


class ResidualConvolution(nn.Module):
    """x + dropout(relu(conv(norm(x)))), width 3, over valid frames only: padding is zeroed before it is looked at."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.convolution = nn.Conv1d(dim, dim, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(N, T, D), (N, T, 1) bool, true where there is data."""
        y = (self.norm(x) * keep).transpose(1, 2)
        return x + self.dropout(self.convolution(y).relu().transpose(1, 2))
