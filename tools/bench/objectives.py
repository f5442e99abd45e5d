"""LF-MMI: forward and backward of the loss, compared with k2 and with CTC, and its share of a training step.

The log-probs are random. The transcripts come from a random Markov chain of units in which few units follow each, as
with phones. The denominator is the 4-gram of such transcripts, built as in training.

loss        The whole objective (`asrtool.objectives.mmi`), building the numerators included; no leaky HMM, no CTC
            added. Baseline: torch's CTC on the same log-probs.
sums        The denominator alone, on the first --k2-batch utterances. Baseline: k2, all paths
            (tests/objectives/k2_oracle.py). "k2, beam" leaves out paths --k2-beam nats worse than the best, as recipes
            do: icefall's is 10.
step        A training step with the objective. Baseline: the same with CTC. The share of the loss in a step is the
            median of the shares in each turn.
memory      Peak memory of the loss, in a process of its own, for each of --memory-frames: linear in frames.
"""

import argparse
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from common import Report, Run, in_turns, parse, parser
from encoders import peak
from torch import Tensor
from training_step import make_session

from asrtool.config import Config, ObjectiveConfig
from asrtool.data.batch import Batch
from asrtool.device import pick_device
from asrtool.errors import UserError
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.forward_backward import WeightedGraphs, path_sums
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.mmi import Mmi
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training.step import training_step

FRAME_SECONDS = 0.04
CONCENTRATION = 0.05  # of the Dirichlet distribution of following units: two or three have most of the probability


