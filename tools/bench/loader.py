"""Loader throughput: seconds of audio per second, from the manifest to padded batches.

Measured: one epoch of `asrtool.data.loading` (training sampler, dataset, collation) with features computed on the fly,
with stored ones, and on the fly with speed and volume perturbation and SpecAugment. `0 workers` loads in the main
process with one thread: that is the figure per core. Workers have one thread each, and the sampler runs in the main
process; divide by the cores, or read the column per CPU second. The start of the workers counts, so --minutes should be
large.

Baseline: lhotse's K2SpeechRecognitionDataset with OnTheFlyFeatures or PrecomputedFeatures, fed by the same sampler
through the same DataLoader with the same extractor and the same augmentation settings, as its recipes do. asrtool also
encodes the texts as units in this time, and draws augmentation from fixed seeds.

It also reports the share of padding in the batches of the bucketing sampler. Baseline: lhotse's DynamicCutSampler,
which shuffles without buckets, with the same seconds in a batch.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path

import corpus
import torch
from common import Report, Run, parse, parser
from lhotse import CutSet
from lhotse.dataset import DynamicCutSampler, K2SpeechRecognitionDataset, OnTheFlyFeatures, PrecomputedFeatures
from lhotse.dataset.cut_transforms import PerturbVolume
from torch.utils.data import DataLoader

from asrtool.config import Config
from asrtool.data.augment import spec_augment
from asrtool.data.feature_store import store_features
from asrtool.data.features import extractor
from asrtool.data.lhotse_objects import read_cut
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.manifest import transcripts
from asrtool.data.sampling import TrainingSampler
from asrtool.text.tokenizer import Tokenizer
from asrtool.text.tokenizer_training import train_tokenizer

AIM = 300  # times real time on the fly on one core
AUGMENT = {"speeds": (0.9, 1.0, 1.1), "volume": (0.125, 2.0), "spec_augment": {}}


class Epoch(Iterable):
    """One epoch of the training sampler, which itself never ends; `convert` makes of an item what a dataset takes."""

    def __init__(self, sampler: TrainingSampler, convert: Callable = lambda item: item):
        self.sampler, self.convert = sampler, convert

    def __iter__(self) -> Iterator:
        return map(self.convert, takewhile(lambda item: item.position.epoch == 0, self.sampler))


def asrtool_epoch(config: Config, tokenizer: Tokenizer, sampler: TrainingSampler, workers: int) -> int:
    """Loads an epoch as training does; returns the number of batches."""
    return sum(1 for _ in load_batches(SpeechDataset(config, tokenizer, training=True), Epoch(sampler), workers))


def lhotse_epoch(config: Config, sampler: TrainingSampler, workers: int) -> int:
    """Loads the same epoch by lhotse's dataset; returns the number of batches."""
    augment = config.data.augment
    ours = extractor(config.features.sampling_rate, config.features.num_bins)
    dataset = K2SpeechRecognitionDataset(
        cut_transforms=[PerturbVolume(1.0, *augment.volume)] if augment.volume else [],
        input_transforms=[spec_augment(augment.spec_augment)] if augment.spec_augment else [],
        input_strategy=PrecomputedFeatures() if config.features.source == "stored" else OnTheFlyFeatures(ours),
    )
    cuts_only = Epoch(sampler, lambda item: CutSet.from_cuts(read_cut(entry) for entry in item.entries))
    return sum(1 for _ in DataLoader(dataset, batch_size=None, sampler=cuts_only, num_workers=workers))


def measure(report: Report, configs: dict[str, Config], workers: Iterable[int]) -> None:
    """Each way to get features with each number of workers."""
    tokenizer = train_tokenizer("char", transcripts([next(iter(configs.values())).data.train]))
    for name, config in configs.items():
        sampler = TrainingSampler(config.data, config.seed)
        seconds = sum(entry.duration for item in Epoch(sampler) for entry in item.entries)
        for count in workers:
            ours = partial(asrtool_epoch, config, tokenizer, sampler, count)
            theirs = partial(lhotse_epoch, config, sampler, count)
            runs = [Run("asrtool", ours, seconds), Run("lhotse", theirs, seconds)]
            report.compare(f"{name}, {count} workers", runs, workers=count)


def padding_share(batches_of_cuts: Iterable[CutSet]) -> float:
    """Returns the padding in padded batches, in seconds."""
    audio = padded = 0.0
    for cuts in batches_of_cuts:
        durations = [cut.duration for cut in cuts]
        audio, padded = audio + sum(durations), padded + max(durations) * len(durations)
    return 1 - audio / padded


def report_padding(report: Report, config: Config) -> None:
    """Compares padding with and without buckets."""
    buckets = padding_share(item.entries for item in Epoch(TrainingSampler(config.data, config.seed)))
    cuts = CutSet.from_file(config.data.train)
    plain = padding_share(DynamicCutSampler(cuts, max_duration=config.data.batch_seconds, shuffle=True, seed=1))
    report.fact("padding share", buckets, f"without buckets: {plain:.3g}")
    report.fact("padding share without buckets", plain)


def make_configs(arguments: argparse.Namespace, folder: Path) -> dict[str, Config]:
    """The three configurations; features are stored here, outside the clock."""
    train = corpus.manifest(arguments, folder)
    stored = folder / "stored" / "train.jsonl.gz"
    store_features(train, stored)
    data = {"batch_seconds": arguments.batch_seconds}
    return {
        "on the fly": corpus.config(train, data=data),
        "stored": corpus.config(stored, data=data, features={"source": "stored"}),
        "on the fly, augmented": corpus.config(train, data={**data, "augment": AUGMENT}),
    }


def main() -> None:
    """Measure and report."""
    command_line = parser(__doc__, repeats=3)
    corpus.add_options(command_line, minutes=30)
    command_line.add_argument(
        "--batch-seconds", type=float, default=100, help="seconds of audio in a batch [default: %(default)s]"
    )
    command_line.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of loader processes to measure"
    )
    arguments = parse(command_line, minutes=0.3, batch_seconds=20, workers=[0, 1])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        configs = make_configs(arguments, Path(folder))
        report = Report("loader", arguments, "audio s")
        measure(report, configs, arguments.workers)
        report_padding(report, configs["on the fly"])
        if 0 in arguments.workers:
            report.aim("on the fly, audio s/s on one core", report.rate("on the fly, 0 workers"), AIM)
        report.finish()


if __name__ == "__main__":
    main()
