"""What training minimises, by the configuration's `objective`."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from asrtool.data.batch import Batch


class Objective(Protocol):
    """From log-probabilities and what is known of a batch to the loss of each utterance.

    `intermediate`: the share of the loss in training that is CTC on the middle of the model (Lee and Watanabe 2021).
    """

    intermediate: float = 0.0

    def frames_needed(self, units: Sequence[int]) -> int:
        """The fewest output frames that can spell `units`."""

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats from log_probs (N, T', V) and out_lens (N,); 0, and no gradient, for what cannot be used."""
