"""The acoustic model: normalisation, front end, encoder, output layer; one interface for every architecture."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asrtool.config import Config
from asrtool.models.blstm import Blstm
from asrtool.models.caches import Caches
from asrtool.models.lc_blstm import LcBlstm
from asrtool.models.masks import ENDLESS, padding_mask, valid
from asrtool.models.normalise import Normalise
from asrtool.models.subsampling import make_front_end
from asrtool.models.transformer import TransformerEncoder
from asrtool.models.transformer_xl import TransformerXl

ENCODERS = {"blstm": Blstm, "lc_blstm": LcBlstm, "transformer": TransformerEncoder, "transformer_xl": TransformerXl}

BLANK = 0  # the unit that CTC puts between the others
# The blank's share of the frames before training. A trained CTC model's is about this; from equal shares, hundreds of
# steps go into learning it, and the more the features say, the longer it takes.
BLANK_SHARE = 0.95


class Latency(NamedTuple):
    """What a frame waits for, in feature frames: the end of its `chunk`, counted from the utterance's start, and
    `right` frames more (infinite for a whole utterance)."""

    right: float
    chunk: int


def output_layer(dim: int, units: int) -> nn.Linear:
    """The last layer, of `units` outputs, at least 2, the blank the first; freshly drawn."""
    layer = nn.Linear(dim, units)
    nn.init.zeros_(layer.bias)
    nn.init.constant_(layer.bias[BLANK], math.log(BLANK_SHARE / (1 - BLANK_SHARE) * (units - 1)))
    return layer


class AcousticModel(nn.Module):
    """Features to log-probabilities of `units` units, blank included; whole utterances, or streams step by step.

    A stream is fed `lead` feature frames that do not count, then its own, `latency().chunk` at a time or a multiple of
    that. Each step returns one output frame for `subsampling.factor` feature frames; the first `delay` of a stream do
    not count either. `asrtool.streaming.model_stream.Stream` does all this for pieces of any length.
    """

    def __init__(self, config: Config, units: int):
        super().__init__()
        model, bins = config.model, config.features.num_bins
        self.normalise = Normalise(model.normalise, bins)
        self.subsampling = make_front_end(model.subsampling, bins, model.dim)
        self.encoder = ENCODERS[model.architecture](model)
        self.output = output_layer(model.dim, units)

    def forward(self, x: Tensor, x_lens: Tensor, middle: bool = False) -> tuple[Tensor, ...]:
        """x (N, T, F) float, x_lens (N,) int64; returns log-probs (N, T', units), float32 or more, and lengths (N,).

        `middle`, of Transformers: also the log-probs that the lower half of the blocks alone would give.

        Neither the amount of padding nor its content, nor the other utterances of the batch, change an utterance's
        frames; frames beyond `out_lens` are meaningless.
        """
        x = self.subsampling(self.normalise(x, padding_mask(x_lens, x.shape[1])), x_lens)
        x_lens = self.out_length(x_lens)
        last, *others = self.encoder.outputs(x, x_lens, middle) if middle else [self.encoder(x, x_lens)]
        return self._log_probs(last), x_lens, *map(self._log_probs, others)

    def out_length(self, n):
        """Output frames for `n` feature frames, exactly; an int or a tensor of them."""
        return self.subsampling.out_length(n)

    def latency(self) -> Latency:
        """From the layers' own facts."""
        front = self.subsampling
        right = front.factor * self.encoder.right + front.right
        return Latency(math.inf if self.normalise.kind == "utterance" else right, front.factor * self.encoder.chunk)

    def receptive_field(self) -> tuple[float, float]:
        """Feature frames before the first and after the last of an output's chunk that it may depend on."""
        front, encoder = self.subsampling, self.encoder
        left = front.factor * encoder.left + front.left
        return math.inf if self.normalise.kind == "utterance" else left, self.latency().right

    @property
    def streams(self) -> bool:
        """Whether there are steps: the look-ahead and the memory have a bound."""
        return self.encoder.streams and self.normalise.kind != "utterance"

    @property
    def delay(self) -> int:
        """Output frames at the start of a stream that do not count: whole chunks."""
        behind = self.subsampling.delay + self.encoder.right
        return behind + -behind % self.encoder.chunk

    @property
    def lead(self) -> int:
        """Feature frames to feed before an utterance's own, so that the encoder's chunks start where they should."""
        return self.subsampling.factor * (self.delay - self.subsampling.delay - self.encoder.right)

    def initial_state(self, batch: int) -> list[Tensor]:
        """The state of `batch` streams before their first step: (N, ...) tensors, a row a stream.

        The first two are the index of the next feature frame and the length, unknown until a stream ends.
        """
        if not self.streams:
            raise ValueError("this model needs the whole utterance: it has no steps")
        device = self.output.weight.device
        times = [torch.full((batch,), value, device=device) for value in (-self.lead, ENDLESS)]
        return [*times, *self.subsampling.initial_state(batch), *self.encoder.initial_state(batch)]

    def step(self, x: Tensor, x_lens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x (N, n, F), n a multiple of latency().chunk; returns log-probs (N, n / factor, units) and the new state.

        x_lens (N,): frames of x up to the end of its stream; n for all where it goes on, 0 in each step after the end.
        The numbers are those of `forward`, `delay` output frames later; what comes before them and after the end is
        meaningless.
        """
        (first, lens), caches = state[:2], Caches(state[2:])
        size, front = x.shape[1], self.subsampling
        lens = torch.where(x_lens < size, torch.minimum(lens, first + x_lens), lens)
        x = self.normalise(x, valid(first, size, lens))
        x = front.step(x, first, lens, caches)
        behind = first // front.factor - front.delay
        log_probs = self._log_probs(self.encoder.step(x, behind, self.out_length(lens), caches))
        return log_probs, [first + size, lens, *caches.new]

    def _log_probs(self, x: Tensor) -> Tensor:
        x = self.output(x)
        return x.to(torch.promote_types(x.dtype, torch.float32)).log_softmax(-1)
