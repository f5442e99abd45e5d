"""The model as ONNX graphs: one over whole utterances, and of a model that streams one of a step.

             inputs                                          outputs
    whole    x (N, T, F), x_lens (N,)                        log_probs (N, T', V), log_probs_lens (N,)
    step     x (N, chunk, F), x_lens (N,), the state's NAME  log_probs (N, chunk / factor, V), the state's new_NAME

N and T are free, from 1 on. What the tensors mean: see `AcousticModel.forward` and `step`.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asrtool.models.acoustic import AcousticModel
from asrtool.models.lc_blstm import LcBlstm

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

BATCH = 2  # utterances of the example that is traced; from two on, a size counts as free


def whole_graph(model: AcousticModel, opset: int) -> "ONNXProgram":
    """`forward` as a graph. The model is in evaluation mode and on the CPU."""
    module = InSteps(model) if isinstance(model.encoder, LcBlstm) else Whole(_with_lstm_nodes(model))
    frames = 7 * model.latency().chunk + 1  # fills neither strides nor chunks: a trace must see all padding
    inputs = _features(model, frames), torch.tensor([frames, frames - 1])
    names = ["x", "x_lens"], ["log_probs", "log_probs_lens"]
    return _trace(module, inputs, ({0: "N", 1: "T"}, {0: "N"}), names, opset)


def step_graph(model: AcousticModel, opset: int) -> "ONNXProgram":
    """`step` of one chunk as a graph. The model streams; it is in evaluation mode and on the CPU."""
    chunk, rows, state = model.latency().chunk, {0: "N"}, state_names(model)
    inputs = _features(model, chunk), torch.full((BATCH,), chunk), model.initial_state(BATCH)
    names = ["x", "x_lens", *state], ["log_probs", *(f"new_{name}" for name in state)]
    return _trace(Step(model), inputs, (rows, rows, [rows] * len(state)), names, opset)


def state_names(model: AcousticModel) -> list[str]:
    """A name for each tensor of a state, in its order."""
    counts = {part: len(getattr(model, part).initial_state(1)) for part in ("subsampling", "encoder")}
    return ["next_frame", "length", *(f"{part}_{i}" for part, count in counts.items() for i in range(count))]


class Whole(nn.Module):
    """`forward` with what it always takes."""

    def __init__(self, model: AcousticModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, ...]:
        """As that of the model."""
        return self.model(x, x_lens)


class InSteps(Whole):
    """Whole utterances as streams, step by step: where the model has a loop whose turns a trace would count."""

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, ...]:
        """As that of the model."""
        from torch._higher_order_ops.scan import scan

        def step(state: list[Tensor], piece: tuple[Tensor, Tensor]) -> tuple[list[Tensor], Tensor]:
            log_probs, state = self.model.step(*piece, state)
            return [tensor.clone() for tensor in state], log_probs  # clones, for no input may come out as it is

        _, made = scan(step, self.model.initial_state(x.shape[0]), pieces(self.model, x, x_lens))
        return joined(self.model, made, self.model.out_length(x.shape[1])), self.model.out_length(x_lens)


class LstmNode(nn.Module):
    """An LSTM over any number of frames as a node of ONNX; torch would trace one step for each frame."""

    def __init__(self, lstm: nn.LSTM):
        super().__init__()
        self.size = lstm.hidden_size
        self.register_buffer("w", self._reordered(lstm.weight_ih_l0)[None])
        self.register_buffer("r", self._reordered(lstm.weight_hh_l0)[None])
        self.register_buffer("b", torch.cat([self._reordered(lstm.bias_ih_l0), self._reordered(lstm.bias_hh_l0)])[None])

    @staticmethod
    def _reordered(weight: Tensor) -> Tensor:
        """Input, forget, cell, output gate of torch to input, output, forget, cell of ONNX."""
        i, f, c, o = weight.detach().chunk(4)
        return torch.cat([i, o, f, c])

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(N, T, D); returns (N, T, size), and no state."""
        shape = x.shape[1], 1, x.shape[0], self.size
        inputs = x.transpose(0, 1), self.w, self.r, self.b
        y = torch.onnx.ops.symbolic("LSTM", inputs, {"hidden_size": self.size}, dtype=x.dtype, shape=shape)
        return y.squeeze(1).transpose(0, 1), None


class Step(Whole):
    """`step` with a flat result."""

    def forward(self, x: Tensor, x_lens: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
        """As `step` of the model."""
        log_probs, state = self.model.step(x, x_lens, state)
        return log_probs, *state


def pieces(model: AcousticModel, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
    """Utterances (N, T, F), (N,) as the M steps of streams, one chunk each: (M, N, chunk, F) and (M, N)."""
    chunk = model.latency().chunk
    per_step = chunk // model.subsampling.factor
    steps = (model.out_length(x.shape[1]) + model.delay + per_step - 1) // per_step
    x = pad(x, (0, 0, model.lead, steps * chunk - model.lead - x.shape[1]))
    begin = chunk * torch.arange(steps, device=x.device)[:, None]
    return x.unflatten(1, (steps, chunk)).transpose(0, 1), (x_lens + model.lead - begin).clamp(0, chunk)


def joined(model: AcousticModel, made: Tensor, size: int) -> Tensor:
    """Log-probs of steps (M, N, n, V) one after the other: the `size` frames that count, (N, size, V)."""
    return made.transpose(0, 1).flatten(1, 2)[:, model.delay : model.delay + size]


def _with_lstm_nodes(model: AcousticModel) -> AcousticModel:
    """The model, or a copy of it with nodes for its LSTMs."""
    if not any(isinstance(module, nn.LSTM) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for layer in model.encoder.layers:
        layer.ahead, layer.back = LstmNode(layer.ahead), LstmNode(layer.back)
    return model


def _features(model: AcousticModel, frames: int) -> Tensor:
    return torch.zeros(BATCH, frames, len(model.normalise.mean))


def _trace(module: nn.Module, inputs: tuple, free: tuple, names: tuple, opset: int) -> "ONNXProgram":
    taken, made = names
    sizes = {"dynamic_shapes": free, "input_names": taken, "output_names": made, "opset_version": opset}
    with quiet(), torch.no_grad():
        return torch.onnx.export(module.eval(), inputs, dynamo=True, verbose=False, **sizes)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch and onnxruntime say about their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
