"""Whether very deep Transformer-XLs start to learn: the loss of their first steps, with and without depth-scaled init.

Transformer-XL as in egs/librispeech/conf/transformer_xl_100l.yaml, with bf16 and a warmup of the learning rate. The
utterances are synthetic: each unit is a random spectrum that lasts some frames, under noise, so that a model that can
learn does so within a few hundred steps. Both models see the same batches. The baseline of the speed is the model with
torch's default init; the figures to look at are the losses, in nats for each unit (the mean of ten steps), and the
number of bad steps, which are left out since a loss or a gradient is not finite.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from common import Report, Run, parse, parser
from training_step import make_session

from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.data.batch import Batch
from asrtool.data.features import FRAME_SHIFT
from asrtool.device import pick_device
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import Ctc
from asrtool.training.step import training_step

CONF = Path(__file__).resolve().parents[2] / "egs" / "librispeech" / "conf" / "transformer_xl_100l.yaml"
UNIT_FRAMES = (12, 24)  # feature frames that a unit lasts
NOISE = 0.5  # standard deviation, of spectra with 1
REPORTED = 10  # steps of a mean


def make_batch(draw: torch.Generator, spectra: torch.Tensor, arguments: argparse.Namespace) -> Batch:
    """Utterances of random units; spectra (V, F)."""
    count, length = arguments.batch, arguments.units_per_utterance
    targets = torch.randint(1, len(spectra), (count, length), generator=draw)
    durations = torch.randint(*UNIT_FRAMES, (count, length), generator=draw)
    rows = [spectra[units].repeat_interleave(times, 0) for units, times in zip(targets, durations, strict=True)]
    lens = torch.tensor([len(row) for row in rows])
    features = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    features += NOISE * torch.randn(features.shape, generator=draw)
    names = [str(number) for number in range(count)]
    return Batch(
        ids=names,
        texts=names,
        features=features,
        feature_lens=lens,
        targets=targets,
        target_lens=torch.full((count,), length),
        seconds=float(lens.sum()) * FRAME_SHIFT,
    )


class Training:
    """The first steps of a model with one initialisation."""

    def __init__(self, scheme: str, arguments: argparse.Namespace, device: torch.device, folder: Path):
        settings = [*arguments.overrides, f"model.init.scheme={scheme}", "training.precision=auto"]
        steps = f"training.max_steps={10 * arguments.steps}"
        settings += [steps, f"training.warmup_steps={arguments.steps}", "training.lr=5e-4"]
        config: Config = load_config(CONF, settings)
        torch.manual_seed(1)
        model = AcousticModel(config.model, config.features.num_bins, arguments.units).to(device).train()
        self.session = make_session(model, config, device, Ctc())
        self.session.experiment = folder  # of bad_steps.jsonl
        self.arguments = arguments
        self.draw = torch.Generator().manual_seed(2)
        self.spectra = torch.randn(arguments.units, config.features.num_bins, generator=self.draw)
        self.losses: list[float] = []
        self.audio = 0.0

    def __call__(self) -> None:
        for _ in range(self.arguments.steps):
            batch = make_batch(self.draw, self.spectra, self.arguments)
            self.losses.append(training_step(self.session, [batch])["loss"])
            self.session.progress.step += 1
            self.audio += batch.seconds

    def mean_loss(self, step: int) -> float:
        """The mean loss of the steps before `step`, and of that one."""
        return statistics.fmean(self.losses[max(0, step - REPORTED) : step])


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=0)
    command_line.add_argument("--steps", type=int, default=200, help="steps [default: %(default)s]")
    command_line.add_argument("--batch", type=int, default=16, help="utterances of a step [default: %(default)s]")
    command_line.add_argument("--units", type=int, default=40, help="output units [default: %(default)s]")
    command_line.add_argument(
        "--units-per-utterance", type=int, default=40, help="units of an utterance [default: %(default)s]"
    )
    command_line.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="settings of the models"
    )
    command_line.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto [default: %(default)s]")
    return command_line


def main() -> int:
    """Trains both and reports."""
    small = ["model.layers=3", "model.dim=16", "model.heads=2", "model.ff_dim=32", "model.subsampling.channels=2"]
    arguments = parse(options(), steps=2, batch=2, units=5, units_per_utterance=3, overrides=small)
    arguments.repeats = 0  # a training goes on with each call
    device = pick_device(arguments.device)
    report = Report("gpu_depth", arguments, "audio s", str(device))
    with tempfile.TemporaryDirectory() as folder:
        both = {name: Training(name, arguments, device, Path(folder)) for name in ("depth_scaled", "default")}
        seconds = arguments.steps * arguments.batch * arguments.units_per_utterance * sum(UNIT_FRAMES) / 2 * FRAME_SHIFT
        layers = both["default"].session.config.model.layers
        report.compare(f"transformer_xl, {layers} layers", [Run(name, one, seconds) for name, one in both.items()])
    for name, one in both.items():
        for share in (0, 0.25, 0.5, 1):
            step = max(1, round(share * arguments.steps))
            report.fact(f"loss at step {step}, {name}", one.mean_loss(step))
        report.fact(f"bad steps, {name}", one.session.rank_state.guard.bad_steps)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
