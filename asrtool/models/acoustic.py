"""The acoustic model: normalisation, front end, encoder, output layer; one interface for every architecture."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asrtool.config import ModelConfig
from asrtool.models.blstm import Blstm
from asrtool.models.caches import Caches
from asrtool.models.interface import Encoder, Length
from asrtool.models.lc_blstm import LcBlstm
from asrtool.models.masks import ENDLESS, padding_mask, valid_frames
from asrtool.models.normalise import Normalise
from asrtool.models.subsampling import make_front_end
from asrtool.models.transformer import TransformerEncoder
from asrtool.models.transformer_xl import TransformerXl

BLANK = 0  # the unit that CTC puts between the others
# The probability of the blank before training; trained CTC models have about the same. From equal probabilities,
# hundreds of steps go into learning it, and the more informative the features, the more.
BLANK_PROBABILITY = 0.95


class Latency(NamedTuple):
    """What an output frame waits for, in feature frames: the end of its chunk, and `right` frames more."""

    right: float  # infinite where the whole utterance is needed
    chunk: int  # the size of a chunk; the first one begins with the utterance


def make_encoder(config: ModelConfig, pack_frames: bool = True) -> Encoder:
    """The encoder that `config.architecture` names; `pack_frames`: see TransformerEncoder."""
    if config.architecture == "blstm":
        return Blstm(config)
    if config.architecture == "lc_blstm":
        return LcBlstm(config)
    if config.architecture == "transformer_xl":
        return TransformerXl(config, pack_frames)
    return TransformerEncoder(config, pack_frames)


def make_output_layer(dim: int, num_outputs: int, has_blank: bool = True) -> nn.Linear:
    """The last layer, of `num_outputs` outputs, at least 2, with random weights; the first may be the blank."""
    layer = nn.Linear(dim, num_outputs)
    nn.init.zeros_(layer.bias)
    if has_blank:
        ratio = BLANK_PROBABILITY / (1 - BLANK_PROBABILITY) * (num_outputs - 1)
        nn.init.constant_(layer.bias[BLANK], math.log(ratio))
    return layer


class AcousticModel(nn.Module):
    """Features to log-probabilities of units, blank included; whole utterances, or streams step by step.

    A stream is fed `lead_padding` zero frames, then its own feature frames, `latency().chunk` at a time or a multiple.
    Each step returns one output frame for `subsampling.factor` feature frames; the first `delay` output frames of a
    stream are meaningless. `asrtool.streaming.step_frames.StepSchedule` does all this for pieces of any length.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_bins: int,
        num_outputs: int,
        pack_frames: bool = True,
        has_blank: bool = True,
    ):
        """`num_bins` features for each frame; `pack_frames`: see TransformerEncoder; `has_blank`: make_output_layer."""
        super().__init__()
        self.normalise = Normalise(config.normalise, num_bins)
        self.subsampling = make_front_end(config.subsampling, num_bins, config.dim)
        self.encoder = make_encoder(config, pack_frames)
        self.output = make_output_layer(config.dim, num_outputs, has_blank)

    def forward(self, x: Tensor, x_lens: Tensor, with_intermediate: bool = False) -> tuple[Tensor, ...]:
        """x (N, T, F) float, x_lens (N,) int64; returns log-probs (N, T', V), float32 or more, and lengths (N,).

        `with_intermediate`, of Transformers: also the log-probs for intermediate CTC, which the output layer computes
        from the lower half of the blocks.

        Neither the amount of padding nor its content, nor the other utterances of the batch, change an utterance's
        frames; frames beyond their lengths are meaningless.
        """
        x = self.normalise(x, padding_mask(x_lens, x.shape[1]))
        x = self.subsampling(x, x_lens)  # (N, T', D)
        out_lens = self.out_length(x_lens)
        if not with_intermediate:
            return self._log_probs(self.encoder(x, out_lens)), out_lens
        assert isinstance(self.encoder, TransformerEncoder)  # the configuration requires it
        last, intermediate = self.encoder.forward_with_intermediate(x, out_lens)
        return self._log_probs(last), out_lens, self._log_probs(intermediate)

    def out_length(self, n: Length) -> Length:
        """Output frames for `n` feature frames, exactly."""
        return self.subsampling.out_length(n)

    def latency(self) -> Latency:
        """What an output frame waits for, in feature frames."""
        front_end = self.subsampling
        right = front_end.factor * self.encoder.right + front_end.right
        chunk = front_end.factor * self.encoder.chunk
        return Latency(math.inf if self.normalise.kind == "utterance" else right, chunk)

    def receptive_field(self) -> tuple[float, float]:
        """Feature frames before the first and after the last of an output's chunk that it may depend on."""
        left = self.subsampling.factor * self.encoder.left + self.subsampling.left
        return math.inf if self.normalise.kind == "utterance" else left, self.latency().right

    @property
    def can_stream(self) -> bool:
        """Whether there is a bound to what a stream waits for and keeps, so that there are steps."""
        return self.encoder.can_stream and self.normalise.kind != "utterance"

    @property
    def delay(self) -> int:
        """Meaningless output frames at the start of a stream: whole chunks."""
        chunk = self.encoder.chunk
        return -(-self._layers_delay // chunk) * chunk

    @property
    def lead_padding(self) -> int:
        """Zero feature frames to feed before an utterance, so that the encoder's chunks start where they should."""
        return self.subsampling.factor * (self.delay - self._layers_delay)

    @property
    def _layers_delay(self) -> int:
        """Output frames that the front end and the encoder run behind in a stream."""
        return self.subsampling.delay + int(self.encoder.right)

    def initial_state(self, batch: int) -> list[Tensor]:
        """The state of `batch` streams before their first step: (N, ...) tensors, a row for each stream.

        The first two are the index of the next feature frame, and the length, ENDLESS until a stream ends.
        """
        if not self.can_stream:
            raise ValueError("this model needs the whole utterance: it has no steps")
        device = self.output.weight.device
        first = torch.full((batch,), -self.lead_padding, device=device)
        lens = torch.full((batch,), ENDLESS, device=device)
        return [first, lens, *self.subsampling.initial_state(batch), *self.encoder.initial_state(batch)]

    def step(self, x: Tensor, x_lens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x (N, n, F), n a multiple of latency().chunk; returns log-probs (N, n / factor, V) and the new state.

        x_lens (N,): frames of x up to the end of its stream; n for all where it goes on, 0 in each step after the end.
        The numbers are the same as from `forward`, `delay` output frames later; frames before the first one and after
        the end are meaningless.
        """
        first, lens, *layer_state = state
        caches = Caches(layer_state)
        log_probs, first, lens = self.advance(x, x_lens, first, lens, caches)
        return log_probs, [first, lens, *caches.new]

    def advance(
        self, x: Tensor, x_lens: Tensor, first: Tensor, lens: Tensor, caches: Caches
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`step` with the two first tensors of a state, and the others in `caches`, which has the new ones after it.

        Returns the log-probs and the new values of `first` and `lens`.
        """
        size = x.shape[1]
        front_end = self.subsampling
        lens = torch.where(x_lens < size, torch.minimum(lens, first + x_lens), lens)
        x = self.normalise(x, valid_frames(first, size, lens))
        x = front_end.step(x, first, lens, caches)  # (N, n / factor, D)
        first_encoder_frame = first // front_end.factor - front_end.delay
        x = self.encoder.step(x, first_encoder_frame, self.out_length(lens), caches)
        return self._log_probs(x), first + size, lens

    def _log_probs(self, x: Tensor) -> Tensor:
        x = self.output(x)
        return x.to(torch.promote_types(x.dtype, torch.float32)).log_softmax(-1)


def layer_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Returns the matrices of the linear and the LSTM layers, without the output layer's: those that Muon updates."""
    output = getattr(model, "output", None)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.LSTM) and layer is not output]
    return [weight for layer in layers for weight in layer.parameters() if weight.ndim == 2]
