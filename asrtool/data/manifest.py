"""From utterances to a checked lhotse manifest (`*.jsonl.gz`, one cut an utterance), or a list of all problems.

A cut is written as its JSON object, since to import lhotse takes seconds. asrtool/data/lhotse_manifest.py writes
manifests from lhotse's own objects.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from asrtool.data.audio import is_command
from asrtool.data.corpora import Utterance
from asrtool.data.manifest_lines import open_writer
from asrtool.data.manifest_recording import ManifestRecording
from asrtool.data.shards import entries_with_dicts
from asrtool.data.sources import InvalidEntry
from asrtool.data.utterance_checks import UtteranceChecks, create_recording
from asrtool.errors import DataError
from asrtool.progress import progress
from asrtool.readers import read_byte_lines

logger = logging.getLogger(__name__)

MAX_PROBLEMS = 100_000  # that are collected: nobody reads more, and a small damaged file may have millions


@dataclass(frozen=True)
class ManifestSummary:
    """The size of a written manifest, and what was changed or left out."""

    cuts: int
    seconds: float
    left_out: int
    notes: tuple[str, ...] = ()  # what was changed, with its count

    def __str__(self) -> str:
        left_out = (f"{self.left_out} bad ones left out",) if self.left_out else ()
        return "; ".join([f"{self.cuts} utterances, {self.seconds / 3600:.2f} h", *left_out, *self.notes])


CutOrProblem: TypeAlias = dict | str  # the JSON object of a cut, or a line
RecordingKey = tuple[str, str]  # id and audio


def write_manifest(
    utterances: Iterable[Utterance | str],
    out: Path,
    sampling_rate: int = 16000,
    skip_bad: bool = False,
    jobs: int = 4,
    complete: Callable[[dict], dict] | None = None,
    **settings: Any,
) -> ManifestSummary:
    """Checks `utterances`, audio included, and writes their cuts to `out`.

    `complete` returns each cut with what it adds, e.g. an alignment; it raises InvalidEntry for a bad utterance.
    `settings` are other fields of `UtteranceChecks`, e.g. resample=True. A line instead of an utterance is a problem
    that its reader detected. Raises DataError with all problems, writing nothing, unless `skip_bad`.
    """
    rows = list(utterances)
    checks = UtteranceChecks(sampling_rate, **settings)
    recordings = _inspect_recordings(rows, checks, jobs)
    return write_entries(_cuts_or_problems(rows, recordings, checks, complete), out, skip_bad, checks)


def speaker_of(cut_dict: dict) -> str | None:
    """Returns the speaker of a line of a manifest (asrtool/data/shards.py), None if none is named."""
    return next((supervision.get("speaker") for supervision in cut_dict.get("supervisions") or ()), None)


def count_cuts(path: Path) -> int:
    """Returns the number of cuts of a manifest, by its lines, without making objects of them."""
    return sum(1 for line in read_byte_lines(path, "manifest", "make it with `asrtool prepare`") if line.strip())


def transcripts(paths: Iterable[Path]) -> Iterator[str]:
    """Yields the texts of all supervisions of manifests."""
    for path in paths:
        for _, cut_dict in entries_with_dicts(path):
            yield from (supervision.get("text") or "" for supervision in cut_dict.get("supervisions") or ())


def _inspect_recordings(
    rows: list[Utterance | str], checks: UtteranceChecks, jobs: int
) -> dict[RecordingKey, ManifestRecording | InvalidEntry]:
    """Returns every distinct recording, inspected, or the problem of it."""
    keys = dict.fromkeys(_recording_key(row) for row in rows if isinstance(row, Utterance))

    def inspect(key: RecordingKey) -> ManifestRecording | InvalidEntry:
        name, audio = key
        try:
            return checks.at_sampling_rate(create_recording(name, _absolute(audio), checks), audio)
        except InvalidEntry as problem:
            return problem

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(keys, progress(pool.map(inspect, keys), "checking audio", len(keys)), strict=True))


def _recording_key(utterance: Utterance) -> RecordingKey:
    return utterance.recording or utterance.id, utterance.audio


def _absolute(audio: str) -> str:
    return audio if is_command(audio) else str(Path(audio).absolute())


def _cuts_or_problems(
    rows: list[Utterance | str],
    recordings: dict[RecordingKey, ManifestRecording | InvalidEntry],
    checks: UtteranceChecks,
    complete: Callable[[dict], dict] | None,
) -> Iterator[CutOrProblem]:
    for row in rows:
        if isinstance(row, str):
            yield row
            continue
        try:
            cut = _create_cut(row, recordings[_recording_key(row)], checks)
            cut = complete(cut) if complete else cut
            checks.remember_id(row.id, row.where)
            yield cut
        except InvalidEntry as problem:
            yield f"{printable_id(row.id)}: {problem}"


def _create_cut(utterance: Utterance, recording: ManifestRecording | InvalidEntry, checks: UtteranceChecks) -> dict:
    checks.check_id(utterance.id, utterance.where)
    if isinstance(recording, InvalidEntry):
        raise recording
    checks.check_recording(recording)
    speaker = checks.clean_speaker(utterance.speaker)
    text = checks.clean_text(utterance.text)
    channel = checks.choose_channel(recording, utterance.audio, utterance.channel)
    end = recording.duration if utterance.end is None else utterance.end
    end = checks.check_end(utterance.start, end, recording.duration)
    duration = round(end - utterance.start, 8)
    supervision = {
        "id": utterance.id,
        "recording_id": recording.id,
        "start": 0.0,
        "duration": duration,
        "channel": channel,
        "text": text,
        "speaker": speaker,
    }
    return {
        "id": utterance.id,
        "start": utterance.start,
        "duration": duration,
        "channel": channel,
        "supervisions": [{key: value for key, value in supervision.items() if value is not None}],
        "recording": recording.to_dict(),
        "type": "MonoCut",
    }


def printable_id(name: str) -> str:
    """Returns an id for a message, on one line; in quotes if it is not one word."""
    return name if name.isprintable() and name.split() == [name] else ascii(name)


def write_entries(
    cuts_or_problems: Iterator[CutOrProblem], out: Path, skip_bad: bool, checks: UtteranceChecks
) -> ManifestSummary:
    """Writes cuts to a manifest. Raises DataError with all problems, writing nothing, unless `skip_bad`."""
    problems: list[str] = []
    count = 0
    seconds = 0.0
    with open_writer(out) as file:
        for cut in cuts_or_problems:
            if isinstance(cut, str):
                problems.append(cut)
                _stop_at_many(problems)
            else:
                file.write(json.dumps(cut, ensure_ascii=False).encode() + b"\n")
                count += 1
                seconds += cut["duration"]
        if problems and not skip_bad:
            hint = f"fix them, or leave them out with --skip-bad{_rate_hint(checks.refused_rates)}"
            raise DataError(f"{len(problems)} of {count + len(problems)} utterances are bad; {hint}", problems)
        if not count:
            raise DataError("no utterances left; nothing written", problems)
    for problem in problems:
        logger.info(f"  left out {problem}")
    notes = tuple(f"{number} {note}" for note, number in checks.notes.items() if number)
    return ManifestSummary(count, seconds, len(problems), notes)


def _stop_at_many(problems: list[str]) -> None:
    if len(problems) >= MAX_PROBLEMS:
        raise DataError(f"stopped after {MAX_PROBLEMS:,} problems; is it the right corpus?", problems)


def _rate_hint(refused_rates: set[int]) -> str:
    if not refused_rates:
        return ""
    rate = min(refused_rates)
    own_rate = f"--sampling-rate {rate} and features.sampling_rate={rate} in the configuration"
    return f"; for audio at another rate give --resample, or {own_rate}"
