"""Kill a training again and again, resume it each time, and compare what comes out with a training left alone.

    python tests/training/kill_and_resume.py --kills 20 --ranks 2 --work /tmp/kills

A moment is drawn for each kill: while a batch is loaded, in a forward pass, in an optimiser step, with a checkpoint
half written, in a validation, or simply after some time. One of the ranks then gets SIGKILL; torchrun takes the others
down.
At the end weights, moments, averages, logged losses and the sequence of all cut ids must be the same, to the bit.
"""

import argparse
import io
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from lhotse import CutSet

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from asrtool.config_file import save_config  # noqa: E402
from tests.tiny import equal, log_rows, make_config, make_corpus, make_tokenizer  # noqa: E402

MOMENTS = ["loading", "forward", "optimizer", "checkpoint", "validation", "time"]
MOST = {"validation": 2, "checkpoint": 4, "time": 60}  # moments that a process lives to see


def die() -> None:
    """As if the machine were gone."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str, count: int) -> None:
    """Arrange for this process to be killed at the `count`-th such moment."""
    if moment == "time":
        threading.Timer(0.15 * count, die).start()
        return
    from asrtool.data.loading import SpeechDataset
    from asrtool.training import step, train

    places = {
        "loading": (SpeechDataset, "_load"),
        "forward": (step, "batch_loss"),
        "optimizer": (torch.optim.AdamW, "step"),
        "checkpoint": (torch, "save"),
        "validation": (train, "validate"),
    }
    owner, name = places[moment]
    real, calls = getattr(owner, name), itertools.count(1)

    def killing_call(*args, **kwargs):
        if next(calls) < count:
            return real(*args, **kwargs)
        if moment == "checkpoint":  # half of it
            whole = io.BytesIO()
            real(args[0], whole)
            args[1].write(whole.getvalue()[: whole.tell() // 2])
            args[1].flush()
        return die()

    setattr(owner, name, killing_call)


def child(arguments: list[str]) -> None:
    """`asrtool train` in this process, with a moment of death if it is this rank's turn."""
    moment, count, rank, *command = arguments
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    if int(rank) == int(os.environ.get("RANK", 0)) and not again:
        die_at(moment, int(count))
    import asrtool.data.statistics

    asrtool.data.statistics.STATISTICS_SECONDS = 30.0
    sys.argv = ["asrtool", *command]
    from asrtool.cli import main

    main()


def start(config: Path, experiment: Path, ranks: int, moment="time", count=10**6, rank=-1, restarts=0) -> int:
    """Train until the end or the kill; returns the exit status."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", str(restarts)]
    launcher = [*torchrun, "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, str(Path(__file__).absolute()), "--child", moment, str(count), str(rank)]
    command += ["train", str(config), "--exp", str(experiment), "--resume", "--device", "cpu", "--threads", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(experiment.with_suffix(".log"), "a", encoding="utf-8") as log:
        return subprocess.run(command, stdout=log, stderr=log, env=environment).returncode


def compare(one: Path, other: Path) -> list[str]:
    """Returns the differences between two experiment folders; there should be none."""
    differences = []
    for name in sorted(path.name for path in (one / "checkpoints").glob("*.pt")):
        first, second = (torch.load(e / "checkpoints" / name, weights_only=True) for e in (one, other))
        parts = set(first) - {"device_hours", "config"}
        differences += [f"{name}: {part}" for part in sorted(parts) if not equal(first[part], second[part])]
    same = log_rows(one, "train", "dev") == log_rows(other, "train", "dev")
    return differences + ([] if same else ["log.jsonl"])


def kill_and_resume(config: Path, work: Path, ranks: int, kills: int, seed: int = 1) -> list[str]:
    """What differs after `kills` kills of a training of `ranks` processes; a line for each."""
    draw = random.Random(seed)
    whole, killed = work / f"whole{ranks}", work / f"killed{ranks}"
    if status := start(config, whole, ranks):
        return [f"the training left alone ended with status {status}: see {whole}.log"]
    for kill in range(kills):
        moment = MOMENTS[kill % len(MOMENTS)]
        count = draw.randint(1, MOST.get(moment, 9))
        rank = 0 if moment == "checkpoint" else draw.randrange(ranks)  # the first one writes them
        began = time.monotonic()
        status = start(config, killed, ranks, moment, count, rank)
        spent = time.monotonic() - began
        print(f"kill {kill + 1}: {moment} {count} of rank {rank}, status {status}, {spent:.0f} s", flush=True)
        if status == 0:  # it came to its end before the moment did
            if differences := compare(whole, killed):
                return differences
            shutil.rmtree(killed)
    status = start(config, killed, ranks)
    return compare(whole, killed) if status == 0 else [f"the last resume ended with status {status}: see {killed}.log"]


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="loader processes of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    config = write_config(options.work, options.workers)
    differences = kill_and_resume(config, options.work, options.ranks, options.kills, options.seed)
    print("\n".join(f"differs: {what}" for what in differences) or f"{options.kills} kills: the same to the bit")
    return 1 if differences else 0


def write_config(folder: Path, workers: int = 1, steps: int = 100) -> Path:
    """The tiny corpus and a configuration in which everything that can be random is."""
    corpus = make_corpus(folder)
    small = folder / "small.jsonl.gz"
    CutSet.from_file(corpus).subset(last=6).to_file(small)
    augment = {
        "speeds": [0.9, 1.0, 1.1],
        "volume": [0.5, 2.0],
        "reverb": {"probability": 0.3},
        "noise": [{"manifest": str(small), "voices": [1, 3], "probability": 0.3}],
        "codec": {"probability": 0.3, "codecs": ["mulaw", "mp3"]},
        "spec_augment": {"frequency_width": 5, "time_width": 10, "time_warp": 10},
    }
    train = [{"manifest": str(corpus), "weight": 2}, {"manifest": str(small), "weight": 1}]
    config = make_config(
        corpus,
        make_tokenizer(folder),
        data={"train": train, "workers": workers, "augment": augment},
        model={"dropout": 0.2, "convolution": {"kind": "residual"}},
        training={"max_steps": steps, "validate_every": 10, "save_every": 2, "log_every": 3, "ema_decay": 0.9},
    )
    save_config(config, folder / "config.yaml")
    return folder / "config.yaml"


if __name__ == "__main__":
    sys.exit(child(sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main())
