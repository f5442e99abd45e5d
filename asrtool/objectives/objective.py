"""What training minimises, by the configuration's `objective`."""

from collections.abc import Sequence

from torch import Tensor

from asrtool.data.batch import Batch


class Objective:
    """From log-probabilities and a batch's targets to the loss of each utterance.

    `intermediate_ctc` is the weight of intermediate CTC in training: `intermediate_objective` on the output of the
    lower half of the Transformer's blocks (Lee and Watanabe 2021). The objective has the rest of the weight.
    """

    intermediate_ctc: float = 0.0
    intermediate_objective: "Objective"

    def min_frames(self, units: Sequence[int]) -> int:
        """The fewest output frames with which an utterance of `units` can be trained on."""
        raise NotImplementedError

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats from log_probs (N, T', V) and out_lens (N,); 0, and no gradient, for what cannot be used.

        out_lens is on the host, as the batch is: to read lengths from a GPU would wait for it.
        """
        raise NotImplementedError
