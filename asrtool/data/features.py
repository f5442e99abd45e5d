"""Log-mel features: one extractor for all uses, computed on the fly or stored with lilcom.

Storing works in shards of a few hundred cuts. A shard's manifest is written when its archive is complete, so that an
interrupted run continues with the shards that are missing.
"""

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import lru_cache
from itertools import islice
from pathlib import Path

import torch
from lhotse import CutSet, Fbank, FbankConfig, MonoCut
from lhotse.features.io import LilcomChunkyWriter
from lhotse.utils import fastcopy

from asrtool.data.audio import Bad
from asrtool.data.manifest import Summary, count_cuts, open_cuts
from asrtool.errors import DataError
from asrtool.files import atomic_path, write_json
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


def compute(cut: MonoCut, num_bins: int) -> torch.Tensor:
    """Features of one cut, (frames, bins) float32, computed from its audio alone: no batch mate changes them.

    Raises Bad when the audio cannot be read.
    """
    try:
        samples = cut.load_audio()
    except Exception as error:  # lhotse wraps whatever its many readers raise
        mono = isinstance(cut, MonoCut) and cut.has_recording
        source = cut.recording.sources[0].source if mono else "its audio or the noise mixed in"
        raise Bad(f"{cut.id}: cannot read {source} ({str(error).partition(chr(10))[0][:200]})") from error
    return extractor(cut.sampling_rate, num_bins).extract(torch.from_numpy(samples), cut.sampling_rate)


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

    Raises DataError with all cuts whose audio cannot be read; `out` is then not written.
    """
    cuts = open_cuts(cuts_path)  # before anything of an earlier run is touched
    folder = out.absolute().parent / "feats" / out.name.split(".")[0]
    _start_or_continue(folder, cuts_path, num_bins, speeds)
    shards = _shards(cuts, folder, num_bins, speeds)
    total = -(-count_cuts(cuts_path) // SHARD_CUTS)
    stored = _in_processes(_store_shard, shards, jobs)
    results = list(progress(stored, f"features of {cuts_path.name}", total, "shards"))
    problems = [problem for _, found in sorted(results) for problem in found]
    if problems:
        raise DataError(f"features of {len(problems)} cuts failed; mend or leave them out in the data stage", problems)
    return _join([manifest for manifest, _ in sorted(results)], out)


def _start_or_continue(folder: Path, cuts_path: Path, num_bins: int, speeds: tuple[float, ...]) -> None:
    """Keep the shards of an earlier run over the same manifest with the same settings, else begin afresh."""
    digest = hashlib.sha256(Path(cuts_path).read_bytes()).hexdigest()
    wanted = {"manifest": digest, "num_bins": num_bins, "speeds": list(speeds), "shard_cuts": SHARD_CUTS}
    settings = folder / "settings.json"
    if not settings.is_file() or json.loads(settings.read_text()) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(settings, wanted)


Shard = tuple[Path, list[MonoCut], int, tuple[float, ...]]


def _shards(cuts: CutSet, folder: Path, num_bins: int, speeds: tuple[float, ...]) -> Iterator[Shard]:
    source = iter(cuts)
    index = 0
    while shard := list(islice(source, SHARD_CUTS)):
        yield folder / f"{index:06d}.jsonl.gz", shard, num_bins, speeds
        index += 1


def _store_shard(shard: Shard) -> tuple[Path, list[str]]:
    """Write one archive and then its manifest; returns the manifest's path and what went wrong."""
    manifest, cuts, num_bins, speeds = shard
    if manifest.is_file():
        return manifest, []
    problems, done = [], []
    with LilcomChunkyWriter(str(manifest).removesuffix(".jsonl.gz") + ".lca", TICK_POWER) as writer:
        for cut in cuts:
            try:
                done += [_store_cut(_at_speed(cut, speed), num_bins, writer) for speed in speeds]
            except Bad as problem:
                problems.append(str(problem))
    if not problems:
        with atomic_path(manifest) as temporary:
            CutSet.from_cuts(done).to_file(temporary)
    return manifest, problems


def _at_speed(cut: MonoCut, speed: float) -> MonoCut:
    return cut if speed == 1.0 else cut.perturb_speed(speed)


def _store_cut(cut: MonoCut, num_bins: int, writer: LilcomChunkyWriter) -> MonoCut:
    features = compute(cut, num_bins).numpy()
    manifest = extractor(cut.sampling_rate, num_bins)
    stored = _features_manifest(cut, features, writer.write(cut.id, features), writer, manifest.name)
    return fastcopy(cut, features=stored)  # a copy, since lhotse drops a cut's features when its speed is changed


def _features_manifest(cut, features, key, writer, kind):
    from lhotse.features.base import Features

    return Features(
        type=kind,
        num_frames=features.shape[0],
        num_features=features.shape[1],
        frame_shift=FRAME_SHIFT,
        sampling_rate=cut.sampling_rate,
        start=cut.start,
        duration=cut.duration,
        storage_type=writer.name,
        storage_path=str(writer.storage_path),
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
