"""Storing features with lilcom, in shards of a few hundred cuts.

A shard's manifest is written when its archive is complete, so that an interrupted run continues with the shards that
are missing, and several machines can each store some of them:

    feats/NAME/DIGEST/settings.json      of what, and how: DIGEST is computed from it
                      000000.lca         the features of the first SHARD_CUTS cuts
                      000000.jsonl.gz    their manifest

NAME is that of the manifest OUT that points to them. With another input or other settings DIGEST is another one, so
that the features that OUT points to remain until a new OUT takes its place. Only these files are ever deleted.
"""

import gzip
import hashlib
import json
import multiprocessing
import re
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from lhotse import CutSet, Features, MonoCut
from lhotse.features.io import LilcomChunkyWriter
from lhotse.utils import fastcopy

from asrtool.data.entry_checks import MAX_CUT_SECONDS, EntryChecks
from asrtool.data.features import FRAME_SHIFT, compute_features, extractor, stored_crc32
from asrtool.data.manifest import ManifestSummary, open_cuts
from asrtool.data.shards import Entry, deserialize_cut, entries, entries_with_trees, manifest_name, read_entries
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError
from asrtool.files import atomic_path, file_hash, require_output, write_json
from asrtool.interrupts import init_worker
from asrtool.locks import LOCK, write_lock
from asrtool.progress import progress

# lilcom rounds to multiples of 2^TICK_POWER: half a tick is 0.002 of a natural logarithm, far below what a 16-bit
# sample resolves in a quiet bin. lhotse's default of -5 saves a fifth of the space and rounds eight times as coarsely.
TICK_POWER = -8
SHARD_CUTS = 200  # small enough to keep every core busy on a small corpus, large enough to make the files few
SETTINGS = "settings.json"
OWN_FILE = re.compile(r"\d{6,}\.(lca|jsonl\.gz)")


def store_features(
    cuts_path: Path,
    out: Path,
    num_bins: int = 80,
    speeds: tuple[float, ...] = (1.0,),
    jobs: int = 1,
    longest: float = MAX_CUT_SECONDS,
) -> ManifestSummary:
    """Store the features of every cut of `cuts_path` at each of `speeds`, and write their manifest to `out`.

    What is stored already, by an earlier run or by `store_feature_share`, is kept if it is of the same manifest and settings.
    Cuts of more than `longest` seconds are refused. Raises DataError with all cuts whose audio cannot be read; `out`
    and the features that it points to are then as before. UserError where another process is at work on the same.
    """
    plan = _plan(cuts_path, out, num_bins, speeds, longest)
    with write_lock(plan.folder, "asrtool features"):
        plan.write_settings()
        replaced = _folder_of(out)
        _store_shards(plan, jobs)
        summary = _join(plan, out)
    if replaced and replaced != plan.folder and replaced.parent == plan.folder.parent:
        _remove(replaced)
    return summary


def store_feature_share(
    cuts_path: Path,
    out: Path,
    share: tuple[int, int],
    num_bins: int = 80,
    speeds: tuple[float, ...] = (1.0,),
    jobs: int = 1,
    longest: float = MAX_CUT_SECONDS,
) -> tuple[int, int]:
    """Store the share (i, n) of what `store_features` does: every n-th shard from the i-th on, i counting from 1.

    Any number of shares may be stored at the same time, on any machines that see the same folder; `store_features` then joins
    them. Returns how many shards there are by now, whoever stored them, and how many there will be. Raises DataError as
    `store_features` does.
    """
    plan = _plan(cuts_path, out, num_bins, speeds, longest)
    with write_lock(plan.folder, "asrtool features --shard", shared=True):
        plan.write_settings()
        _store_shards(plan, jobs, share)
        return sum(plan.has(index) for index in range(plan.count_shards())), plan.count_shards()


