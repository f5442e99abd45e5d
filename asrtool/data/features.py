"""Log-mel features: one extractor for all uses, computed on the fly or stored with lilcom.

Storing works in shards of a few hundred cuts. A shard's manifest is written when its archive is complete, so that an
interrupted run continues with the shards that are missing, and several machines can each store some of them:

    feats/NAME/settings.json      of what, and how; whoever comes first writes it, and the others must want the same
               000000.lca         the features of the first SHARD_CUTS cuts
               000000.jsonl.gz    their manifest
"""

import json
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import torch
from lhotse import CutSet, Fbank, FbankConfig, MonoCut
from lhotse.features.io import LilcomChunkyWriter
from lhotse.utils import fastcopy

from asrtool.data.manifest import Summary, count_cuts, open_cuts
from asrtool.data.shards import Entry, entries, named
from asrtool.data.sources import Bad
from asrtool.errors import DataError, UserError
from asrtool.files import atomic_path, file_hash, write_json
from asrtool.interrupts import ignore_interrupts
from asrtool.progress import progress

FRAME_SHIFT = 0.01  # seconds
# lilcom rounds to multiples of 2^TICK_POWER: half a tick is 0.002 of a natural logarithm, far below what a 16-bit
# sample resolves in a quiet bin. lhotse's default of -5 saves a fifth of the space and rounds eight times as coarsely.
TICK_POWER = -8
SHARD_CUTS = 200  # small enough to keep every core busy on a small corpus, large enough to make the files few


@lru_cache(maxsize=2)
def extractor(sampling_rate: int, num_bins: int) -> Fbank:
    """The log-mel filterbank: 25 ms Povey windows every 10 ms, 20 Hz up to 400 Hz below half the sampling rate."""
    return Fbank(FbankConfig(sampling_rate=sampling_rate, num_filters=num_bins, frame_shift=FRAME_SHIFT))


def load_samples(cut: MonoCut) -> torch.Tensor:
    """The audio of one cut, (samples,) float32 in -1 .. 1. Raises Bad when it cannot be read."""
    try:
        return torch.from_numpy(cut.load_audio())[0]
    except Exception as error:  # lhotse wraps whatever its many readers raise
        mono = isinstance(cut, MonoCut) and cut.has_recording
        source = str(cut.recording.sources[0].source)[:200] if mono else "its audio or the noise mixed in"
        raise Bad(f"{cut.id}: cannot read {source} ({str(error).partition(chr(10))[0][:200]})") from error


def compute(cut: MonoCut, num_bins: int) -> torch.Tensor:
    """Features of one cut, (frames, bins) float32, computed from its audio alone: no batch mate changes them.

    Raises Bad when the audio cannot be read.
    """
    return extractor(cut.sampling_rate, num_bins).extract(load_samples(cut), cut.sampling_rate)


def load(cut: MonoCut, source: str, num_bins: int) -> torch.Tensor:
    """Features of one cut, (frames, bins) float32: stored ones or computed now, as `source` says. Raises Bad."""
    if source == "on_the_fly":
        return compute(cut, num_bins)
    if not cut.has_features:
        raise Bad(f"{cut.id}: the manifest has no stored features; run `asrtool features`, or use on_the_fly")
    try:
        features = torch.from_numpy(cut.load_features())
    except Exception as error:
        raise Bad(f"{cut.id}: cannot read {cut.features.storage_path}; run `asrtool features` again") from error
    if features.shape[1] != num_bins:
        raise Bad(f"{cut.id}: {features.shape[1]} bins are stored, the configuration says features.num_bins={num_bins}")
    return features


