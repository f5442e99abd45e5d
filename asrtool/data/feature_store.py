"""Storing features with lilcom, in shards of a few hundred cuts.

The manifest of a shard is written when its archive is complete, so that an interrupted run continues with the shards
that are missing, and several machines can each store some of them:

    feats/NAME/DIGEST/settings.json            the input and the settings, whose digest is DIGEST
                      000000-AUDIO.lca         the features of the first SHARD_CUTS cuts
                      000000-AUDIO.jsonl.gz    their manifest

NAME is the name of the manifest OUT, which lists all features. Another input or other settings have another DIGEST, and
audio files that were changed (by their sizes or times) another AUDIO, so that the features that OUT lists remain until
a new OUT replaces it. Only these files are ever deleted.
"""

import gzip
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet, Features, MonoCut
from lhotse.features.io import LilcomChunkyWriter
from lhotse.utils import fastcopy

from asrtool.data.entry_checks import MAX_CUT_SECONDS, EntryChecks
from asrtool.data.features import FRAME_SHIFT, compute_features, extractor, stored_crc32
from asrtool.data.lhotse_objects import deserialize_cut
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import ManifestSummary
from asrtool.data.shards import Entry, entries, entries_with_dicts, fingerprint, manifest_name, read_entries
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError
from asrtool.files import atomic_path, file_hash, require_output, write_json
from asrtool.forking import fork_context
from asrtool.interrupts import init_worker
from asrtool.locks import LOCK, write_lock
from asrtool.progress import progress

# lilcom rounds to multiples of 2^TICK_POWER: half a tick is 0.002 of a natural logarithm, far below what a 16-bit
# sample resolves in a quiet bin. lhotse's default of -5 saves a fifth of the space and rounds eight times as coarsely.
TICK_POWER = -8
SHARD_CUTS = 200  # small enough to keep every core busy on a small corpus, large enough to make the files few
SETTINGS = "settings.json"
SHARD_FILE = re.compile(r"(\d{6,}(-[0-9a-f]{8})?)\.(lca|jsonl\.gz)")  # without a digest: of earlier versions


def store_features(
    cuts_path: Path,
    out: Path,
    num_bins: int = 80,
    speeds: tuple[float, ...] = (1.0,),
    jobs: int = 1,
    max_seconds: float = MAX_CUT_SECONDS,
) -> ManifestSummary:
    """Stores the features of every cut of `cuts_path` at each of `speeds`, and writes their manifest to `out`.

    Shards that an earlier run or `store_feature_share` stored are kept if the manifest, the settings and the audio
    files of the shard are the same. Cuts of more than `max_seconds` are refused. Raises DataError with all cuts whose
    audio cannot be read; `out` and the features that it lists are then unchanged. UserError while another process
    stores the same features.
    """
    plan = _plan_storage(cuts_path, out, num_bins, speeds, max_seconds)
    with write_lock(plan.folder, "asrtool features"):
        plan.write_settings()
        replaced = _features_folder(out)
        shards = _store_shards(plan, jobs)
        summary = _join_manifests(plan, shards, out)
        if replaced == plan.folder:
            _remove_shards(plan.folder, kept=shards)
    if replaced and replaced != plan.folder and replaced.parent == plan.folder.parent:
        _remove_features(replaced, out)
    return summary


def store_feature_share(
    cuts_path: Path,
    out: Path,
    share: tuple[int, int],
    num_bins: int = 80,
    speeds: tuple[float, ...] = (1.0,),
    jobs: int = 1,
    max_seconds: float = MAX_CUT_SECONDS,
) -> tuple[int, int]:
    """Stores the share (i, n) of what `store_features` stores: every n-th shard from the i-th on, i counting from 1.

    Any number of shares may be stored at the same time, on any machines with access to the folder; `store_features`
    then joins them. Returns the number of shards that are stored now, by any process, and the number of all shards.
    Raises DataError as `store_features` does.
    """
    plan = _plan_storage(cuts_path, out, num_bins, speeds, max_seconds)
    with write_lock(plan.folder, "asrtool features --shard", shared=True):
        plan.write_settings()
        _store_shards(plan, jobs, share)
        return plan.count_stored(), plan.num_shards


