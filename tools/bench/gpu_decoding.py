"""Batched greedy decoding on a GPU: features to units, in seconds of audio per second.

A Transformer of the size of egs/librispeech/conf/transformer_12l.yaml with random weights, in bf16, on batches of
random features of several lengths in pinned memory: copies, forward pass, greedy search. Baseline: one utterance at a
time.
"""

import argparse
import sys
from pathlib import Path

import torch
from common import Report, Run, parse, parser

from asrtool.config_file import load_config
from asrtool.data.features import FRAME_SHIFT
from asrtool.decoding.greedy import ctc_greedy
from asrtool.device import pick_device, to_device
from asrtool.models.acoustic import AcousticModel
from asrtool.precision import autocast

CONF = Path(__file__).resolve().parents[2] / "egs" / "librispeech" / "conf" / "transformer_12l.yaml"


class Decoding:
    """A model, and utterances in batches."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device):
        config = load_config(CONF, arguments.overrides)
        self.model = AcousticModel(config.model, config.features.num_bins, arguments.units).to(device).eval()
        self.device = device
        self.lens = torch.linspace(*arguments.frames, arguments.utterances).round().long()
        self.features = torch.randn(arguments.utterances, arguments.frames[1], config.features.num_bins)
        if device.type == "cuda":
            self.features = self.features.pin_memory()

    @torch.inference_mode()
    def decode(self, batch: int) -> None:
        """Decodes all utterances, `batch` at a time."""
        for first in range(0, len(self.lens), batch):
            lens = self.lens[first : first + batch]
            features = to_device(self.features[first : first + batch, : int(lens.max())], self.device)
            with autocast("auto", self.device):
                log_probs, out_lens = self.model(features, to_device(lens, self.device))
            ctc_greedy(log_probs, out_lens)


def main() -> int:
    """Measures and reports."""
    options = parser(__doc__, repeats=5, limit=20.0)
    options.add_argument("--utterances", type=int, default=256, help="utterances [default: %(default)s]")
    options.add_argument("--batch", type=int, default=64, help="utterances of a batch [default: %(default)s]")
    options.add_argument("--frames", type=int, nargs=2, default=[300, 1500], help="shortest and longest, of 10 ms")
    options.add_argument("--units", type=int, default=500, help="output units [default: %(default)s]")
    options.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="settings")
    options.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto [default: %(default)s]")
    small = ["model.layers=1", "model.dim=16", "model.heads=2", "model.ff_dim=32", "model.subsampling.channels=2"]
    arguments = parse(options, utterances=4, batch=2, frames=[20, 40], units=5, overrides=small)
    device = pick_device(arguments.device)
    report = Report("gpu_decoding", arguments, "audio s", str(device))
    decoding = Decoding(arguments, device)
    seconds = float(decoding.lens.sum()) * FRAME_SHIFT
    runs = [
        Run(f"batches of {size}", lambda size=size: decoding.decode(size), seconds) for size in (arguments.batch, 1)
    ]
    report.compare("greedy", runs)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
