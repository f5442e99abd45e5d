"""What is asked of a manifest before any time is spent on it: lengths, and ids that other formats can hold."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lhotse import MonoCut

from asrtool.data.entry_checks import EntryChecks
from asrtool.data.shards import entries, entries_with_trees
from asrtool.errors import DataError, UserError

logger = logging.getLogger(__name__)

UNFIT = re.compile(r"[\s\0-\x1f\x7f]")  # ends a field of a CTM, or of a text archive of Kaldi


def check_cuts(cuts: Path, max_minutes: float, trained_seconds: float | None = None) -> None:
    """DataError with all cuts of a manifest that cannot be recognised, e.g. longer than `max_minutes`.

    Others are: an id that was there before, several supervisions, no audio. Cuts that are longer than
    `trained_seconds`, the longest that the model was trained on, are counted in a warning. UserError for a manifest
    without cuts.
    """
    checks, problems, count, beyond = EntryChecks(60 * max_minutes), [], 0, 0
    for entry, tree in entries_with_trees(cuts):
        count += 1
        beyond += trained_seconds is not None and entry.duration > trained_seconds
        if problem := checks.problem(tree):
            problems.append(f"{entry.id}: {problem}")
    if not count:
        raise UserError(f"manifest is empty: {cuts}; make it again with `asrtool prepare`")
    if problems:
        raise DataError(f"{len(problems)} of {count} cuts of {cuts} cannot be used; mend the manifest", problems)
    if beyond:
        logger.info(
            f"{beyond} of {count} cuts of {cuts} are longer than {trained_seconds:g} s, the longest that the model was "
            "trained on (data.max_seconds): expect more errors; split them at pauses, e.g. by the columns start and "
            "end of `asrtool prepare table`"
        )


def check_keys(cuts: Path) -> None:
    """DataError with all cuts whose ids cannot be the keys of a text archive of Kaldi."""
    unfit = [f"{entry.id!r}: an id with white space" for entry in entries(cuts) if UNFIT.search(entry.id)]
    if unfit:
        raise DataError(f"{len(unfit)} ids of {cuts} cannot be keys of a lattice archive; rename the cuts", unfit)


def check_recordings(cuts: Path) -> None:
    """DataError where a CTM could not tell the recordings of a manifest apart: its lines name nothing else."""
    audio: dict[str, str] = {}
    problems: dict[str, None] = {}
    for name, source in _recordings(cuts):
        if UNFIT.search(name):
            problems[f"{name!r}: a recording id with white space"] = None
        elif audio.setdefault(name, source) != source:
            problems[f"{name}: the recording id of two files, {audio[name]} and {source}"] = None
    if problems:
        hint = "give each recording an id of its own, without white space"
        raise DataError(f"{len(problems)} recordings of {cuts} cannot stand in a CTM; {hint}", list(problems))


def recording_name(cut: MonoCut) -> str:
    """What a CTM calls the recording of a cut."""
    return cut.recording_id if cut.has_recording else cut.id


def _recordings(cuts: Path) -> Iterator[tuple[str, str]]:
    """For each cut the name that a CTM has for its recording (`recording_name`), and its audio."""
    for entry, tree in entries_with_trees(cuts):
        recording = tree.get("recording")
        if not isinstance(recording, dict):
            yield entry.id, f"of cut {entry.id}"
            continue
        sources = recording.get("sources")
        named = [os.path.normpath(str(s.get("source"))[:4096]) for s in sources or () if isinstance(s, dict)]
        yield str(recording.get("id")), ", ".join(named)
