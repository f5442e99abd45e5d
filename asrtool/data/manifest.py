"""From utterances to a checked lhotse manifest (`*.jsonl.gz`, one cut an utterance), or a list of all that is wrong."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


MOST_PROBLEMS = 100_000  # that are collected: more are no use to anybody, and a small damaged file may have millions


@dataclass(frozen=True)
class ManifestSummary:
    """What was written."""

    cuts: int
    seconds: float
    left_out: int
    notes: tuple[str, ...] = ()  # what was changed, with its count

    def __str__(self) -> str:
        left_out = (f"{self.left_out} bad ones left out",) if self.left_out else ()
        return "; ".join([f"{self.cuts} utterances, {self.seconds / 3600:.2f} h", *left_out, *self.notes])


Result = MonoCut | str  # a cut, or what is wrong with it


def write_manifest(
    utterances: Iterable[Utterance | str],
    out: Path,
    sampling_rate: int = 16000,
    skip_bad: bool = False,
    jobs: int = 4,
    **settings: Any,
) -> ManifestSummary:
    """Check `utterances`, audio included, and write their cuts to `out`.

    `settings` are other fields of `UtteranceChecks`, e.g. resample=True. A line instead of an utterance is a problem that its
    reader found. Raises DataError with all problems, writing nothing, unless `skip_bad`.
    """
    rows, checks = list(utterances), UtteranceChecks(sampling_rate, **settings)
    return _write(_cuts(rows, _recordings(rows, checks, jobs), checks), out, skip_bad, checks)


def copy_manifest(
    cuts: Iterable[Cut | str], out: Path, sampling_rate: int = 16000, skip_bad: bool = False, **settings: Any
) -> ManifestSummary:
    """As `write_manifest`, for the cuts of lhotse: one cut a supervision, features kept, all checked alike."""
    checks = UtteranceChecks(sampling_rate, **settings)
    results = (result for whole in cuts for result in _copied(whole, checks))
    return _write(results, out, skip_bad, checks)


def _one_cut_each(cut: Cut) -> list[Cut]:
    """`cut` when it covers its only supervision, has none or is no MonoCut; else a cut a supervision, named for it."""
    if not isinstance(cut, MonoCut) or [(s.start, s.duration) for s in cut.supervisions] in ([], [(0, cut.duration)]):
        return [cut]
    return [
        fastcopy(cut, id=s.id, start=cut.start + s.start, duration=s.duration, supervisions=[s.with_offset(-s.start)])
        for s in cut.supervisions
    ]


def text_and_speaker(cut: MonoCut) -> tuple[str, str | None]:
    """The text of a cut, "" without a supervision, and its speaker where one is named."""
    supervision = cut.supervisions[0] if cut.supervisions else None
    return (supervision.text or "", supervision.speaker) if supervision else ("", None)


def speaker_of(tree: dict) -> str | None:
    """The same of a line of a manifest (asrtool/data/shards.py)."""
    return next((supervision.get("speaker") for supervision in tree.get("supervisions") or ()), None)


def count_cuts(path: Path) -> int:
    """How many cuts a manifest has, by its lines, without making objects of them."""
    return sum(1 for line in read_byte_lines(path, "manifest", "make it with `asrtool prepare`") if line.strip())


def transcripts(paths: Iterable[Path]) -> Iterator[str]:
    """The texts of all supervisions of these manifests."""
    for path in paths:
        for _, tree in entries_with_trees(path):
            yield from (supervision.get("text") or "" for supervision in tree.get("supervisions") or ())


Key = tuple[str, str]


def _recordings(
    utterances: list[Utterance | str], checks: UtteranceChecks, jobs: int
) -> dict[Key, Recording | InvalidEntry]:
    """Every distinct recording, inspected, by its id and audio."""
    audio = dict.fromkeys(_key(row) for row in utterances if isinstance(row, Utterance))

    def make(item: Key) -> Recording | InvalidEntry:
        try:
            return checks.at_rate(create_recording(item[0], _absolute(item[1]), checks), item[1])
        except InvalidEntry as problem:
            return problem

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(audio, progress(pool.map(make, audio), "checking audio", len(audio)), strict=True))


def _key(utterance: Utterance) -> Key:
    return utterance.recording or utterance.id, utterance.audio


def _absolute(audio: str) -> str:
    return audio if is_command(audio) else str(Path(audio).absolute())


def _cuts(
    rows: list[Utterance | str], recordings: dict[Key, Recording | InvalidEntry], checks: UtteranceChecks
) -> Iterator[Result]:
    """A cut for each utterance, or the line that says what is wrong with it."""
    for row in rows:
        if isinstance(row, str):
            yield row
            continue
        try:
            yield _cut(row, recordings[_key(row)], checks)
        except InvalidEntry as problem:
            yield f"{printable_id(row.id)}: {problem}"


def _cut(utterance: Utterance, recording: Recording | InvalidEntry, checks: UtteranceChecks) -> MonoCut:
    checks.check_id(utterance.id, utterance.where)
    if isinstance(recording, InvalidEntry):
        raise recording
    checks.check_recording(recording)
    checks.check_speaker(utterance.speaker)
    text = checks.text(utterance.text)
    channel = checks.channel_of(recording, utterance.audio, utterance.channel)
    end = recording.duration if utterance.end is None else utterance.end
    end = checks.end_of(utterance.start, end, recording.duration)
    duration = round(end - utterance.start, 8)
    supervision = SupervisionSegment(
        utterance.id, recording.id, 0.0, duration, channel, text=text, speaker=utterance.speaker
    )  # fmt: skip
    return MonoCut(utterance.id, utterance.start, duration, channel, [supervision], recording=recording)


def _copied(whole: Cut | str, checks: UtteranceChecks) -> Iterator[Result]:
    """The cuts of a lhotse cut that are checked, or lines that say what is wrong with them."""
    if isinstance(whole, str):
        yield whole
        return
    try:
        cuts = _one_cut_each(select_channel(whole, checks.channel))
    except Exception as error:  # what lhotse raises over fields that do not fit each other
        yield _unusable(whole, error)
        return
    yield from (_result(cut, checks) for cut in cuts)


def _result(cut: Cut, checks: UtteranceChecks) -> Result:
    try:
        return _checked(cut, checks)
    except InvalidEntry as problem:
        return f"{printable_id(cut.id)}: {problem}"
    except Exception as error:  # likewise
        return _unusable(cut, error)


def _unusable(cut: Cut, error: Exception) -> str:
    return f"{printable_id(cut.id)}: lhotse cannot use it ({type(error).__name__}: {str(error)[:200]})"


def _checked(cut: Cut, checks: UtteranceChecks) -> MonoCut:
    checks.check_id(cut.id)
    enough = len(cut.supervisions) == 1 or checks.unlabelled and not cut.supervisions
    if not isinstance(cut, MonoCut) or not cut.has_recording or not enough:
        hint = "--channel chooses one of several, --unlabelled takes cuts without a transcript"
        raise InvalidEntry(f"needs one recording channel and a supervision with text ({hint})")
    if any(supervision.channel != cut.channel for supervision in cut.supervisions) and cut.recording.num_channels > 1:
        raise InvalidEntry(
            f"its transcript is of channel {cut.supervisions[0].channel}, its audio of channel {cut.channel}"
        )
    checks.check_recording(cut.recording)
    end = checks.end_of(cut.start, cut.start + cut.duration, cut.recording.duration)
    if end < cut.start + cut.duration:
        cut = _until(cut, end)
    audio = check_recording_audio(cut.recording, cut.channel, checks)
    if cut.sampling_rate != checks.sampling_rate:
        cut = cut.resample(checks.sampling_rate) if checks.resample else cut
        checks.at_rate(cut.recording, audio)
    for supervision in cut.supervisions:
        checks.check_speaker(supervision.speaker)
        supervision.text = checks.text(supervision.text)
    return cut


def _until(cut: MonoCut, end: float) -> MonoCut:
    duration = round(end - cut.start, 8)
    return fastcopy(cut, duration=duration, supervisions=[fastcopy(s, duration=duration) for s in cut.supervisions])


def printable_id(name: str) -> str:
    """An id for a message, on one line; in quotes when it is not one word."""
    return name if name.isprintable() and name.split() == [name] else ascii(name)


def _write(cuts: Iterator[Result], out: Path, skip_bad: bool, checks: UtteranceChecks) -> ManifestSummary:
    problems: list[str] = []
    count, seconds = 0, 0.0
    with atomic_path(out) as temporary:
        with CutSet.open_writer(temporary) as writer:
            for cut in cuts:
                if isinstance(cut, str):
                    problems.append(cut)
                    _stop_at_many(problems)
                else:
                    writer.write(cut)
                    count, seconds = count + 1, seconds + cut.duration
        if problems and not skip_bad:
            hint = f"mend them, or leave them out with --skip-bad{_rate_hint(checks)}"
            raise DataError(f"{len(problems)} of {count + len(problems)} utterances are bad; {hint}", problems)
        if not count:
            raise DataError("no utterances left; nothing written", problems)
    for problem in problems:
        logger.info(f"  left out {problem}")
    notes = tuple(f"{number} {note}" for note, number in checks.notes.items() if number)
    return ManifestSummary(count, seconds, len(problems), notes)


def _stop_at_many(problems: list[str]) -> None:
    if len(problems) >= MOST_PROBLEMS:
        raise DataError(f"stopped after {MOST_PROBLEMS:,} problems; is it the right corpus?", problems)


def _rate_hint(checks: UtteranceChecks) -> str:
    if not checks.rates:
        return ""
    own = f"--sampling-rate {min(checks.rates)} and features.sampling_rate={min(checks.rates)} in the configuration"
    return f"; for audio at another rate give --resample, or {own}"
