"""From utterances to a checked lhotse manifest (`*.jsonl.gz`, one cut an utterance), or a list of all problems."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.utils import fastcopy

from asrtool.data.audio import is_command
from asrtool.data.corpora import Utterance
from asrtool.data.lhotse_sets import open_cuts, read_lhotse
from asrtool.data.shards import entries_with_trees
from asrtool.data.sources import InvalidEntry
from asrtool.data.utterance_checks import UtteranceChecks, check_recording_audio, create_recording, select_channel
from asrtool.errors import DataError
from asrtool.files import atomic_path
from asrtool.progress import progress
from asrtool.readers import read_byte_lines

logger = logging.getLogger(__name__)

__all__ = ["ManifestSummary", "copy_manifest", "count_cuts", "open_cuts", "read_lhotse", "write_manifest"]

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


CutOrProblem: TypeAlias = MonoCut | str
RecordingKey = tuple[str, str]  # id and audio


def write_manifest(
    utterances: Iterable[Utterance | str],
    out: Path,
    sampling_rate: int = 16000,
    skip_bad: bool = False,
    jobs: int = 4,
    **settings: Any,
) -> ManifestSummary:
    """Checks `utterances`, audio included, and writes their cuts to `out`.

    `settings` are other fields of `UtteranceChecks`, e.g. resample=True. A line instead of an utterance is a problem
    that its reader detected. Raises DataError with all problems, writing nothing, unless `skip_bad`.
    """
    rows = list(utterances)
    checks = UtteranceChecks(sampling_rate, **settings)
    recordings = _inspect_recordings(rows, checks, jobs)
    return _write(_cuts_or_problems(rows, recordings, checks), out, skip_bad, checks)


def copy_manifest(
    cuts: Iterable[Cut | str], out: Path, sampling_rate: int = 16000, skip_bad: bool = False, **settings: Any
) -> ManifestSummary:
    """Writes lhotse cuts with the checks of `write_manifest`: a cut for each supervision; stored features are kept."""
    checks = UtteranceChecks(sampling_rate, **settings)
    results = (result for cut in cuts for result in _copied_cuts(cut, checks))
    return _write(results, out, skip_bad, checks)


def text_and_speaker(cut: MonoCut) -> tuple[str, str | None]:
    """Returns the text of a cut, "" without a supervision, and its speaker if one is named."""
    supervision = cut.supervisions[0] if cut.supervisions else None
    return (supervision.text or "", supervision.speaker) if supervision else ("", None)


def speaker_of(tree: dict) -> str | None:
    """Returns the speaker of a line of a manifest (asrtool/data/shards.py), None if none is named."""
    return next((supervision.get("speaker") for supervision in tree.get("supervisions") or ()), None)


def count_cuts(path: Path) -> int:
    """Returns the number of cuts of a manifest, by its lines, without making objects of them."""
    return sum(1 for line in read_byte_lines(path, "manifest", "make it with `asrtool prepare`") if line.strip())


def transcripts(paths: Iterable[Path]) -> Iterator[str]:
    """Yields the texts of all supervisions of manifests."""
    for path in paths:
        for _, tree in entries_with_trees(path):
            yield from (supervision.get("text") or "" for supervision in tree.get("supervisions") or ())


def _inspect_recordings(
    rows: list[Utterance | str], checks: UtteranceChecks, jobs: int
) -> dict[RecordingKey, Recording | InvalidEntry]:
    """Returns every distinct recording, inspected, or the problem of it."""
    keys = dict.fromkeys(_recording_key(row) for row in rows if isinstance(row, Utterance))

    def inspect(key: RecordingKey) -> Recording | InvalidEntry:
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
    rows: list[Utterance | str], recordings: dict[RecordingKey, Recording | InvalidEntry], checks: UtteranceChecks
) -> Iterator[CutOrProblem]:
    for row in rows:
        if isinstance(row, str):
            yield row
            continue
        try:
            yield _create_cut(row, recordings[_recording_key(row)], checks)
        except InvalidEntry as problem:
            yield f"{printable_id(row.id)}: {problem}"


def _create_cut(utterance: Utterance, recording: Recording | InvalidEntry, checks: UtteranceChecks) -> MonoCut:
    checks.check_id(utterance.id, utterance.where)
    if isinstance(recording, InvalidEntry):
        raise recording
    checks.check_recording(recording)
    checks.check_speaker(utterance.speaker)
    text = checks.clean_text(utterance.text)
    channel = checks.choose_channel(recording, utterance.audio, utterance.channel)
    end = recording.duration if utterance.end is None else utterance.end
    end = checks.check_end(utterance.start, end, recording.duration)
    duration = round(end - utterance.start, 8)
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=recording.id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=text,
        speaker=utterance.speaker,
    )
    return MonoCut(utterance.id, utterance.start, duration, channel, [supervision], recording=recording)


def _copied_cuts(cut: Cut | str, checks: UtteranceChecks) -> Iterator[CutOrProblem]:
    """Yields the checked cuts of the supervisions of a lhotse cut, or problems."""
    if isinstance(cut, str):
        yield cut
        return
    try:
        parts = _cut_per_supervision(select_channel(cut, checks.channel))
    except Exception as error:  # what lhotse raises over fields that do not fit each other
        yield _describe_unusable(cut, error)
        return
    yield from (_checked_or_problem(part, checks) for part in parts)


def _cut_per_supervision(cut: Cut) -> list[Cut]:
    """Returns a cut for each supervision, with its id; `cut` itself if it has none, covers its only one, or is no
    MonoCut."""
    if not isinstance(cut, MonoCut) or [(s.start, s.duration) for s in cut.supervisions] in ([], [(0, cut.duration)]):
        return [cut]
    return [
        fastcopy(cut, id=s.id, start=cut.start + s.start, duration=s.duration, supervisions=[s.with_offset(-s.start)])
        for s in cut.supervisions
    ]


def _checked_or_problem(cut: Cut, checks: UtteranceChecks) -> CutOrProblem:
    try:
        return _checked_cut(cut, checks)
    except InvalidEntry as problem:
        return f"{printable_id(cut.id)}: {problem}"
    except Exception as error:  # what lhotse raises over fields that do not fit each other
        return _describe_unusable(cut, error)


def _describe_unusable(cut: Cut, error: Exception) -> str:
    return f"{printable_id(cut.id)}: lhotse cannot use it ({type(error).__name__}: {str(error)[:200]})"


def _checked_cut(cut: Cut, checks: UtteranceChecks) -> MonoCut:
    checks.check_id(cut.id)
    has_text = len(cut.supervisions) == 1 or checks.unlabelled and not cut.supervisions
    if not isinstance(cut, MonoCut) or not cut.has_recording or not has_text:
        hint = "--channel chooses one of several, --unlabelled takes cuts without a transcript"
        raise InvalidEntry(f"needs one recording channel and a supervision with text ({hint})")
    if any(supervision.channel != cut.channel for supervision in cut.supervisions) and cut.recording.num_channels > 1:
        channels = f"its transcript is of channel {cut.supervisions[0].channel}, its audio of channel {cut.channel}"
        raise InvalidEntry(channels)
    checks.check_recording(cut.recording)
    end = checks.check_end(cut.start, cut.start + cut.duration, cut.recording.duration)
    if end < cut.start + cut.duration:
        cut = _shortened(cut, end)
    audio = check_recording_audio(cut.recording, cut.channel, checks)
    if cut.sampling_rate != checks.sampling_rate:
        cut = cut.resample(checks.sampling_rate) if checks.resample else cut
        checks.at_sampling_rate(cut.recording, audio)
    for supervision in cut.supervisions:
        checks.check_speaker(supervision.speaker)
        supervision.text = checks.clean_text(supervision.text)
    return cut


def _shortened(cut: MonoCut, end: float) -> MonoCut:
    duration = round(end - cut.start, 8)
    return fastcopy(cut, duration=duration, supervisions=[fastcopy(s, duration=duration) for s in cut.supervisions])


def printable_id(name: str) -> str:
    """Returns an id for a message, on one line; in quotes if it is not one word."""
    return name if name.isprintable() and name.split() == [name] else ascii(name)


def _write(
    cuts_or_problems: Iterator[CutOrProblem], out: Path, skip_bad: bool, checks: UtteranceChecks
) -> ManifestSummary:
    problems: list[str] = []
    count = 0
    seconds = 0.0
    with atomic_path(out) as temporary:
        with CutSet.open_writer(temporary) as writer:
            for cut in cuts_or_problems:
                if isinstance(cut, str):
                    problems.append(cut)
                    _stop_at_many(problems)
                else:
                    writer.write(cut)
                    count += 1
                    seconds += cut.duration
        if problems and not skip_bad:
            hint = f"mend them, or leave them out with --skip-bad{_rate_hint(checks.refused_rates)}"
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
