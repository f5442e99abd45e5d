"""Size, cost, memory and latency of a model from its configuration, without weights or training."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from asrtool.config import Config, ModelConfig
from asrtool.models.acoustic import AcousticModel, layer_matrices

FRAME_MS = 10  # of a feature frame
UTTERANCE_SECONDS = 15.0  # of the utterance that is counted: attention to everything costs more for longer ones
WHOLE = "the whole utterance"


class ModelInfo(NamedTuple):
    """Size, cost, memory and latency of a model."""

    parameters: dict[str, int]  # of each part
    outputs: int
    factor: int  # of subsampling
    flops: float  # of matrix products for a second of audio, forward; a multiplication and an addition are two
    optimizer_values: int  # numbers that the optimizer keeps: for each weight two of Adam, or one of Muon
    activations: float  # bytes saved for the backward pass of a batch
    batch_seconds: float
    left: float  # receptive field before a chunk, in feature frames
    right: float  # receptive field after a chunk
    chunk: int  # feature frames
    can_stream: bool

    @property
    def weights(self) -> float:
        """Bytes in training: weights, gradients and what the optimizer keeps, float32."""
        return 4.0 * (2 * sum(self.parameters.values()) + self.optimizer_values)

    @property
    def maximum_latency(self) -> float:
        """ms of audio that the first frame of a chunk waits for."""
        return FRAME_MS * (self.right + self.chunk)

    @property
    def average_latency(self) -> float:
        """ms of audio that a frame waits for, on average over a chunk."""
        return FRAME_MS * (self.right + self.chunk / 2)

    def lines(self) -> dict[str, str]:
        """All of it as text, by name."""
        parts = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items())
        weights = f"{self.weights / 1e9:.2f} GB of weights, gradients and optimizer"
        activations = f"{self.activations / 1e9:.2f} GB of activations for a batch of {self.batch_seconds:g} s"
        return {
            "parameters": f"{sum(self.parameters.values()):,} ({parts})",
            "outputs": f"{self.outputs:,}",
            "operations": f"{self.flops / 1e9:.2f} GFLOP for a second of audio, forward",
            "output frame": f"{self.factor * FRAME_MS} ms ({self.factor}x subsampling)",
            "training memory": f"{weights}, {activations}",
            "receptive field": self._receptive_field(),
            "latency": self._latency(),
            "can stream": "yes" if self.can_stream else "no",
        }

    def _receptive_field(self) -> str:
        if math.isinf(self.left) and math.isinf(self.right):
            return WHOLE
        return f"{_span(self.left, 'before')}, {_span(self.right, 'after')} its chunk"

    def _latency(self) -> str:
        if math.isinf(self.right):
            return WHOLE
        return f"{self.maximum_latency:,.0f} ms at most, {self.average_latency:,.0f} ms on average"


def _span(frames: float, where: str) -> str:
    return f"everything {where}" if math.isinf(frames) else f"{frames * FRAME_MS:,.0f} ms {where}"


def model_info(config: Config, num_outputs: int, utterance_seconds: float = UTTERANCE_SECONDS) -> ModelInfo:
    """The facts of the model of `config` with `num_outputs` outputs. No weights are drawn and no memory is allocated.

    Operations and activations are of utterances of `utterance_seconds`.
    """
    num_bins = config.features.num_bins
    with torch.device("meta"):
        model = AcousticModel(config.model, num_bins, num_outputs)
    parts = {"front end": model.subsampling, "encoder": model.encoder, "output": model.output}
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    num_muon = sum(weight.numel() for weight in layer_matrices(model))
    left, right = model.receptive_field()

    def build(model_config: ModelConfig) -> AcousticModel:
        # What depends on the lengths of utterances cannot be counted without memory, and these have no padding.
        return AcousticModel(model_config, num_bins, num_outputs, pack_frames=False)

    use_bf16 = config.training.precision == "bf16"
    return ModelInfo(
        parameters=parameters,
        outputs=num_outputs,
        factor=model.subsampling.factor,
        flops=_over_layers(config.model, lambda shallow: _flops(build, shallow, utterance_seconds)) / utterance_seconds,
        optimizer_values=2 * sum(parameters.values()) - (num_muon if config.training.optimizer == "muon" else 0),
        activations=_activations(build, config.model, config.data.batch_seconds, utterance_seconds, use_bf16),
        batch_seconds=config.data.batch_seconds,
        left=left,
        right=right,
        chunk=model.latency().chunk,
        can_stream=model.can_stream,
    )


Build = Callable[[ModelConfig], AcousticModel]


def _over_layers(config: ModelConfig, count: Callable[[ModelConfig], int]) -> int:
    """A count over the whole model, from the counts of its first layer and of its first two: all layers are alike."""
    one = count(_shallow(config, 1))
    if config.layers == 1:
        return one
    return one + (config.layers - 1) * (count(_shallow(config, 2)) - one)


def _shallow(config: ModelConfig, layers: int) -> ModelConfig:
    update: dict[str, Any] = {"layers": layers, "layer_drop": 0.0}
    for name in ("left_context", "right_context"):
        value = getattr(config, name)
        if isinstance(value, tuple):
            update[name] = value[:layers]
    return config.model_copy(update=update)


def _batch(model: AcousticModel, utterances: int, seconds: float) -> tuple[Tensor, Tensor]:
    """Features (N, T, F) and lengths (N,)."""
    frames = round(seconds * 1000 / FRAME_MS)
    return torch.zeros(utterances, frames, len(model.normalise.mean)), torch.full((utterances,), frames)


@torch.no_grad()
def _flops(build: Build, config: ModelConfig, seconds: float) -> int:
    """Operations of the matrix products of one utterance, forward."""
    unknown_to_torch = {
        torch.ops.aten.mkldnn_rnn_layer: _lstm_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    with FakeTensorMode(), FlopCounterMode(display=False, custom_mapping=unknown_to_torch) as counter:
        model = build(config)
        model(*_batch(model, 1, seconds))
    return counter.get_total_flops()


def _attention_flops(q_shape, k_shape, v_shape, *_, **__) -> int:
    return sdpa_flop_count(q_shape, k_shape, v_shape)


def _lstm_flops(x_shape, input_shape, hidden_shape, *_, **__) -> int:
    """Of an LSTM over (T, N, D) with weights (4H, D) and (4H, H)."""
    return 2 * x_shape[0] * x_shape[1] * input_shape[0] * (input_shape[1] + hidden_shape[1])


def _activations(build: Build, config: ModelConfig, batch_seconds: float, seconds: float, use_bf16: bool) -> float:
    """Bytes that autograd saves for a batch, from the bytes for one utterance of `seconds` and for two."""

    def saved(utterances: int) -> int:
        total = _over_layers(config, lambda shallow: _saved_bytes(build, shallow, utterances, seconds, use_bf16))
        if config.activation_checkpointing:  # each block saves its input, and the one being recomputed everything
            checkpointed = _shallow(config, 1)
            whole = checkpointed.model_copy(update={"activation_checkpointing": False})
            total += _saved_bytes(build, whole, utterances, seconds, use_bf16)
            total -= _saved_bytes(build, checkpointed, utterances, seconds, use_bf16)
        return total

    one = saved(1)
    return one + (batch_seconds / seconds - 1) * (saved(2) - one)


def _saved_bytes(build: Build, config: ModelConfig, utterances: int, seconds: float, use_bf16: bool) -> int:
    """Bytes of the distinct tensors that autograd saves, except weights."""
    saved: dict[int, Tensor] = {}

    def save(x: Tensor) -> Tensor:
        saved[x.untyped_storage()._cdata] = x
        return x

    with FakeTensorMode(), _same_on_all_cpus(use_bf16):
        model = build(config)
        hooks = torch.autograd.graph.saved_tensors_hooks(save, lambda x: x)
        with hooks, torch.autocast("cpu", torch.bfloat16, use_bf16):
            model(*_batch(model, utterances, seconds))
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    return sum(x.untyped_storage().nbytes() for storage, x in saved.items() if storage not in weights)


@contextmanager
def _same_on_all_cpus(use_bf16: bool) -> Iterator[None]:
    """Switches oneDNN off for bf16: it runs LSTMs, and saves less for them, only on CPUs with bf16 instructions."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = before and not use_bf16  # type: ignore[assignment]  # torch types it as a property
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