def frames_of(samples: int, sampling_rate: int) -> int:
    """The number of frames that so many samples have, exactly."""
    samples_per_frame = round(FRAME_SHIFT * sampling_rate)
    return (samples + samples_per_frame // 2) // samples_per_frame


def store(cuts_path: Path, out: Path, num_bins: int = 80, speeds: tuple[float, ...] = (1.0,), jobs: int = 1) -> Summary:
    """Store the features of every cut of `cuts_path` at each of `speeds`, and write their manifest to `out`.

    What is stored already, by an earlier run or by `store_share`, is kept if it is of the same manifest and settings.
    Raises DataError with all cuts whose audio cannot be read; `out` is then not written.
    """
    plan = _plan(cuts_path, out, num_bins, speeds)
    if not _agreed(plan):
        _remove(plan.folder)
        _agreed(plan)
    summary = _join(_store_shards(plan, jobs), out)
    for left in plan.folder.glob(".tmp-*"):  # by processes that were killed
        left.unlink(missing_ok=True)
    return summary


def store_share(
    cuts_path: Path,
    out: Path,
    share: tuple[int, int],
    num_bins: int = 80,
    speeds: tuple[float, ...] = (1.0,),
    jobs: int = 1,
) -> tuple[int, int]:
    """Store the share (i, n) of what `store` does: every n-th shard from the i-th on, i counting from 1.

    Any number of shares may be stored at the same time, on any machines that see the same folder; `store` then joins
    them. Returns how many shards there are by now, whoever stored them, and how many there will be. Raises DataError as
    `store` does, and UserError where features of another manifest or with other settings are.
    """
    plan = _plan(cuts_path, out, num_bins, speeds)
    if not _agreed(plan):  # others may be at work there: nothing is deleted
        hint = "delete the folder, or run once without --shard, which begins afresh"
        raise UserError(f"{plan.folder} has features of another manifest or with other settings; {hint}")
    _store_shards(plan, jobs, share)
    total = plan.count_shards()
    return sum(plan.manifest(index).is_file() for index in range(total)), total


@dataclass(frozen=True)
class Plan:
    """What is stored, and in which folder."""

    cuts: Path
    folder: Path
    num_bins: int
    speeds: tuple[float, ...]

    def settings(self) -> dict:
        """All that decides over what is stored."""
        digest = file_hash(self.cuts)
        speeds = list(self.speeds)
        return {"manifest": digest, "num_bins": self.num_bins, "speeds": speeds, "shard_cuts": SHARD_CUTS}

    def count_shards(self) -> int:
        """How many shards there will be."""
        return -(-count_cuts(self.cuts) // SHARD_CUTS)

    def manifest(self, index: int) -> Path:
        """The manifest of a shard."""
        return self.folder / f"{index:06d}.jsonl.gz"


def _plan(cuts_path: Path, out: Path, num_bins: int, speeds: tuple[float, ...]) -> Plan:
    open_cuts(cuts_path)  # refuses what is no manifest before anything of an earlier run is touched
    return Plan(Path(cuts_path), out.absolute().parent / "feats" / out.name.split(".")[0], num_bins, speeds)


def _agreed(plan: Plan) -> bool:
    """Whether the folder is for these settings. In an empty one they are written; the first of several decides."""
    wanted, settings = plan.settings(), plan.folder / "settings.json"
    if not settings.is_file():
        own = plan.folder / f".tmp-{uuid.uuid4().hex}-settings.json"
        write_json(own, wanted)
        with suppress(FileExistsError):
            os.link(own, settings)  # it appears whole, and never replaces another one's
        own.unlink()
    return json.loads(settings.read_text()) == wanted


def _remove(folder: Path) -> None:
    """Away with the whole folder first: interrupted in between, it must not leave shards without their settings."""
    old = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _store_shards(plan: Plan, jobs: int, share: tuple[int, int] = (1, 1)) -> list[Path]:
    """Store what is missing of a share; returns the manifests of all of it. Raises DataError."""
    first, step = share[0] - 1, share[1]
    stored = _in_processes(_store_shard, islice(_shards(plan), first, None, step), jobs)
    total = len(range(first, plan.count_shards(), step))
    results = sorted(progress(stored, f"features of {plan.cuts.name}", total, "shards"))
    problems = [problem for _, found in results for problem in found]
    if problems:
        raise DataError(f"features of {len(problems)} cuts failed; mend or leave them out in the data stage", problems)
    return [manifest for manifest, _ in results]


Shard = tuple[Plan, int, list[Entry]]


def _shards(plan: Plan) -> Iterator[Shard]:
    source = entries(plan.cuts)
    index = 0
    while shard := list(islice(source, SHARD_CUTS)):
        yield plan, index, shard
        index += 1


def _store_shard(shard: Shard) -> tuple[Path, list[str]]:
    """Write one archive and then its manifest; returns the manifest's path and what went wrong."""
    plan, index, cuts = shard
    manifest, archive = plan.manifest(index), plan.folder / f"{index:06d}.lca"
    if manifest.is_file():
        return manifest, []
    problems, done = [], []
    with atomic_path(archive) as temporary, LilcomChunkyWriter(str(temporary), TICK_POWER) as writer:
        for entry in cuts:
            try:
                cut = named(entry.id, entry.tree())  # not entry.cut(), which would put Shar's audio into the manifest
                done += [_store_cut(_at_speed(cut, speed), plan.num_bins, writer, archive) for speed in plan.speeds]
            except Bad as problem:
                problems.append(str(problem))
    if not problems:
        with atomic_path(manifest) as temporary:
            CutSet.from_cuts(done).to_file(temporary)
    return manifest, problems


def _at_speed(cut: MonoCut, speed: float) -> MonoCut:
    return cut if speed == 1.0 else cut.perturb_speed(speed)


def _store_cut(cut: MonoCut, num_bins: int, writer: LilcomChunkyWriter, archive: Path) -> MonoCut:
    """Write the features of `cut`; returns it with a pointer to them in `archive`, the name they will have."""
    features = compute(cut, num_bins).numpy()
    kind = extractor(cut.sampling_rate, num_bins).name
    stored = _features_manifest(cut, features, writer.write(cut.id, features), archive, kind)
    return fastcopy(cut, features=stored)  # a copy, since lhotse drops a cut's features when its speed is changed


def _features_manifest(cut, features, key, archive, kind):
    from lhotse.features.base import Features

    return Features(
        type=kind,
        num_frames=features.shape[0],
        num_features=features.shape[1],
        frame_shift=FRAME_SHIFT,
        sampling_rate=cut.sampling_rate,
        start=cut.start,
        duration=cut.duration,
        storage_type=LilcomChunkyWriter.name,
        storage_path=str(archive),
        storage_key=key,
        recording_id=cut.recording_id,
        channels=0,
    )


def _start_worker() -> None:
    ignore_interrupts()
    torch.set_num_threads(1)  # one process a core is faster than many threads on short recordings


def _in_processes(work: Callable, items: Iterator, jobs: int) -> Iterator:
    """`work` on each item, in `jobs` processes, as they finish; only a few items are held at a time."""
    if jobs <= 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _start_worker) as pool:
        running: set[Future] = set()
        for item in items:
            running.add(pool.submit(work, item))
            if len(running) >= 2 * jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in running)


def _join(manifests: list[Path], out: Path) -> Summary:
    count, seconds = 0, 0.0
    with atomic_path(out) as temporary, CutSet.open_writer(temporary) as writer:
        for manifest in manifests:
            for cut in CutSet.from_jsonl_lazy(manifest):
                writer.write(cut)
                count, seconds = count + 1, seconds + cut.duration
    return Summary(count, seconds, 0)
