"""What a configuration amounts to, without training anything."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from asrtool.config import Config
from asrtool.models.acoustic import AcousticModel

FRAME_MS = 10  # of a feature frame
UTTERANCE_SECONDS = 15.0  # counted over: attention to everything costs more for longer ones


class Info(NamedTuple):
    """Sizes of a model; latencies in ms, of what must have been heard before a frame is known."""

    parameters: dict[str, int]  # by part
    units: int
    factor: int
    flops: float  # of matrix products, a multiplication and an addition being two, per second of audio, forward
    weights: float  # bytes in training: weights, gradients and two moments of Adam, float32
    activations: float  # bytes kept for the backward pass of a batch
    batch_seconds: float
    left: float  # feature frames
    right: float
    chunk: int
    streams: bool

    @property
    def maximum_latency(self) -> float:
        """ms, of the first frame of a chunk."""
        return FRAME_MS * (self.right + self.chunk)

    @property
    def average_latency(self) -> float:
        """ms, over the frames of a chunk."""
        return FRAME_MS * (self.right + self.chunk / 2)

    def lines(self) -> dict[str, str]:
        """All of it, readable."""
        parts = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items())
        gigabytes = f"{self.weights / 1e9:.2f} GB of weights, gradients and Adam, {self.activations / 1e9:.2f} GB kept"
        return {
            "parameters": f"{sum(self.parameters.values()):,} ({parts})",
            "units": f"{self.units:,}",
            "operations": f"{self.flops / 1e9:.2f} GFLOP a second of audio, forward",
            "output frame": f"{self.factor * FRAME_MS} ms ({self.factor}x subsampling)",
            "training memory": f"{gigabytes} of a batch of {self.batch_seconds:g} s",
            "receptive field": f"{_span(self.left, 'before')}, {_span(self.right, 'after')} its chunk",
            "latency": f"{_ms(self.maximum_latency)} at most, {_ms(self.average_latency)} on average",
            "streams": "yes" if self.streams else "no",
        }


def _ms(value: float) -> str:
    return "the whole utterance" if math.isinf(value) else f"{value:,.0f} ms"


def _span(frames: float, where: str) -> str:
    return f"everything {where}" if math.isinf(frames) else f"{frames * FRAME_MS:,.0f} ms {where}"


def model_info(config: Config, units: int) -> Info:
    """Facts of the model of `config` with `units` outputs. No weights are drawn and no memory is taken."""
    with torch.device("meta"):
        model = AcousticModel(config, units)
    parts = {"front end": model.subsampling, "encoder": model.encoder, "output": model.output}
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    latency, (left, right) = model.latency(), model.receptive_field()
    return Info(
        parameters=parameters,
        units=units,
        factor=model.subsampling.factor,
        flops=_over_layers(_flops, config, units) / UTTERANCE_SECONDS,
        weights=16.0 * sum(parameters.values()),
        activations=_activations(config, units),
        batch_seconds=config.data.batch_seconds,
        left=left,
        right=right,
        chunk=latency.chunk,
        streams=model.streams,
    )


def _over_layers(count: Callable[[Config, int], int], config: Config, units: int) -> int:
    """A count over the whole model from those of one layer and of two: all layers do the same work."""
    one = count(_shallow(config, 1), units)
    return (
        one if config.model.layers == 1 else one + (config.model.layers - 1) * (count(_shallow(config, 2), units) - one)
    )


def _shallow(config: Config, layers: int, **model) -> Config:
    contexts = {
        name: value[:layers]
        for name in ("left_context", "right_context")
        if isinstance(value := getattr(config.model, name), tuple)
    }
    update = {"layers": layers, "layer_drop": 0.0, **contexts, **model}
    return config.model_copy(update={"model": config.model.model_copy(update=update)})


def _padded_model(config: Config, units: int) -> AcousticModel:
    """The model; what the lengths of utterances decide cannot be counted without memory, and these have no padding."""
    model = AcousticModel(config, units)
    model.encoder.packs = False
    return model


def _batch(model: AcousticModel, utterances: int = 1) -> tuple[Tensor, Tensor]:
    frames = round(UTTERANCE_SECONDS * 1000 / FRAME_MS)
    return torch.zeros(utterances, frames, len(model.normalise.mean)), torch.full((utterances,), frames)


@torch.no_grad()
def _flops(config: Config, units: int) -> int:
    """Operations of the matrix products over an utterance, forward."""
    unknown_to_torch = {
        torch.ops.aten.mkldnn_rnn_layer: _lstm_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    with FakeTensorMode(), FlopCounterMode(display=False, custom_mapping=unknown_to_torch) as counter:
        model = _padded_model(config, units)
        model(*_batch(model))
    return counter.get_total_flops()


def _attention_flops(q_shape, k_shape, v_shape, *_, **__) -> int:
    return sdpa_flop_count(q_shape, k_shape, v_shape)


def _lstm_flops(x_shape, input_shape, hidden_shape, *_, **__) -> int:
    """Of an LSTM over (T, N, D) with weights (4H, D) and (4H, H)."""
    return 2 * x_shape[0] * x_shape[1] * input_shape[0] * (input_shape[1] + hidden_shape[1])


def _activations(config: Config, units: int) -> float:
    """Bytes that autograd keeps of a batch, from those of one utterance and of two."""
    one, two = (_kept_of(config, units, utterances) for utterances in (1, 2))
    return one + (config.data.batch_seconds / UTTERANCE_SECONDS - 1) * (two - one)


def _kept_of(config: Config, units: int, utterances: int) -> int:
    """Of so many utterances: recomputed blocks keep their input, and one of them all its insides."""

    def kept(config: Config, units: int) -> int:
        return _kept(config, units, utterances)

    total = _over_layers(kept, config, units)
    if config.model.activation_checkpointing:
        total += kept(_shallow(config, 1, activation_checkpointing=False), units) - kept(_shallow(config, 1), units)
    return total


def _kept(config: Config, units: int, utterances: int) -> int:
    """Bytes of the distinct tensors, weights apart, that autograd keeps."""
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x
        return x

    bf16 = config.training.precision == "bf16"
    with FakeTensorMode(), _same_on_all_cpus(bf16):
        model = _padded_model(config, units)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", torch.bfloat16, bf16):
            model(*_batch(model, utterances))
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    return sum(x.untyped_storage().nbytes() for storage, x in kept.items() if storage not in weights)


@contextmanager
def _same_on_all_cpus(bf16: bool) -> Iterator[None]:
    """Without oneDNN for bf16: it takes LSTMs, of which it keeps less, only where there are bf16 instructions."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = before and not bf16
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
