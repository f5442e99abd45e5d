"""Whether a graph in onnxruntime gives the numbers of the model, on the same features."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asrtool.deploy.onnx_graphs import joined, pieces
from asrtool.models.acoustic import AcousticModel

# Of the largest difference of a log-prob p, relative to 1 + |p|. Single precision rounds at 6e-8; sums of hundreds of
# terms in dozens of layers, in another order, make that 1e-6 to 1e-5. A mask that is off by a frame, or a layer that
# is left out, makes 1e-2 and more; and 1e-4 is nothing to a search, whose beam is 8 to 16.
TOLERANCE = 1e-4
Utterances = tuple[Tensor, Tensor]  # features (N, T, F), lengths (N,)


@dataclass
class Parity:
    """What a comparison found, over all frames: the largest differences, and where the best unit is the same."""

    frames: int = 0
    equal: int = 0
    difference: float = 0.0  # of log-probs
    relative: float = 0.0  # the same over 1 + |log-prob|

    def add(self, found: Tensor, expected: Tensor, lens: Tensor) -> None:
        """Two log-probs (N, T', V) of `lens` (N,) frames. What is not a number differs without bound."""
        counts = torch.arange(expected.shape[1]) < lens[:, None]
        found, expected = found[counts], expected[counts]
        gap = (found - expected).abs().nan_to_num(torch.inf)
        self.frames += len(gap)
        self.equal += int((found.argmax(-1) == expected.argmax(-1)).sum())
        self.difference = max(self.difference, gap.max().item())
        self.relative = max(self.relative, (gap / (1 + expected.abs())).max().item())

    @property
    def holds(self) -> bool:
        """Whether the differences are those of rounding."""
        return self.relative <= TOLERANCE

    def facts(self) -> dict:
        """For export.json."""
        figures = {"largest_difference": self.difference, "largest_relative_difference": self.relative}
        return {"frames": self.frames, **figures, "best_unit_equal": self.equal / self.frames}


class Graph:
    """A graph in onnxruntime, on the CPU."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; it warns of what it optimises away
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def signature(self) -> dict[str, list[dict]]:
        """Name, type and shape of the inputs and the outputs; a name in a shape is a size that is free."""
        sides = {"inputs": self._session.get_inputs(), "outputs": self._session.get_outputs()}
        return {
            side: [{"name": one.name, "type": one.type, "shape": one.shape} for one in nodes]
            for side, nodes in sides.items()
        }

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """The outputs for the inputs in their order."""
        names = [one.name for one in self._session.get_inputs()]
        feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(array) for array in self._session.run(None, feeds)]


@torch.no_grad()
def compare_whole(model: AcousticModel, graph: Graph, batches: Iterable[Utterances]) -> Parity:
    """The graph of whole utterances against `forward`."""
    parity = Parity()
    for x, x_lens in batches:
        expected, lens = model(x, x_lens)
        found, found_lens = graph(x, x_lens)
        if not torch.equal(found_lens, lens) or found.shape != expected.shape:
            raise AssertionError(f"lengths {found_lens.tolist()} of the graph are not the model's {lens.tolist()}")
        parity.add(found, expected, lens)
    return parity


@torch.no_grad()
def compare_steps(model: AcousticModel, graph: Graph, batches: Iterable[Utterances]) -> Parity:
    """The graph of a step, over whole streams chunk by chunk, against `forward`; streams end at random places."""
    parity, draw = Parity(), torch.Generator().manual_seed(1)
    for x, x_lens in batches:
        x_lens = 1 + (torch.rand(len(x_lens), generator=draw) * x_lens).long()  # 1 to all of them
        x = x[:, : x_lens.max()]
        expected, lens = model(x, x_lens)
        parity.add(stream(model, graph, x, x_lens), expected, lens)
    return parity


def stream(model: AcousticModel, step: Graph, x: Tensor, x_lens: Tensor) -> Tensor:
    """Log-probs (N, T', V) of utterances (N, T, F), (N,), as a batch of streams through the graph of a step."""
    state, made = model.initial_state(len(x)), []
    for piece, lens in zip(*pieces(model, x, x_lens), strict=True):
        log_probs, *state = step(piece, lens, *state)
        made.append(log_probs)
    return joined(model, torch.stack(made), model.out_length(x.shape[1]))
