"""From utterances to a checked lhotse manifest (`*.jsonl.gz`, one cut an utterance), or a list of all that is wrong."""

import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import Cut
from lhotse.serialization import open_best
from lhotse.utils import fastcopy

from asrtool.data.audio import Bad, probe
from asrtool.data.corpora import Utterance
from asrtool.data.shards import entries_with_trees
from asrtool.errors import DataError, UserError
from asrtool.files import atomic_path
from asrtool.progress import progress, say


@dataclass(frozen=True)
class Summary:
    """What was written."""

    cuts: int
    seconds: float
    left_out: int

    def __str__(self) -> str:
        left_out = f"; {self.left_out} bad ones left out" if self.left_out else ""
        return f"{self.cuts} utterances, {self.seconds / 3600:.2f} h{left_out}"


def write_manifest(
    utterances: Iterable[Utterance],
    out: Path,
    sampling_rate: int = 16000,
    case: str = "keep",
    resample: bool = False,
    skip_bad: bool = False,
    jobs: int = 4,
) -> Summary:
    """Check `utterances`, audio included, and write their cuts to `out`.

    `case` ("keep", "upper", "lower") is applied to the text. Recordings at another rate than `sampling_rate` (Hz) are
    problems, unless `resample`. Raises DataError with all problems, writing nothing, unless `skip_bad`.
    """
    utterances = list(utterances)
    recordings = _recordings(utterances, sampling_rate, resample, jobs)
    return _write(_cuts(utterances, recordings, case), out, skip_bad)


def copy_manifest(
    cuts: CutSet,
    out: Path,
    sampling_rate: int = 16000,
    case: str = "keep",
    resample: bool = False,
    skip_bad: bool = False,
) -> Summary:
    """As `write_manifest`, for a lhotse CutSet: one cut a supervision, features kept, all checked alike."""

    def checked() -> Iterator[MonoCut | str]:
        seen: set[str] = set()
        for whole in cuts:
            for cut in _one_cut_each(whole):
                try:
                    yield _check_cut(cut, sampling_rate, resample, case, seen)
                except Bad as problem:
                    yield str(problem)

    return _write(checked(), out, skip_bad)


def _one_cut_each(cut: Cut) -> list[Cut]:
    """`cut` when it covers its only supervision, has none or is no MonoCut; else a cut a supervision, named for it."""
    if not isinstance(cut, MonoCut) or [(s.start, s.duration) for s in cut.supervisions] in ([], [(0, cut.duration)]):
        return [cut]
    return [
        fastcopy(cut, id=s.id, start=cut.start + s.start, duration=s.duration, supervisions=[s.with_offset(-s.start)])
        for s in cut.supervisions
    ]


def read_lhotse(cuts: Path | None, recordings: Path | None, supervisions: Path | None) -> CutSet:
    """Lhotse manifests, opened lazily: a CutSet, or recordings and supervisions."""
    from lhotse import RecordingSet, SupervisionSet

    for path in filter(None, (cuts, recordings, supervisions)):
        if not Path(path).exists():
            raise UserError(f"manifest not found: {path}; give a lhotse *.jsonl.gz file")
    if cuts:
        return open_cuts(cuts)
    if not (recordings and supervisions):
        raise UserError("give --cuts, or both --recordings and --supervisions")
    return CutSet.from_manifests(
        recordings=RecordingSet.from_file(recordings), supervisions=SupervisionSet.from_file(supervisions)
    )


def said_in(cut: MonoCut) -> tuple[str, str | None]:
    """The text of a cut, "" without a supervision, and its speaker where one is named."""
    supervision = cut.supervisions[0] if cut.supervisions else None
    return (supervision.text or "", supervision.speaker) if supervision else ("", None)


def speaker_of(tree: dict) -> str | None:
    """The same of a line of a manifest (asrtool/data/shards.py)."""
    return next((supervision.get("speaker") for supervision in tree.get("supervisions") or ()), None)


def open_cuts(path: Path) -> CutSet:
    """A manifest of cuts, opened lazily; UserError when it is missing or not one."""
    if not Path(path).is_file():
        raise UserError(f"manifest not found: {path}; make it with `asrtool prepare`")
    cuts = CutSet.from_jsonl_lazy(path)
    try:
        first = next(iter(cuts), None)
        if not isinstance(first, Cut | None):
            raise TypeError(f"it holds a {type(first).__name__}")
    except Exception as error:  # whatever a broken gzip, JSON or field raises
        raise UserError(f"{path} is not a manifest of cuts ({error}); make it with `asrtool prepare`") from error
    if first is None:
        raise UserError(f"manifest is empty: {path}; make it again with `asrtool prepare`")
    return cuts


def count_cuts(path: Path) -> int:
    """How many cuts a manifest has, by its lines, without making objects of them."""
    with open_best(path) as file:
        return sum(1 for line in file if line.strip())


def transcripts(paths: Iterable[Path]) -> Iterator[str]:
    """The texts of all supervisions of these manifests."""
    for path in paths:
        for _, tree in entries_with_trees(path):
            yield from (supervision.get("text") or "" for supervision in tree.get("supervisions", ()))


Key = tuple[str, str]