@dataclass(frozen=True)
class StoragePlan:
    """What is stored, and in which folder."""

    cuts: Path
    count: int
    feats: Path  # feats/NAME
    settings: dict  # all that decides over what is stored
    longest: float

    @property
    def folder(self) -> Path:
        """Where the features of these settings are."""
        return self.feats / hashlib.blake2b(json.dumps(self.settings).encode(), digest_size=8).hexdigest()

    def write_settings(self) -> None:
        """Write settings.json, unless it is there: other processes write the same."""
        if not (self.folder / SETTINGS).is_file():
            write_json(self.folder / SETTINGS, self.settings)

    def count_shards(self) -> int:
        """How many shards there will be."""
        return -(-self.count // SHARD_CUTS)

    def manifest(self, index: int) -> Path:
        """The manifest of a shard."""
        return self.folder / f"{index:06d}.jsonl.gz"

    def archive(self, index: int) -> Path:
        """The features of a shard."""
        return self.folder / f"{index:06d}.lca"

    def has(self, index: int) -> bool:
        """Whether a shard is stored."""
        return self.manifest(index).is_file() and self.archive(index).is_file()


def _plan(cuts_path: Path, out: Path, num_bins: int, speeds: tuple[float, ...], longest: float) -> StoragePlan:
    """Check the input and OUT, before anything is written."""
    open_cuts(cuts_path)  # refuses what is not a manifest
    require_output(out, (".jsonl.gz", ".jsonl"), [cuts_path])
    if out.is_file() and out.stat().st_size and _folder_of(out) is None:
        raise UserError(f"OUT is {out}, which `asrtool features` has not written; delete it or name another file")
    feats = out.absolute().parent / "feats" / manifest_name(out)
    settings = {"manifest": file_hash(cuts_path), "num_bins": num_bins, "speeds": list(speeds)}
    settings |= {"shard_cuts": SHARD_CUTS, "tick_power": TICK_POWER}
    return StoragePlan(Path(cuts_path), _checked_count(cuts_path, longest), feats, settings, longest)


def _folder_of(manifest: Path) -> Path | None:
    """The folder of the features that a manifest of `store_features` points to; None when it is not such a manifest."""
    if not manifest.is_file():
        return None
    with suppress(UserError, StopIteration, LookupError, TypeError):
        _, tree = next(entries_with_trees(manifest))
        return Path(tree["features"]["storage_path"]).parent
    return None


def _checked_count(cuts_path: Path, longest: float) -> int:
    """The number of cuts. Raises DataError with all whose line tells that their features cannot be stored."""
    checks, count, problems = EntryChecks(longest), 0, []
    for entry, tree in progress(entries_with_trees(cuts_path), f"reading {cuts_path.name}"):
        count += 1
        if problem := checks.problem(tree):
            problems.append(f"{entry.id}: {problem}")
    if problems:
        raise DataError(f"{len(problems)} cuts of {cuts_path} cannot be used; mend the manifest", problems)
    return count


def _remove(folder: Path) -> None:
    """Delete the features in a folder of `store_features`, manifests first, so that an interruption leaves nothing that seems
    to be stored. Other files remain, and so does all of it while another process is at work there."""
    if not (folder / SETTINGS).is_file():
        return
    with suppress(UserError), write_lock(folder, "asrtool features"):
        own = [path for path in folder.iterdir() if OWN_FILE.fullmatch(path.name)]
        for path in [*sorted(own, key=lambda path: path.suffix == ".lca"), folder / SETTINGS, folder / LOCK]:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        folder.rmdir()


def _store_shards(plan: StoragePlan, jobs: int, share: tuple[int, int] = (1, 1)) -> None:
    """Store what is missing of a share. Raises DataError."""
    first, step = share[0] - 1, share[1]
    total = len(range(first, plan.count_shards(), step))
    stored = _in_processes(_store_shard, islice(_shards(plan), first, None, step), jobs)
    results = sorted(progress(stored, f"features of {plan.cuts.name}", total, "shards"))
    problems = [problem for _, found in results for problem in found]
    if problems:
        raise DataError(f"features of {len(problems)} cuts failed; mend or leave them out in the data stage", problems)


Shard = tuple[StoragePlan, int, list[Entry]]


def _shards(plan: StoragePlan) -> Iterator[Shard]:
    source = entries(plan.cuts)
    index = 0
    while shard := list(islice(source, SHARD_CUTS)):
        yield plan, index, shard
        index += 1


def _store_shard(shard: Shard) -> tuple[int, list[str]]:
    """Write one archive and then its manifest; returns the shard's number and what went wrong."""
    plan, index, cuts = shard
    manifest, archive = plan.manifest(index), plan.archive(index)
    if plan.has(index):
        return index, []
    problems, done = [], []
    with atomic_path(archive) as temporary, LilcomChunkyWriter(str(temporary), TICK_POWER) as writer:
        for entry in cuts:
            try:
                cut = deserialize_cut(
                    entry.id, entry.tree()
                )  # not entry.cut(), which would put Shar's audio into the manifest
                done += [_store_cut(_at_speed(cut, speed), plan, writer, archive) for speed in plan.settings["speeds"]]
            except InvalidEntry as problem:
                problems.append(str(problem))
    if not problems:
        with atomic_path(manifest) as temporary:
            CutSet.from_cuts(done).to_file(temporary)
    return index, problems


def _at_speed(cut: MonoCut, speed: float) -> MonoCut:
    return cut if speed == 1.0 else cut.perturb_speed(speed)


def _store_cut(cut: MonoCut, plan: StoragePlan, writer: LilcomChunkyWriter, archive: Path) -> MonoCut:
    """Write the features of `cut`; returns it with a pointer to them in `archive`, the name they will have."""
    num_bins = plan.settings["num_bins"]
    features = compute_features(cut, num_bins, plan.longest).numpy()
    key = writer.write(cut.id, features)
    writer.file.flush()
    kind = extractor(cut.sampling_rate, num_bins).name
    stored = _features_manifest(cut, features, key, archive, kind)
    custom = (cut.custom or {}) | {"features_crc32": stored_crc32(Path(writer.storage_path), key)}
    return fastcopy(cut, features=stored, custom=custom)  # a copy, since lhotse drops features with the speed


def _features_manifest(cut, features, key, archive, kind):
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
    init_worker()
    torch.set_num_threads(1)  # one process a core is faster than many threads on short recordings


def _in_processes(work: Callable, items: Iterator, jobs: int) -> Iterator:
    """`work` on each item, in `jobs` processes, as they finish; only a few items are held at a time."""
    if jobs <= 1:
        yield from map(work, items)
        return
    try:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _start_worker) as pool:
            running: set[Future] = set()
            for item in items:
                running.add(pool.submit(work, item))
                if len(running) >= 2 * jobs:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in running)
    except BrokenProcessPool as error:
        hint = "repeat the command with fewer --jobs, it goes on; memory may have run out"
        raise UserError(f"a process of --jobs {jobs} was killed; {hint}") from error


def _join(plan: StoragePlan, out: Path) -> ManifestSummary:
    """Write the lines of the shards' manifests to `out`."""
    count, seconds = 0, 0.0
    with atomic_path(out) as temporary, (gzip.open if out.suffix == ".gz" else open)(temporary, "wb") as file:
        for index in range(plan.count_shards()):
            for entry in _stored_entries(plan, index):
                file.write(entry.line + b"\n")
                count, seconds = count + 1, seconds + entry.duration
    return ManifestSummary(count, seconds, 0)


def _stored_entries(plan: StoragePlan, index: int) -> list[Entry]:
    """The lines of a shard's manifest, all that there should be."""
    manifest, cuts = plan.manifest(index), min(SHARD_CUTS, plan.count - index * SHARD_CUTS)
    try:
        stored = list(read_entries(manifest))
        if len(stored) == cuts * len(plan.settings["speeds"]):
            return stored
        cause = None
    except UserError as error:
        cause = error
    raise UserError(f"{manifest} is damaged; delete it and repeat the command, which stores it again") from cause
