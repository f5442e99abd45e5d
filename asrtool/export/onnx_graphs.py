"""The model as ONNX graphs: one over whole utterances and, for a model that can stream, one of a single step.

               inputs                                          outputs
    forward    x (N, T, F), x_lens (N,)                        log_probs (N, T', V), log_probs_lens (N,)
    step       x (N, chunk, F), x_lens (N,), the state's NAME  log_probs (N, chunk / factor, V), the state's new_NAME

N and T are free, from 1 on. `AcousticModel.forward` and `step` describe the tensors.
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
from asrtool.models.blstm import Blstm
from asrtool.models.lc_blstm import LcBlstm

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

EXAMPLE_BATCH = 2  # utterances in the traced example; the exporter takes a size of 1 for a constant


def forward_graph(model: AcousticModel, opset: int) -> "ONNXProgram":
    """Returns `forward` as a graph. The model is in evaluation mode and on the CPU."""
    module = ForwardInSteps(model) if isinstance(model.encoder, LcBlstm) else Forward(_replace_lstms(model))
    frames = 7 * model.latency().chunk + 1  # fills neither strides nor chunks, so that the trace contains all padding
    inputs = (_example_features(model, frames), torch.tensor([frames, frames - 1]))
    dynamic_shapes = ({0: "N", 1: "T"}, {0: "N"})
    return trace(module, inputs, dynamic_shapes, ["x", "x_lens"], ["log_probs", "log_probs_lens"], opset)


def step_graph(model: AcousticModel, opset: int) -> "ONNXProgram":
    """Returns `step` over one chunk as a graph. The model can stream; it is in evaluation mode and on the CPU."""
    chunk = model.latency().chunk
    names = state_names(model)
    inputs = (
        _example_features(model, chunk),
        torch.full((EXAMPLE_BATCH,), chunk),
        model.initial_state(EXAMPLE_BATCH),
    )
    batch_axis = {0: "N"}
    dynamic_shapes = (batch_axis, batch_axis, [batch_axis] * len(names))
    outputs = ["log_probs", *(f"new_{name}" for name in names)]
    return trace(Step(model), inputs, dynamic_shapes, ["x", "x_lens", *names], outputs, opset)


def state_names(model: AcousticModel) -> list[str]:
    """Returns a name for each tensor of a state, in the order of the state."""
    names = ["next_frame", "length"]
    names += [f"subsampling_{i}" for i in range(len(model.subsampling.initial_state(1)))]
    names += [f"encoder_{i}" for i in range(len(model.encoder.initial_state(1)))]
    return names


def common_value(tensor: Tensor) -> int | float:
    """Returns the value that all elements of the tensor have; 0 if there are none, as in some tensors of a state."""
    values = tensor.unique().tolist()
    assert len(values) <= 1
    return values[0] if values else 0.0


class Forward(nn.Module):
    """`forward` of the model with its two tensors as the only arguments."""

    def __init__(self, model: AcousticModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, ...]:
        """(N, T, F), (N,); returns log-probs (N, T', V) and lengths (N,)."""
        return self.model(x, x_lens)


class ForwardInSteps(nn.Module):
    """`forward` computed as a stream, step by step, for models with a loop whose number of turns a trace would fix."""

    def __init__(self, model: AcousticModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, ...]:
        """(N, T, F), (N,); returns log-probs (N, T', V) and lengths (N,)."""
        from torch._higher_order_ops.scan import scan

        def step(state: list[Tensor], chunk: tuple[Tensor, Tensor]) -> tuple[list[Tensor], Tensor]:
            log_probs, state = self.model.step(*chunk, state)
            return [tensor.clone() for tensor in state], log_probs  # cloned: scan forbids an output that is an input

        chunks = split_into_chunks(self.model, x, x_lens)
        _, log_probs = scan(step, self.model.initial_state(x.shape[0]), chunks)  # (M, N, n, V)
        return join_chunks(self.model, log_probs, self.model.out_length(x.shape[1])), self.model.out_length(x_lens)


class Step(nn.Module):
    """`step` of the model with a flat result."""

    def __init__(self, model: AcousticModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, x_lens: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
        """(N, chunk, F), (N,), the state; returns log-probs (N, chunk / factor, V) and the tensors of the new state."""
        log_probs, state = self.model.step(x, x_lens, state)
        return log_probs, *state


class OnnxLstm(nn.Module):
    """An LSTM as ONNX's LSTM operator, over any number of frames; torch would trace one step for each frame."""

    w: Tensor
    r: Tensor
    b: Tensor

    def __init__(self, lstm: nn.LSTM):
        super().__init__()
        self.size = lstm.hidden_size
        weights = {name: self._reorder_gates(weight) for name, weight in lstm.named_parameters()}
        self.register_buffer("w", weights["weight_ih_l0"][None])
        self.register_buffer("r", weights["weight_hh_l0"][None])
        self.register_buffer("b", torch.cat([weights["bias_ih_l0"], weights["bias_hh_l0"]])[None])

    @staticmethod
    def _reorder_gates(weight: Tensor) -> Tensor:
        """From torch's order (input, forget, cell, output) to the order of ONNX (input, output, forget, cell)."""
        i, f, c, o = weight.detach().chunk(4)
        return torch.cat([i, o, f, c])

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(N, T, D); returns (N, T, size), and no state."""
        inputs = (x.transpose(0, 1), self.w, self.r, self.b)
        shape = (x.shape[1], 1, x.shape[0], self.size)  # (T, directions, N, size)
        y = torch.onnx.ops.symbolic("LSTM", inputs, {"hidden_size": self.size}, dtype=x.dtype, shape=shape)
        return y.squeeze(1).transpose(0, 1), None


def split_into_chunks(model: AcousticModel, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
    """Splits utterances (N, T, F), (N,) into the M steps of streams, one chunk each: (M, N, chunk, F) and (M, N)."""
    chunk = model.latency().chunk
    frames_per_step = chunk // model.subsampling.factor
    steps = (model.out_length(x.shape[1]) + model.delay + frames_per_step - 1) // frames_per_step
    x = pad(x, (0, 0, model.lead_padding, steps * chunk - model.lead_padding - x.shape[1]))  # (N, M * chunk, F)
    starts = chunk * torch.arange(steps, device=x.device)[:, None]  # (M, 1)
    chunks = x.unflatten(1, (steps, chunk)).transpose(0, 1)  # (M, N, chunk, F)
    return chunks, (x_lens + model.lead_padding - starts).clamp(0, chunk)


def join_chunks(model: AcousticModel, log_probs: Tensor, size: int) -> Tensor:
    """Joins the log-probs of steps (M, N, n, V); returns the `size` frames after the model's delay, (N, size, V)."""
    return log_probs.transpose(0, 1).flatten(1, 2)[:, model.delay : model.delay + size]


def _replace_lstms(model: AcousticModel) -> AcousticModel:
    """Returns the model, or a copy of it with ONNX operators instead of its LSTMs."""
    if not any(isinstance(module, nn.LSTM) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    assert isinstance(model.encoder, Blstm)  # the only other encoder with LSTMs, LcBlstm, is traced in steps
    for layer in model.encoder.layers:
        layer.ahead = OnnxLstm(layer.ahead)  # type: ignore[assignment]  # it has the LSTM's interface, not its type
        layer.back = OnnxLstm(layer.back)  # type: ignore[assignment]
    return model


def _example_features(model: AcousticModel, frames: int) -> Tensor:
    return torch.zeros(EXAMPLE_BATCH, frames, len(model.normalise.mean))


def trace(
    module: nn.Module,
    inputs: tuple,
    dynamic_shapes: tuple,
    input_names: list[str],
    output_names: list[str],
    opset: int,
) -> "ONNXProgram":
    """Traces a module in evaluation mode; the arguments are those of torch.onnx.export."""
    with silence_exporter(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            verbose=False,
            dynamic_shapes=dynamic_shapes,
            input_names=input_names,
            output_names=output_names,
            opset_version=opset,
        )
    assert program is not None  # with dynamo, torch returns a program
    return program


@contextmanager
def silence_exporter() -> Iterator[None]:
    """Suppresses the warnings and log lines of torch and onnxruntime about their internals."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
