"""One streaming step for each configuration: what a server does when the next chunk arrives.

`AcousticModel.step` on one running stream, with the model's own chunk, and with 160 ms: a larger chunk is reduced to
it, and a smaller one repeated. `audio to words` is the whole path: `Recogniser.accept` on a chunk of raw audio, with
features, step, greedy search and the words so far, in utterances of 10 s. Baseline: the same output computed without
state, by `AcousticModel.forward` over the chunk and all frames that it depends on, at most --history seconds.

`% of chunk` is the time of a step in percent of the chunk's duration. `latency ms` is the audio that has to arrive
before the first frame of a chunk is known, at most, from the layers, without the time of the step. Weights are random.
"""

import argparse
import sys
from pathlib import Path

import torch
from common import Report, Run, parse, parser

from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.device import pick_device
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.models.acoustic import AcousticModel
from asrtool.streaming.endpointing import Endpointing, EndpointRule
from asrtool.streaming.recogniser import Recogniser
from asrtool.streaming.search_setup import open_streaming_search
from asrtool.text.tokenizer import SymbolTokenizer

PRESETS = Path(__file__).resolve().parents[2] / "egs" / "librispeech" / "conf"
FRAME_MS = 10  # of a feature frame
SHORT = 16  # feature frames: 160 ms
UTTERANCE = 10.0  # seconds
AIM = 10.0  # % of a 160 ms chunk, for
AIM_LAYERS = 12  # as many
COLUMNS = ["ms", "% of chunk", "latency ms"]


def chunks(path: str, overrides: list[str]) -> list[tuple[Config, int]]:
    """Configurations of `path` and feature frames of a step: as it is, and with steps of 160 ms; none without steps."""
    config = load_config(path, overrides)
    own = AcousticModel(config.model, config.features.num_bins, 2)
    if not own.can_stream:
        return []
    chunk, factor = own.latency().chunk, config.model.subsampling.factor
    if chunk == SHORT or SHORT % factor:
        return [(config, chunk)]
    if chunk < SHORT:
        return [(config, chunk)] + [(config, SHORT)] * (SHORT % chunk == 0)
    return [(config, chunk), (load_config(path, [*overrides, f"model.chunk_size={SHORT // factor}"]), SHORT)]


class Streaming:
    """One stream of random features or noise: a step, the same output without state, and all from audio to words."""

    def __init__(self, config: Config, size: int, arguments: argparse.Namespace, device: torch.device):
        self.model = AcousticModel(config.model, config.features.num_bins, arguments.units).to(device).eval()
        left, right = self.model.receptive_field()
        history = min(left, 1000 * arguments.history / FRAME_MS)
        self.x = torch.randn(1, int(history + size + right), config.features.num_bins, device=device)
        self.chunk, self.lens = self.x[:, :size], torch.tensor([size], device=device)
        self.state = self.model.initial_state(1)
        for _ in range(2):
            self.state = self._step()[1]
        tokenizer = SymbolTokenizer("word", [str(unit) for unit in range(arguments.units)])
        experiment = Experiment(Path(), config, tokenizer, self.model, Path(), device)
        ends = Endpointing((EndpointRule(length=UTTERANCE),))
        self.recogniser = Recogniser(experiment, open_streaming_search("greedy", tokenizer, {}).new_search, ends)
        self.noise = 0.1 * torch.randn(size * FRAME_MS * config.features.sampling_rate // 1000)

    @torch.no_grad()
    def _step(self):
        return self.model.step(self.chunk, self.lens, self.state)

    def step(self) -> None:
        """A step; every call takes the same one."""
        self._step()[0][0, 0, 0].item()  # waits for the device

    def hear(self) -> None:
        """A chunk of audio; the stream goes on with every call."""
        self.recogniser.accept(self.noise)

    @torch.no_grad()
    def forward(self) -> None:
        """All that the chunk's output depends on, from its features."""
        self.model(self.x, self.lens.fill_(self.x.shape[1]))[0][0, 0, 0].item()


def compare(report: Report, name: str, config: Config, size: int, arguments: argparse.Namespace) -> None:
    """Compares a step of `size` feature frames with the baseline."""
    stream, duration = Streaming(config, size, arguments, pick_device(arguments.device)), size * FRAME_MS / 1000
    latency = stream.model.latency()
    milliseconds = FRAME_MS * (latency.right + max(size, latency.chunk))

    def extra(rate: float) -> dict:
        return {"ms": 1000 * duration / rate, "% of chunk": 100 / rate, "latency ms": milliseconds}

    runs = [Run("step", stream.step, duration), Run("audio to words", stream.hear, duration)]
    runs.append(Run("forward over history", stream.forward, duration))
    case = f"{name}, {size * FRAME_MS} ms"
    report.compare(case, runs, extra, config=name, layers=config.model.layers, chunk_frames=size)


def report_aims(report: Report) -> None:
    """Reports the time of a step in percent of a 160 ms chunk, for each model of 12 layers."""
    for row in report.values["rows"]:
        if row["what"] == "step" and row["layers"] == AIM_LAYERS and row["chunk_frames"] == SHORT:
            report.aim(f"% of the chunk's time, {row['case']}", row["% of chunk"], AIM, at_most=True)


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=9)
    presets = sorted(map(str, (PRESETS / "small").glob("*.yaml")))
    command_line.add_argument(
        "configs", nargs="*", default=presets, help="configurations [default: egs/librispeech/conf/small/*.yaml]"
    )
    command_line.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="settings of all configurations",
    )
    command_line.add_argument("--units", type=int, default=500, help="output units [default: %(default)s]")
    command_line.add_argument(
        "--history", type=float, default=10.0, help="seconds of history of the baseline, at most [default: %(default)g]"
    )
    command_line.add_argument("--threads", type=int, default=1, help="threads [default: %(default)s]")
    command_line.add_argument(
        "--device", default="cpu", help="device: cpu, cuda, cuda:N or auto [default: %(default)s]"
    )
    return command_line


def main() -> int:
    """Measures and reports; exit status 2 if there is nothing to measure."""
    few = [str(PRESETS / "small" / "transformer_xl_12l.yaml")]
    arguments = parse(options(), configs=few, overrides=["model.layers=1"], units=11, history=0.5)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    try:
        found = {Path(path).stem: chunks(path, arguments.overrides) for path in arguments.configs}
        if not any(found.values()):
            raise UserError("no configuration has steps: give YAML files of models with a chunk or a sliding window")
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    arguments.configs = list(found)
    report = Report("streaming", arguments, "audio s", arguments.device, COLUMNS)
    report.fact("without steps", ", ".join(name for name, cases in found.items() if not cases) or "none")
    for name, cases in found.items():
        for config, size in cases:
            compare(report, name, config, size, arguments)
    report_aims(report)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