@dataclass(frozen=True)
class StoragePlan:
    """The cuts whose features are stored, the settings, and the folder."""

    cuts: Path
    num_cuts: int
    parent: Path  # feats/NAME
    settings: dict  # everything that changes the stored features
    max_seconds: float

    @property
    def folder(self) -> Path:
        """The folder of the features with these settings."""
        return self.parent / hashlib.blake2b(json.dumps(self.settings).encode(), digest_size=8).hexdigest()

    @property
    def num_shards(self) -> int:
        """The number of all shards."""
        return -(-self.num_cuts // SHARD_CUTS)

    def write_settings(self) -> None:
        """Writes settings.json unless it exists: other processes write the same."""
        if not (self.folder / SETTINGS).is_file():
            write_json(self.folder / SETTINGS, self.settings)

    def manifest(self, shard: str) -> Path:
        """Returns the path of the manifest of a shard."""
        return self.folder / f"{shard}.jsonl.gz"

    def archive(self, shard: str) -> Path:
        """Returns the path of the features of a shard."""
        return self.folder / f"{shard}.lca"

    def is_stored(self, shard: str) -> bool:
        """Returns True if a shard is complete."""
        return self.manifest(shard).is_file() and self.archive(shard).is_file()

    def count_stored(self) -> int:
        """Returns the number of shards that are complete, whatever state of their audio files they have."""
        matches = map(SHARD_FILE.fullmatch, os.listdir(self.folder))
        shards = {match[1] for match in matches if match and match[2] and self.is_stored(match[1])}
        return len({shard.partition("-")[0] for shard in shards})


def _plan_storage(
    cuts_path: Path, out: Path, num_bins: int, speeds: tuple[float, ...], max_seconds: float
) -> StoragePlan:
    """Checks the input and OUT, before anything is written."""
    open_cuts(cuts_path)  # refuses what is not a manifest
    require_output(out, (".jsonl.gz", ".jsonl"), [cuts_path])
    if out.is_file() and out.stat().st_size and _features_folder(out) is None:
        raise UserError(f"OUT is {out}, which `asrtool features` has not written; delete it or name another file")
    other = out.with_name(manifest_name(out) + (".jsonl" if out.suffix == ".gz" else ".jsonl.gz"))
    if other.exists():
        problem = f"{other} exists, whose features are in the same folder, feats/{manifest_name(out)}"
        raise UserError(f"OUT is {out}: {problem}; name another file, or delete that one")
    settings = {
        "manifest": fingerprint(cuts_path) if Path(cuts_path).is_dir() else file_hash(cuts_path),
        "num_bins": num_bins,
        "speeds": list(speeds),
        "shard_cuts": SHARD_CUTS,
        "tick_power": TICK_POWER,
    }
    return StoragePlan(
        cuts=Path(cuts_path),
        num_cuts=_count_checked_cuts(cuts_path, max_seconds),
        parent=out.absolute().parent / "feats" / manifest_name(out),
        settings=settings,
        max_seconds=max_seconds,
    )


def _features_folder(manifest: Path) -> Path | None:
    """Returns the folder of the features that a manifest of `store_features` lists; None if it is not one."""
    if not manifest.is_file():
        return None
    with suppress(UserError, StopIteration, LookupError, TypeError):
        _, cut_dict = next(entries_with_dicts(manifest))
        return Path(cut_dict["features"]["storage_path"]).parent
    return None


def _count_checked_cuts(cuts_path: Path, max_seconds: float) -> int:
    """Returns the number of cuts. Raises DataError with all whose line shows that features cannot be stored."""
    checks = EntryChecks(max_seconds)
    count = 0
    problems: list[str] = []
    for entry, cut_dict in progress(entries_with_dicts(cuts_path), f"reading {cuts_path.name}"):
        count += 1
        if problem := checks.problem(cut_dict):
            problems.append(f"{entry.id}: {problem}")
    if problems:
        raise DataError(f"{len(problems)} cuts of {cuts_path} cannot be used; fix the manifest", problems)
    return count


def _remove_features(folder: Path, out: Path) -> None:
    """Deletes the features in a folder of `store_features`. Other files remain, and all files while another process
    uses the folder, or if it has written an `out` that lists these features."""
    if not (folder / SETTINGS).is_file():
        return
    with suppress(UserError), write_lock(folder, "asrtool features"):
        if _features_folder(out) == folder:
            return
        _remove_shards(folder)
        for name in (SETTINGS, LOCK):
            (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        folder.rmdir()


def _remove_shards(folder: Path, kept: Collection[str] = ()) -> None:
    """Deletes all shards in a folder but those `kept`, manifests first, so that after an interruption none of them
    seems complete."""
    matches = filter(None, map(SHARD_FILE.fullmatch, os.listdir(folder)))
    names = [match[0] for match in matches if match[1] not in kept]
    for name in sorted(names, key=lambda name: name.endswith(".lca")):
        (folder / name).unlink(missing_ok=True)


def _store_shards(plan: StoragePlan, jobs: int, share: tuple[int, int] = (1, 1)) -> list[str]:
    """Stores what is missing of a share; returns the names of its shards in their order. Raises DataError."""
    number, step = share
    first = number - 1
    total = len(range(first, plan.num_shards, step))
    stored = _map_in_processes(_store_shard, islice(_shards(plan), first, None, step), jobs)
    results = sorted(progress(stored, f"features of {plan.cuts.name}", total, "shards"))
    problems = [problem for _, _, problems_of_shard in results for problem in problems_of_shard]
    if problems:
        raise DataError(
            f"features of {len(problems)} cuts failed; fix them or leave them out in the data stage", problems
        )
    return [name for _, name, _ in results]


Shard = tuple[StoragePlan, int, list[Entry]]


def _shards(plan: StoragePlan) -> Iterator[Shard]:
    source = entries(plan.cuts)
    index = 0
    while shard := list(islice(source, SHARD_CUTS)):
        yield plan, index, shard
        index += 1


def _shard_name(index: int, cuts: list[Entry]) -> str:
    """Returns the name of a shard's files: its number, and a digest of the sizes and times of its audio files."""
    states: dict[str, list[int]] = {}
    for entry in cuts:
        for file in _audio_files(entry):
            if file not in states:
                states[file] = _file_state(file)
    return f"{index:06d}-{hashlib.blake2b(json.dumps(states).encode(), digest_size=4).hexdigest()}"


def _audio_files(entry: Entry) -> list[str]:
    """Returns the files of a cut's audio: of its recording, or Shar's tar files."""
    sources = (entry.to_dict().get("recording") or {}).get("sources", ())
    files = [source.get("source") for source in sources if source.get("type") == "file"]
    return [file for file in files if isinstance(file, str)] + [item.tar for item in entry.shar_items]


def _file_state(path: str) -> list[int]:
    """Returns size and modification time of a file; nothing if it is missing, which is a problem of its cuts."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def _store_shard(shard: Shard) -> tuple[int, str, list[str]]:
    """Writes one archive and then its manifest; returns the shard's number and name, and the problems of its cuts."""
    plan, index, cuts = shard
    name = _shard_name(index, cuts)
    archive = plan.archive(name)
    problems: list[str] = []
    if plan.is_stored(name):
        return index, name, problems
    stored: list[MonoCut] = []
    with atomic_path(archive) as temporary, LilcomChunkyWriter(str(temporary), TICK_POWER) as writer:
        for entry in cuts:
            try:
                # not read_cut, which would put Shar's audio into the manifest
                cut = deserialize_cut(entry.id, entry.to_dict())
                for speed in plan.settings["speeds"]:
                    at_speed = cut if speed == 1.0 else cut.perturb_speed(speed)
                    stored.append(_store_cut(at_speed, plan, writer, archive))
            except InvalidEntry as problem:
                problems.append(str(problem))
    if not problems:
        with atomic_path(plan.manifest(name)) as temporary:
            CutSet.from_cuts(stored).to_file(temporary)
    return index, name, problems


def _store_cut(cut: MonoCut, plan: StoragePlan, writer: LilcomChunkyWriter, archive: Path) -> MonoCut:
    """Writes the features of `cut`; returns it with a pointer to them in `archive`, the name they will have."""
    num_bins = plan.settings["num_bins"]
    features = compute_features(cut, num_bins, plan.max_seconds).numpy()
    key = writer.write(cut.id, features)
    writer.file.flush()
    kind = extractor(cut.sampling_rate, num_bins).name
    custom = (cut.custom or {}) | {"features_crc32": stored_crc32(Path(writer.storage_path), key)}
    # a copy, since lhotse drops features with the speed
    return fastcopy(cut, features=_features_manifest(cut, features, key, archive, kind), custom=custom)


def _features_manifest(cut: MonoCut, features: np.ndarray, key: str, archive: Path, kind: str) -> Features:
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


def _init_store_worker() -> None:
    init_worker(ends_on_sigterm=True)
    torch.set_num_threads(1)  # one process a core is faster than many threads on short recordings


def _map_in_processes(work: Callable, items: Iterator, jobs: int) -> Iterator:
    """Yields `work` of each item, computed by `jobs` processes, as they finish; only a few items are held at a time."""
    if jobs <= 1:
        yield from map(work, items)
        return
    try:
        with ProcessPoolExecutor(jobs, fork_context(), _init_store_worker) as pool:
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


def _join_manifests(plan: StoragePlan, shards: list[str], out: Path) -> ManifestSummary:
    """Writes the lines of the manifests of `shards` to `out`."""
    count = 0
    seconds = 0.0
    open_out = gzip.open if out.suffix == ".gz" else open
    with atomic_path(out) as temporary, open_out(temporary, "wb") as file:
        for index, shard in enumerate(shards):
            for entry in _stored_entries(plan, index, shard):
                file.write(entry.line + b"\n")
                count += 1
                seconds += entry.duration
    return ManifestSummary(count, seconds, 0)


def _stored_entries(plan: StoragePlan, index: int, shard: str) -> list[Entry]:
    """Returns the lines of a shard's manifest. UserError unless they are complete."""
    manifest = plan.manifest(shard)
    num_cuts = min(SHARD_CUTS, plan.num_cuts - index * SHARD_CUTS)
    cause: UserError | None = None
    try:
        stored = list(read_entries(manifest))
        if len(stored) == num_cuts * len(plan.settings["speeds"]):
            return stored
    except UserError as error:
        cause = error
    raise UserError(f"{manifest} is damaged; delete it and repeat the command, which stores it again") from cause
