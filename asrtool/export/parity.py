"""Parity of a graph in onnxruntime with the model: whether its log-probs are the same on the same features."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from asrtool.export.onnx_graphs import join_chunks, split_into_chunks
from asrtool.export.sherpa_onnx_graph import SILENT_BIN, SherpaStep, tail_padding_frames
from asrtool.models.acoustic import AcousticModel

# For the largest difference of a log-prob p, relative to 1 + |p|. Single precision rounds at 6e-8; sums of hundreds of
# terms in dozens of layers, in another order, lead to 1e-6 to 1e-5. A mask that is off by a frame, or a missing layer,
# leads to 1e-2 and more; and 1e-4 does not matter to a search, whose beam is 8 to 16.
TOLERANCE = 1e-4
FeatureBatch = tuple[Tensor, Tensor]  # features (N, T, F), lengths (N,)


@dataclass
class Parity:
    """The result of a comparison over all frames."""

    frames: int = 0
    best_unit_equal: int = 0  # frames in which both have the same best unit
    largest_difference: float = 0.0  # of log-probs
    largest_relative_difference: float = 0.0  # of log-probs, relative to 1 + |log-prob|

    def add(self, log_probs: Tensor, expected: Tensor, lens: Tensor) -> None:
        """Adds the comparison of two log-probs (N, T', V) of `lens` (N,) frames. NaN differs infinitely."""
        is_valid = torch.arange(expected.shape[1]) < lens[:, None]  # (N, T')
        log_probs = log_probs[is_valid]  # (frames, V)
        expected = expected[is_valid]
        difference = (log_probs - expected).abs().nan_to_num(torch.inf)
        relative = difference / (1 + expected.abs())
        self.frames += len(difference)
        self.best_unit_equal += int((log_probs.argmax(-1) == expected.argmax(-1)).sum())
        self.largest_difference = max(self.largest_difference, difference.max().item())
        self.largest_relative_difference = max(self.largest_relative_difference, relative.max().item())

    @property
    def is_within_tolerance(self) -> bool:
        """Returns True if the differences can be explained by rounding."""
        return self.largest_relative_difference <= TOLERANCE

    def to_dict(self) -> dict:
        """Returns the values for export.json; `best_unit_equal` is a share of the frames there."""
        return {
            "frames": self.frames,
            "largest_difference": self.largest_difference,
            "largest_relative_difference": self.largest_relative_difference,
            "best_unit_equal": self.best_unit_equal / self.frames,
        }


class OnnxGraph:
    """A graph in onnxruntime, on the CPU."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only; it warns about nodes that it optimises away
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def signature(self) -> dict[str, list[dict]]:
        """Returns name, type and shape of the inputs and the outputs; a name in a shape is a free size."""
        sides = {"inputs": self._session.get_inputs(), "outputs": self._session.get_outputs()}
        return {
            side: [{"name": node.name, "type": node.type, "shape": node.shape} for node in nodes]
            for side, nodes in sides.items()
        }

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Returns the outputs for the inputs, in the order of the graph."""
        names = [node.name for node in self._session.get_inputs()]
        feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(array) for array in self._session.run(None, feeds)]


@torch.no_grad()
def check_forward_graph(model: AcousticModel, graph: OnnxGraph, batches: Iterable[FeatureBatch]) -> Parity:
    """Compares the graph of whole utterances with `forward`."""
    parity = Parity()
    for x, x_lens in batches:
        expected, lens = model(x, x_lens)
        log_probs, graph_lens = graph(x, x_lens)
        if not torch.equal(graph_lens, lens) or log_probs.shape != expected.shape:
            raise AssertionError(f"lengths {graph_lens.tolist()} of the graph are not the model's {lens.tolist()}")
        parity.add(log_probs, expected, lens)
    return parity


@torch.no_grad()
def check_step_graph(model: AcousticModel, graph: OnnxGraph, batches: Iterable[FeatureBatch]) -> Parity:
    """Compares the graph of a step, run over whole streams, with `forward`; streams end at random frames."""
    parity = Parity()
    generator = torch.Generator().manual_seed(1)
    for x, x_lens in batches:
        x_lens = 1 + (torch.rand(len(x_lens), generator=generator) * x_lens).long()  # from 1 to all frames
        x = x[:, : x_lens.max()]
        expected, lens = model(x, x_lens)
        parity.add(run_in_steps(model, graph, x, x_lens), expected, lens)
    return parity


@torch.no_grad()
def check_sherpa_graph(model: AcousticModel, graph: OnnxGraph, batches: Iterable[FeatureBatch]) -> Parity:
    """Compares the graph of a call of sherpa-onnx with the module that it was traced from, over whole streams."""
    parity = Parity()
    step = SherpaStep(model).eval()
    for x, x_lens in batches:
        is_silent = torch.arange(x.shape[1]) >= x_lens[:, None]  # (N, T)
        x = x.masked_fill(is_silent[:, :, None], SILENT_BIN)
        padding = tail_padding_frames(model) + -(x.shape[1] + tail_padding_frames(model)) % step.chunk
        chunks = pad(x, (0, 0, 0, padding), value=SILENT_BIN).split(step.chunk, 1)
        expected_state = state = step.initial_state(len(x))
        for chunk in chunks:
            expected, *expected_state = step(chunk, expected_state)
            log_probs, *state = graph(chunk.contiguous(), *state)
            parity.add(log_probs, expected, torch.full((len(x),), expected.shape[1]))
    return parity


def run_in_steps(model: AcousticModel, step: OnnxGraph, x: Tensor, x_lens: Tensor) -> Tensor:
    """Returns the log-probs (N, T', V) of utterances (N, T, F), (N,), streamed through the graph of a step."""
    state = model.initial_state(len(x))
    steps = []
    for chunk, lens in zip(*split_into_chunks(model, x, x_lens), strict=True):
        log_probs, *state = step(chunk, lens, *state)
        steps.append(log_probs)
    return join_chunks(model, torch.stack(steps), model.out_length(x.shape[1]))
