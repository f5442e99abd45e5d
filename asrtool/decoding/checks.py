"""Checks of a manifest before decoding or alignment: lengths of cuts, and ids that other formats can hold."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lhotse import MonoCut

from asrtool.data.entry_checks import EntryChecks
from asrtool.data.shards import entries, entries_with_dicts
from asrtool.errors import DataError, UserError

logger = logging.getLogger(__name__)

FIELD_SEPARATOR = re.compile(r"[\s\0-\x1f\x7f]")  # ends a field of a CTM, or of a text archive of Kaldi


def check_cuts(cuts: Path, max_minutes: float, trained_seconds: float | None = None) -> None:
    """Raises DataError with all cuts of a manifest that cannot be recognised, e.g. longer than `max_minutes`.

    Other reasons are a repeated id, several supervisions, and no audio. The number of cuts longer than
    `trained_seconds`, the longest that the model was trained on, is logged. Raises UserError for a manifest without
    cuts.
    """
    checks = EntryChecks(60 * max_minutes)
    problems = []
    count = 0
    num_long = 0
    for entry, cut_dict in entries_with_dicts(cuts):
        count += 1
        num_long += trained_seconds is not None and entry.duration > trained_seconds
        if problem := checks.problem(cut_dict):
            problems.append(f"{entry.id}: {problem}")
    if not count:
        raise UserError(f"manifest is empty: {cuts}; write it again with `asrtool prepare`")
    if problems:
        raise DataError(f"{len(problems)} of {count} cuts of {cuts} cannot be used; correct the manifest", problems)
    if num_long:
        longest = f"{trained_seconds:g} s, the longest that the model was trained on (data.max_seconds)"
        logger.info(
            f"{num_long} of {count} cuts of {cuts} are longer than {longest}: expect more errors; split them at "
            "pauses, e.g. by the columns start and end of `asrtool prepare table`"
        )


def check_archive_keys(cuts: Path) -> None:
    """Raises DataError with all cuts whose ids cannot be the keys of a text archive of Kaldi."""
    problems = [f"{entry.id!r}: an id with white space" for entry in entries(cuts) if FIELD_SEPARATOR.search(entry.id)]
    if problems:
        raise DataError(f"{len(problems)} ids of {cuts} cannot be keys of a lattice archive; rename the cuts", problems)


def check_recordings(cuts: Path) -> None:
    """Raises DataError where recordings of a manifest would have the same name in a CTM, or one with white space."""
    audio: dict[str, str] = {}
    problems: dict[str, None] = {}
    for name, source in _recordings(cuts):
        if FIELD_SEPARATOR.search(name):
            problems[f"{name!r}: a recording id with white space"] = None
        elif audio.setdefault(name, source) != source:
            problems[f"{name}: the recording id of two files, {audio[name]} and {source}"] = None
    if problems:
        hint = "give each recording an id of its own, without white space"
        raise DataError(f"{len(problems)} recordings of {cuts} cannot be named in a CTM; {hint}", list(problems))


def recording_name(cut: MonoCut) -> str:
    """Returns the name of a cut's recording in a CTM."""
    return cut.recording_id if cut.has_recording else cut.id


def _recordings(cuts: Path) -> Iterator[tuple[str, str]]:
    """Yields for each cut the name of its recording in a CTM (`recording_name`), and its audio files."""
    for entry, cut_dict in entries_with_dicts(cuts):
        recording = cut_dict.get("recording")
        if not isinstance(recording, dict):
            yield entry.id, f"of cut {entry.id}"
            continue
        sources = recording.get("sources")
        paths = [os.path.normpath(str(s.get("source"))[:4096]) for s in sources or () if isinstance(s, dict)]
        yield str(recording.get("id")), ", ".join(paths)
