"""Checks of the results of `asrtool decode` and `asrtool stream` in an experiment: scored, and of these weights."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from asrtool.data.inspection import transcript
from asrtool.data.shards import entries_with_dicts
from asrtool.decoding.result_folder import PARTS
from asrtool.doctor.findings import Finding, Severity, finding_of_error, in_folder, shell_command
from asrtool.doctor.work_folders import command_words, own_path, result_folder
from asrtool.errors import AsrtoolError
from asrtool.files import file_hash
from asrtool.readers import read_json, read_training_log
from asrtool.scoring.folder import FACTS_FILES, HASH_KEY, HYPOTHESES, read_hypotheses, read_result_facts
from asrtool.text.words import composed


def result_folders(experiment: Path) -> list[Path]:
    """Returns the folders EXP/{decode,stream}/SET/METHOD of results, also of interrupted ones."""
    marks = (HYPOTHESES, PARTS, *FACTS_FILES)  # tuning and calibration keep other folders there
    folders = (path for kind in ("decode", "stream") for path in sorted(experiment.glob(f"{kind}/*/*")))
    return [path for path in folders if any((path / mark).exists() for mark in marks)]


def check_results(experiment: Path) -> Iterator[Finding]:
    """Yields findings about each result: interrupted, not scored, an old score, or of earlier weights or manifests."""
    for folder in result_folders(experiment):
        yield from _check_result(experiment, folder)


def _check_result(experiment: Path, folder: Path) -> Iterator[Finding]:
    try:
        facts = read_result_facts(folder)
    except (AsrtoolError, OSError) as error:
        yield finding_of_error("damaged-result", folder, error)
        return
    command = _decode_command(experiment, folder, facts)
    if (folder / PARTS).is_dir():
        cause = "its decoding was interrupted; the parts that were done are kept"
        yield Finding("interrupted-result", Severity.WARNING, str(folder), cause, command)
    hypotheses = folder / HYPOTHESES
    if not hypotheses.is_file():
        if facts:
            cause = f"it has no {HYPOTHESES}"
            yield Finding("missing-hypotheses", Severity.ERROR, str(folder), cause, command)
        return
    yield from _check_score(folder, hypotheses)
    yield from _check_age(experiment, folder, facts, _again(command))
    yield from _check_references(folder, own_path(experiment, facts, "cuts"), _again(command))


def _decode_command(experiment: Path, folder: Path, facts: dict) -> str:
    """Returns the command that wrote the result, or one like it if none of asrtool is recorded.

    All its words are quoted: an experiment may come from a stranger, and the command is shown as one to run. It changes
    into the folder that its paths are relative to.
    """
    kind = folder.parent.parent.name
    words = command_words(facts)
    if words[:2] != ["asrtool", kind] or len(words) < 3:
        return _new_command(experiment, folder, kind, own_path(experiment, facts, "cuts"))
    work = result_folder(experiment, facts)
    if work is None:  # the experiment has another name or place now
        words[2] = str(experiment)
    return in_folder(work, shell_command(*words))


def _new_command(experiment: Path, folder: Path, kind: str, cuts: str | None) -> str:
    command = ["asrtool", kind, experiment, cuts or "CUTS", "--method", folder.name]
    where = "" if cuts else f", where CUTS is the manifest of {folder.parent.name}"
    return f"{shell_command(*command)}{where}"


def _again(command: str) -> str:
    """Returns a command that replaces the result that there is."""
    return command if "--overwrite" in command or ", where CUTS" in command else f"{command} --overwrite"


def _check_score(folder: Path, hypotheses: Path) -> Iterator[Finding]:
    """Yields a finding if the hypotheses have no score, or the score of earlier hypotheses."""
    score = folder / "wer.json"
    remedy = shell_command("asrtool", "score", folder)
    if not score.is_file():
        yield Finding("not-scored", Severity.NOTE, str(folder), "the hypotheses have not been scored", remedy)
        return
    try:
        content = read_json(score, "score", remedy)
    except AsrtoolError as error:
        yield finding_of_error("damaged-score", score, error)
        return
    if not isinstance(content, dict):
        yield Finding("damaged-score", Severity.ERROR, str(score), "it is not a JSON object", remedy)
    elif content.get(HASH_KEY) not in (None, file_hash(hypotheses)):
        cause = f"it is the score of other hypotheses than those in {HYPOTHESES}"
        yield Finding("stale-score", Severity.ERROR, str(score), cause, remedy)


def _check_age(experiment: Path, folder: Path, facts: dict, command: str) -> Iterator[Finding]:
    """Yields a warning if the training ended after the hypotheses were written.

    The time in the log counts, not the time of the file with the weights, which a copy of an experiment may change.
    """
    ended = finished_time(experiment)
    weights = experiment / "checkpoints" / str(facts.get("checkpoint"))
    if ended and os.path.isfile(weights) and (folder / HYPOTHESES).stat().st_mtime < ended:
        cause = f"the training went on after this decoding, and changed the weights in {weights.name}"
        yield Finding("stale-result", Severity.WARNING, str(folder), cause, command)


def _check_references(folder: Path, cuts: str | None, command: str) -> Iterator[Finding]:
    """Yields a warning if the manifest has other utterances or transcripts now than the hypotheses have."""
    if cuts is None or not (os.path.isfile(cuts) or os.path.isdir(cuts)):  # no device
        return
    try:
        rows = read_hypotheses(folder / HYPOTHESES)
        texts = {entry.id: _words(transcript(cut_dict)) for entry, cut_dict in entries_with_dicts(Path(cuts))}
    except (AsrtoolError, OSError, ValueError, LookupError, TypeError) as error:
        yield finding_of_error("damaged-result", folder, error, command)
        return
    references = {row["id"]: _words(row["ref"]) for row in rows}
    others = sorted(references.keys() ^ texts.keys())
    if rows[0].get("token_type", "words") == "words":  # references of phone systems are phones
        others += sorted(name for name in references.keys() & texts.keys() if references[name] != texts[name])
    if others:
        cause = f"{cuts} has other utterances or transcripts now"
        yield Finding("stale-result", Severity.WARNING, str(folder), cause, command, len(others), tuple(others[:10]))


def _words(text: str) -> str:
    return " ".join(composed(text).split())


def finished_time(experiment: Path) -> float | None:
    """Returns the time at which the training ended, in seconds as of `time.time`, by its log; None without an end."""
    times = logged_times(experiment, "finished")
    return times[-1] if times else None


def logged_times(experiment: Path, event: str) -> list[float]:
    """Returns the times of the rows of an event in log.jsonl, in seconds as of `time.time`; empty without a log."""
    path = experiment / "log.jsonl"
    try:
        rows = read_training_log(path) if path.is_file() else []
        times = [row["time"] for row in rows if isinstance(row, dict) and row.get("event") == event]
        return [datetime.fromisoformat(time).timestamp() for time in times]
    except (AsrtoolError, OSError, ValueError, TypeError, LookupError):
        return []
