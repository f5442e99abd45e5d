"""The acoustic model: normalisation, front end, encoder, output layer; one interface for every architecture."""

import math
from typing import NamedTuple

from torch import Tensor, nn

from asrtool.config import Config
from asrtool.models.normalise import Normalise
from asrtool.models.subsampling import ConvSubsampling
from asrtool.models.transformer import TransformerEncoder

BLANK = 0  # the unit that CTC puts between the others
# The blank's share of the frames before training. A trained CTC model's is about this; from equal shares, hundreds of
# steps go into learning it, and the more the features say, the longer it takes.
BLANK_SHARE = 0.95


class Latency(NamedTuple):
    """What a frame waits for, in feature frames: `right` context (infinite for a whole utterance) and the `chunk`."""

    right: float
    chunk: int


class AcousticModel(nn.Module):
    """Features to log-probabilities of `units` units, blank included."""

    def __init__(self, config: Config, units: int):
        super().__init__()
        model, bins = config.model, config.features.num_bins
        self.normalise = Normalise(model.normalise, bins)
        self.subsampling = ConvSubsampling(model.subsampling, bins, model.dim)
        self.encoder = TransformerEncoder(model)
        self.output = nn.Linear(model.dim, units)
        nn.init.zeros_(self.output.bias)
        nn.init.constant_(self.output.bias[BLANK], math.log(BLANK_SHARE / (1 - BLANK_SHARE) * (units - 1)))

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, T, F) float, x_lens (N,) int64; returns log-probs (N, T', units) float32 and their lengths (N,).

        Neither the amount of padding nor its content, nor the other utterances of the batch, change an utterance's
        frames; frames beyond `out_lens` are meaningless.
        """
        x, x_lens = self.subsampling(self.normalise(x, x_lens), x_lens)
        x = self.encoder(x, x_lens)
        return self.output(x).float().log_softmax(-1), x_lens

    def out_length(self, n):
        """Output frames for `n` feature frames, exactly; an int or a tensor of them."""
        return self.subsampling.out_length(n)

    def latency(self) -> Latency:
        """From the layers' own facts: the right context adds up, in feature frames."""
        return Latency(right=self.encoder.right_context * self.subsampling.factor, chunk=self.subsampling.factor)