def _recordings(utterances: list[Utterance], rate: int, resample: bool, jobs: int) -> dict[Key, Recording | Bad]:
    """Every distinct recording, probed, by its id and audio."""
    audio = dict.fromkeys((u.recording or u.id, u.audio) for u in utterances)

    def make(item: Key) -> Recording | Bad:
        try:
            return _recording(*item, rate, resample)
        except Bad as problem:
            return problem

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(audio, progress(pool.map(make, audio), "checking audio", len(audio)), strict=True))


def _recording(name: str, audio: str, rate: int, resample: bool) -> Recording:
    found, samples = probe(audio)
    command = audio.rstrip().endswith("|")
    audio = audio if command else str(Path(audio).absolute())
    source = AudioSource("command" if command else "file", [0], audio.rstrip().rstrip("|") if command else audio)
    recording = Recording(name, [source], found, samples, samples / found)
    return _at_rate(recording, rate, resample, audio)


def _at_rate(recording: Recording, rate: int, resample: bool, audio: str) -> Recording:
    if recording.sampling_rate == rate:
        return recording
    if not resample:
        raise Bad(f"{recording.sampling_rate} Hz, expected {rate}: {audio} (--sampling-rate, or --resample)")
    return recording.resample(rate)


def _cuts(utterances: list[Utterance], recordings: dict[Key, Recording | Bad], case: str) -> Iterator[MonoCut | str]:
    """A cut for each utterance, or the line that says what is wrong with it."""
    seen: set[str] = set()
    for utterance in utterances:
        try:
            yield _cut(utterance, recordings[utterance.recording or utterance.id, utterance.audio], case, seen)
        except Bad as problem:
            yield f"{utterance.id}: {problem}"


def _cut(utterance: Utterance, recording: Recording | Bad, case: str, seen: set[str]) -> MonoCut:
    _check_id(utterance.id, seen)
    if isinstance(recording, Bad):
        raise recording
    text = clean(utterance.text, case)
    end = recording.duration if utterance.end is None else utterance.end
    _check_span(utterance.start, end, recording.duration)
    duration = round(end - utterance.start, 8)
    supervision = SupervisionSegment(
        utterance.id, recording.id, 0.0, duration, 0, text=text, speaker=utterance.speaker
    )  # fmt: skip
    return MonoCut(utterance.id, utterance.start, duration, 0, [supervision], recording=recording)


def _check_cut(cut: MonoCut, rate: int, resample: bool, case: str, seen: set[str]) -> MonoCut:
    try:
        _check_id(cut.id, seen)
        if not isinstance(cut, MonoCut) or not cut.has_recording or len(cut.supervisions) != 1:
            raise Bad("needs one recording channel and a supervision with text")
        supervision = cut.supervisions[0]
        _check_span(cut.start + supervision.start, cut.start + supervision.end, cut.recording.duration)
        audio = str(cut.recording.sources[0].source) + ("|" if cut.recording.sources[0].type == "command" else "")
        if cut.recording.sources[0].type in ("file", "command") and not cut.recording.transforms:
            _check_length(cut.recording, *probe(audio))
        if cut.sampling_rate != rate:
            cut = cut.resample(rate) if resample else cut
            _at_rate(cut.recording, rate, resample, audio)
        cut.supervisions[0].text = clean(supervision.text or "", case)
        return cut
    except Bad as problem:
        raise Bad(f"{cut.id}: {problem}") from problem


def _check_length(recording: Recording, rate: int, samples: int) -> None:
    if (rate, samples) != (recording.sampling_rate, recording.num_samples):
        said = f"{recording.num_samples} samples at {recording.sampling_rate} Hz"
        raise Bad(f"the manifest says {said}, the file has {samples} at {rate} Hz: {recording.sources[0].source}")


def _check_id(name: str, seen: set[str]) -> None:
    if name in seen:
        raise Bad("duplicate id")
    seen.add(name)


def _check_span(start: float, end: float, duration: float) -> None:
    """Within a recording, to a millisecond: the precision to which transcribers write times."""
    if not 0 <= start < end:
        raise Bad(f"start {start} s and end {end} s are not a span")
    if end > duration + 1e-3:
        raise Bad(f"supervision ends at {end:.3f} s, its recording at {duration:.3f} s")


def clean(text: str, case: str = "keep") -> str:
    """Text in Unicode's composed form (NFC) with single spaces, in `case`. Raises Bad when nothing is left."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if not text:
        raise Bad("empty transcript")
    return {"keep": str, "upper": str.upper, "lower": str.lower}[case](text)


def _write(cuts: Iterator[MonoCut | str], out: Path, skip_bad: bool) -> Summary:
    problems: list[str] = []
    count, seconds = 0, 0.0
    with atomic_path(out) as temporary:
        with CutSet.open_writer(temporary) as writer:
            for cut in cuts:
                if isinstance(cut, str):
                    problems.append(cut)
                else:
                    writer.write(cut)
                    count, seconds = count + 1, seconds + cut.duration
        if problems and not skip_bad:
            hint = "mend them, or leave them out with --skip-bad"
            raise DataError(f"{len(problems)} of {count + len(problems)} utterances are bad; {hint}", problems)
        if not count:
            raise DataError("no utterances left; nothing written", problems)
    for problem in problems:
        say(f"  left out {problem}")
    return Summary(count, seconds, len(problems))