class Case:
    """Objective, batch and log-probs of `frames` frames an utterance."""

    def __init__(self, arguments: argparse.Namespace, frames: int):
        draw = np.random.default_rng(1)
        self.device = pick_device(arguments.device)
        self.tokenizer = train_tokenizer("char", ["".join(map(chr, range(0x3B1, 0x3B1 + arguments.units - 1)))])
        self.units = self.tokenizer.size
        following = draw.dirichlet(np.full(self.units - 1, CONCENTRATION), self.units)
        texts = [self._text(draw, following, int(draw.integers(20, 60))) for _ in range(arguments.transcripts)]
        counts = UnitNgram.count(map(self.tokenizer.encode, texts), 4)
        objective = ObjectiveConfig(kind="mmi", leaky_hmm=0.0, ctc_weight=0.0)
        self.config = Config(objective=objective, model={**arguments.model})
        self.ngram = UnitNgram(4, counts)
        self.mmi = Mmi(self.config.objective, self.tokenizer, self.ngram, self.device)
        self.batch = self._batch(texts[: arguments.batch], frames)
        self.lens = torch.full((arguments.batch,), frames)
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
        text = "".join(texts * (1 + frames // 100))
        texts = [text[20 * n :][: max(1, frames // 6)] for n in range(len(texts))]
        factor = self.config.model.subsampling.factor
        units = [torch.tensor(self.tokenizer.encode(text)) for text in texts]
        targets = torch.nn.utils.rnn.pad_sequence(units, batch_first=True)
        sizes, lens = torch.tensor(list(map(len, units))), torch.full((len(texts),), factor * frames)
        features = torch.randn(len(texts), factor * frames, self.config.features.num_bins)
        seconds = FRAME_SECONDS * frames * len(texts)
        return Batch(
            ids=texts,
            texts=texts,
            features=features,
            feature_lens=lens,
            targets=targets,
            target_lens=sizes,
            seconds=seconds,
        )

    def loss(self, objective: Mmi | Ctc) -> None:
        """Forward and backward."""
        self.finish(objective(self.log_probs, self.lens, self.batch))

    def finish(self, loss: Tensor) -> None:
        """The backward pass."""
        self.log_probs.grad = None
        loss.sum().backward()
        self.log_probs.grad[0, 0, 0].item()  # waits for the device


def compare_losses(report: Report, case: Case) -> None:
    """The whole loss and CTC."""
    ctc = Ctc()
    runs = [Run("mmi", lambda: case.loss(case.mmi), case.batch.seconds)]
    report.compare("loss", [*runs, Run("torch ctc", lambda: case.loss(ctc), case.batch.seconds)])


def compare_sums(report: Report, case: Case, arguments: argparse.Namespace) -> None:
    """The denominator and the same sums by k2."""
    sys.path.append(str(Path(__file__).parents[2]))  # the checkout
    from tests.objectives import k2_oracle

    count = arguments.k2_batch
    log_probs = case.log_probs[:count]
    lens = case.lens[:count]
    denominator = GraphBatch(case.mmi.denominator, case.device)
    try:
        fsas = k2_oracle.fsa_vector(case.mmi.denominator, case.device)
    except UserError as error:
        report.fact("compared with k2", f"not measured: {error}")
        return
    seconds = case.batch.seconds * count / arguments.batch

    def k2(beam: float) -> Tensor:
        return k2_oracle.path_sum(log_probs, lens, fsas, beam=beam)

    def sums() -> Tensor:
        return path_sums(log_probs, lens, [WeightedGraphs(denominator)], case.mmi.cuda_graphs)[0]

    difference = sums() - k2(k2_oracle.EXACT_BEAM)
    report.fact("largest difference from k2, nats", float(difference.detach().abs().max()))
    runs = [
        Run("asrtool", lambda: case.finish(sums()), seconds),
        Run(f"k2, beam {arguments.k2_beam:g}", lambda: case.finish(k2(arguments.k2_beam)), seconds),
        Run("k2", lambda: case.finish(k2(k2_oracle.EXACT_BEAM)), seconds),
    ]
    report.compare("sums", runs)
    report.aim("speed compared with k2", report.rate("sums", "ratio"), 1.0)


def compare_steps(report: Report, case: Case, arguments: argparse.Namespace) -> None:
    """Training steps with either objective, and the share of the loss in a step."""

    def step(objective: Mmi | Ctc):
        model = AcousticModel(case.config.model, case.config.features.num_bins, case.units).to(case.device).train()
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
    """Peak memory of the loss for each length, and how much each frame adds."""
    peaks = []
    for frames in arguments.memory_frames:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peaks.append(pool.submit(_peak_of_loss, arguments, frames).result() / 1e6)
        report.fact(f"MB of the loss at most, {frames} frames", peaks[-1])
    growth = (peaks[-1] - peaks[0]) / (arguments.memory_frames[-1] - arguments.memory_frames[0])
    report.fact("MB a further frame", growth)


def _peak_of_loss(arguments: argparse.Namespace, frames: int) -> float:
    torch.set_num_threads(arguments.threads)
    few = Case(arguments, 10)
    few.loss(few.mmi)  # loads libraries
    case = Case(arguments, frames)
    before = peak(case.device)
    case.loss(case.mmi)
    return peak(case.device) - before


def make_parser() -> argparse.ArgumentParser:
    """Sizes, threads and device."""
    options = parser(__doc__, repeats=5, limit=120.0)
    options.add_argument("--units", type=int, default=40, help="outputs of the model [default: %(default)s]")
    options.add_argument(
        "--transcripts", type=int, default=520, help="texts that the n-gram is counted on [default: %(default)s]"
    )
    options.add_argument("--batch", type=int, default=16, help="utterances of a batch [default: %(default)s]")
    options.add_argument(
        "--frames", type=int, default=250, help="frames of 40 ms of each utterance [default: %(default)s]"
    )
    options.add_argument(
        "--k2-batch", type=int, default=4, help="utterances of the comparison with k2 [default: %(default)s]"
    )
    options.add_argument("--k2-beam", type=float, default=10.0, help="output beam of k2 in nats [default: %(default)s]")
    options.add_argument("--dim", type=int, default=256, help="model width of the training step [default: %(default)s]")
    options.add_argument(
        "--layers", type=int, default=12, help="layers of the training step's model [default: %(default)s]"
    )
    options.add_argument(
        "--memory-frames",
        type=int,
        nargs="*",
        default=[250, 500, 1000],
        help="frames; without any, memory is left out [default: %(default)s]",
    )
    options.add_argument("--threads", type=int, default=1, help="threads of torch [default: %(default)s]")
    options.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto [default: %(default)s]")
    return options


def main() -> int:
    """Measure and report."""
    quick = {"units": 8, "transcripts": 20, "batch": 2, "frames": 20, "k2_batch": 2, "dim": 16, "layers": 1}
    arguments = parse(make_parser(), **quick, memory_frames=[20, 40])
    torch.set_num_threads(arguments.threads)
    arguments.model = {"dim": arguments.dim, "layers": arguments.layers, "heads": 4, "ff_dim": 4 * arguments.dim}
    report = Report("objectives", arguments, "audio s", arguments.device)
    case = Case(arguments, arguments.frames)
    report.fact("objective", str(case.mmi))
    compare_losses(report, case)
    compare_sums(report, case, arguments)
    compare_steps(report, case, arguments)
    if arguments.memory_frames:
        report_memory(report, arguments)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
