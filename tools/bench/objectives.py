"""LF-MMI: forward and backward of the loss, beside k2 and beside CTC, and its share of a training step.

The log-probs are random, the transcripts come from a random chain of units with few ways on from each, as phones have
them, and the denominator is the 4-gram of such transcripts, made as training makes it.

loss        All of the objective (`asrtool.objectives.mmi`), numerators being made included; no leak, no CTC added.
            Baseline: torch's CTC on the same log-probs.
sums        The denominator alone, on the first --k2-batch utterances. Baseline: k2, all paths (asrtool/decoding/k2_search.py).
            "k2, beam" leaves out paths --k2-beam nats worse than the best, as recipes do: icefall's is 10.
step        A training step with the objective. Baseline: the same with CTC. The share of the loss in a step is the
            median of that in the same turns.
memory      What the loss takes at most, in a process of its own, for each of --memory-frames: linear in frames.
"""

import argparse
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from common import Report, Run, in_turns, parse, parser
from encoders import peak
from torch import Tensor
from training_step import make_session

from asrtool.config import Config, Objective
from asrtool.data.batch import Batch, Position
from asrtool.device import pick_device
from asrtool.errors import UserError
from asrtool.graphs.training_graphs import UnitNgram, over_frames
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.forward_backward import path_sum
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.mmi import Mmi
from asrtool.text.tokenizer import SymbolTokenizer
from asrtool.training.train import training_step

FRAME_SECONDS = 0.04
WAYS = 0.05  # of the Dirichlet that draws what follows a unit: two or three units have most of it


class Case:
    """Objective, batch and log-probs of `frames` frames an utterance."""

    def __init__(self, arguments: argparse.Namespace, frames: int):
        draw, self.device = np.random.default_rng(1), pick_device(arguments.device)
        self.tokenizer = SymbolTokenizer.train("char", ["".join(map(chr, range(0x3B1, 0x3B1 + arguments.units - 1)))])
        self.units = self.tokenizer.size
        following = draw.dirichlet(np.full(self.units - 1, WAYS), self.units)
        texts = [self._text(draw, following, int(draw.integers(20, 60))) for _ in range(arguments.transcripts)]
        counts = UnitNgram.count(map(self.tokenizer.encode, texts), 4)
        self.config = Config(objective=Objective(kind="mmi", leaky_hmm=0.0, ctc_weight=0.0), model={**arguments.model})
        self.ngram = UnitNgram(4, counts)
        self.mmi = Mmi(self.config.objective, self.tokenizer, self.ngram, self.device)
        self.batch = self._batch(texts[: arguments.batch], frames)
        self.lens = torch.full((arguments.batch,), frames, device=self.device)
        torch.manual_seed(1)
        log_probs = (3 * torch.randn(arguments.batch, frames, self.units)).log_softmax(2)
        self.log_probs = log_probs.to(self.device).requires_grad_()

    def _text(self, draw: np.random.Generator, following: np.ndarray, length: int) -> str:
        units = [0]
        while len(units) <= length:
            units.append(1 + int(draw.choice(self.units - 1, p=following[units[-1]])))
        return "".join(self.tokenizer.symbols[unit] for unit in units[1:])

    def _batch(self, texts: list[str], frames: int) -> Batch:
        """A unit every six frames of 40 ms, about what characters and phones have."""
        said = "".join(texts * (1 + frames // 100))
        texts = [said[20 * n :][: max(1, frames // 6)] for n in range(len(texts))]
        factor = self.config.model.subsampling.factor
        units = [torch.tensor(self.tokenizer.encode(text)) for text in texts]
        targets = torch.nn.utils.rnn.pad_sequence(units, batch_first=True)
        sizes, lens = torch.tensor(list(map(len, units))), torch.full((len(texts),), factor * frames)
        features = torch.randn(len(texts), factor * frames, self.config.features.num_bins)
        seconds = FRAME_SECONDS * frames * len(texts)
        return Batch(Position(), Position(), texts, texts, features, lens, targets, sizes, seconds)

    def loss(self, objective: Mmi | Ctc) -> None:
        """Forward and backward."""
        self.finish(objective(self.log_probs, self.lens, self.batch))

    def finish(self, loss: Tensor) -> None:
        """The backward pass."""
        self.log_probs.grad = None
        loss.sum().backward()
        self.log_probs.grad[0, 0, 0].item()  # waits for the device


def compare_losses(report: Report, case: Case) -> None:
    """The whole loss beside CTC."""
    ctc = Ctc()
    runs = [Run("mmi", lambda: case.loss(case.mmi), case.batch.seconds)]
    report.compare("loss", [*runs, Run("torch ctc", lambda: case.loss(ctc), case.batch.seconds)])


def compare_sums(report: Report, case: Case, arguments: argparse.Namespace) -> None:
    """The denominator beside k2."""
    from asrtool.decoding import k2_search

    graph, count = over_frames(case.ngram.graph()), arguments.k2_batch
    log_probs, lens, ours = case.log_probs[:count], case.lens[:count], GraphBatch(graph, case.device)
    try:
        theirs = k2_search.training_graphs(graph, case.device)
    except UserError as error:
        report.fact("beside k2", f"not measured: {error}")
        return
    seconds = case.batch.seconds * count / arguments.batch

    def k2(beam: float) -> Tensor:
        return k2_search.path_sum(log_probs, lens, theirs, beam=beam)

    difference = path_sum(log_probs, lens, ours) - k2(k2_search.EXACT)
    report.fact("largest difference from k2, nats", float(difference.detach().abs().max()))
    runs = [
        Run("asrtool", lambda: case.finish(path_sum(log_probs, lens, ours)), seconds),
        Run(f"k2, beam {arguments.k2_beam:g}", lambda: case.finish(k2(arguments.k2_beam)), seconds),
        Run("k2", lambda: case.finish(k2(k2_search.EXACT)), seconds),
    ]
    report.compare("sums", runs)
    report.aim("speed beside k2", report.rate("sums", "ratio"), 1.0)


def compare_steps(report: Report, case: Case, arguments: argparse.Namespace) -> None:
    """Training steps with either objective, and the share of the loss."""

    def step(objective: Mmi | Ctc):
        model = AcousticModel(case.config, case.units).to(case.device).train()
        session = make_session(model, case.config, case.device, objective)
        return lambda: training_step(session, [case.batch])

    mmi, ctc = (Run(type(one).__name__.lower(), step(one), case.batch.seconds) for one in (case.mmi, Ctc()))
    report.compare("step", [mmi, ctc])
    alone = Run("loss", lambda: case.loss(case.mmi))
    (whole, _), (part, _) = in_turns([mmi, alone], arguments.repeats, arguments.quick, arguments.limit)
    share = statistics.median(one / all_ for one, all_ in zip(part, whole, strict=True))
    report.fact("share of the loss in a step", share)
    report.aim("share of the loss in a step", share, 0.15, at_most=True)


def report_memory(report: Report, arguments: argparse.Namespace) -> None:
    """Peaks of the loss; by how much each frame adds to them."""
    found = []
    for frames in arguments.memory_frames:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(_peak_of_loss, arguments, frames).result() / 1e6)
        report.fact(f"MB of the loss at most, {frames} frames", found[-1])
    growth = (found[-1] - found[0]) / (arguments.memory_frames[-1] - arguments.memory_frames[0])
    report.fact("MB a further frame", growth)


def _peak_of_loss(arguments: argparse.Namespace, frames: int) -> float:
    torch.set_num_threads(arguments.threads)
    few = Case(arguments, 10)
    few.loss(few.mmi)  # what is loaded at the first call
    case = Case(arguments, frames)
    before = peak(case.device)
    case.loss(case.mmi)
    return peak(case.device) - before


def options() -> argparse.ArgumentParser:
    """Sizes, threads and device."""
    made = parser(__doc__, repeats=5, limit=120.0)
    made.add_argument("--units", type=int, default=40, help="outputs of the model (%(default)s)")
    made.add_argument("--transcripts", type=int, default=520, help="that the n-gram is of (%(default)s)")
    made.add_argument("--batch", type=int, default=16, help="utterances (%(default)s)")
    made.add_argument("--frames", type=int, default=250, help="of 40 ms, of each (%(default)s)")
    made.add_argument("--k2-batch", type=int, default=4, help="utterances, beside k2 (%(default)s)")
    made.add_argument("--k2-beam", type=float, default=10.0, help="(%(default)s)")
    made.add_argument("--dim", type=int, default=256, help="model width of the training step (%(default)s)")
    made.add_argument("--layers", type=int, default=12, help="of it (%(default)s)")
    made.add_argument("--memory-frames", type=int, nargs="+", default=[250, 500, 1000])
    made.add_argument("--threads", type=int, default=1, help="(%(default)s)")
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (%(default)s)")
    return made


def main() -> int:
    """Measure and report."""
    quick = {"units": 8, "transcripts": 20, "batch": 2, "frames": 20, "k2_batch": 2, "dim": 16, "layers": 1}
    arguments = parse(options(), **quick, memory_frames=[20, 40])
    torch.set_num_threads(arguments.threads)
    arguments.model = {"dim": arguments.dim, "layers": arguments.layers, "heads": 4, "ff_dim": 4 * arguments.dim}
    report = Report("objectives", arguments, "audio s", arguments.device)
    case = Case(arguments, arguments.frames)
    report.fact("objective", str(case.mmi))
    compare_losses(report, case)
    compare_sums(report, case, arguments)
    compare_steps(report, case, arguments)
    report_memory(report, arguments)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
