"""Checked manifests from the cuts of lhotse manifests, which may have stored features and several channels."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.cut import Cut
from lhotse.utils import fastcopy

from asrtool.data.audio import AudioInfo, is_command
from asrtool.data.manifest import CutOrProblem, ManifestSummary, printable_id, write_entries
from asrtool.data.sources import InvalidEntry
from asrtool.data.utterance_checks import TIME_PRECISION, UtteranceChecks

ALIGNMENTS_REMOVED = "utterances lost the times of their words, which no longer fit"


def copy_manifest(
    cuts: Iterable[Cut | str], out: Path, sampling_rate: int = 16000, skip_bad: bool = False, **settings: Any
) -> ManifestSummary:
    """Writes lhotse cuts with the checks of `write_manifest`: a cut for each supervision; stored features are kept."""
    checks = UtteranceChecks(sampling_rate, **settings)
    results = (result for cut in cuts for result in _copied_cuts(cut, checks))
    return write_entries(results, out, skip_bad, checks)


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
        fastcopy(cut, id=s.id, start=cut.start + s.start, duration=s.duration, supervisions=[_at_start(s)])
        for s in cut.supervisions
    ]


def _at_start(supervision: SupervisionSegment) -> SupervisionSegment:
    """Returns a supervision that begins with its cut. So do the times of its words, which lhotse would leave."""
    moved = supervision.with_offset(-supervision.start)
    if moved.alignment:
        moved.alignment = {
            kind: [item.with_offset(-supervision.start) for item in items] for kind, items in moved.alignment.items()
        }
    return moved


def _checked_or_problem(cut: Cut, checks: UtteranceChecks) -> CutOrProblem:
    try:
        return _checked_cut(cut, checks).to_dict()
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
    _match_channels(cut)
    checks.check_recording(cut.recording)
    end = checks.check_end(cut.start, cut.start + cut.duration, cut.recording.duration)
    if end < cut.start + cut.duration:
        cut = _shortened(cut, end)
    audio = check_recording_audio(cut.recording, cut.channel, checks)
    if cut.sampling_rate != checks.sampling_rate:
        cut = cut.resample(checks.sampling_rate) if checks.resample else cut
        checks.at_sampling_rate(cut.recording, audio)
    for supervision in cut.supervisions:
        supervision.speaker = checks.clean_speaker(supervision.speaker)
        _clean_text(supervision, checks)
    checks.remember_id(cut.id)
    return cut


def _match_channels(cut: MonoCut) -> None:
    """Gives a supervision that several channels share the channel of its cut, in place.

    Raises InvalidEntry for a transcript of another channel than the audio's.
    """
    for supervision in cut.supervisions:
        if cut.channel in _channels(supervision.channel):
            supervision.channel = cut.channel
        elif cut.recording.num_channels > 1:
            channels = f"its transcript is of channel {supervision.channel}, its audio of channel {cut.channel}"
            raise InvalidEntry(channels)


def _clean_text(supervision: SupervisionSegment, checks: UtteranceChecks) -> None:
    """Cleans the transcript of a supervision in place; the times of other words go."""
    text = checks.clean_text(supervision.text)
    if supervision.alignment and (text or "").split() != (supervision.text or "").split():
        supervision.alignment = None
        checks.notes[ALIGNMENTS_REMOVED] += 1
    supervision.text = text


def _shortened(cut: MonoCut, end: float) -> MonoCut:
    duration = round(end - cut.start, 8)
    return fastcopy(cut, duration=duration, supervisions=[fastcopy(s, duration=duration) for s in cut.supervisions])


def check_recording_audio(recording: Recording, channel: int, checks: UtteranceChecks) -> str:
    """Returns the file or command of a recording's channel. Raises InvalidEntry if the manifest is wrong about it."""
    source = next((source for source in recording.sources if channel in source.channels), None)
    if source is None or channel not in recording.channel_ids:
        raise InvalidEntry(f"no channel {channel} in its recording '{recording.id}'")
    if source.type == "shar":
        hint = "give the folder of Shar itself to asrtool, without prepare"
        raise InvalidEntry(f"its audio is in a tar file of Shar; {hint}")
    audio = str(source.source) + ("|" if source.type == "command" else "")
    if abs(recording.duration - recording.num_samples / recording.sampling_rate) > TIME_PRECISION:
        fields = f"{recording.num_samples} samples at {recording.sampling_rate} Hz and {recording.duration} s"
        raise InvalidEntry(f"the manifest says {fields}, which do not fit: {audio[:200]}")
    if source.type == "file" and is_command(audio):
        raise InvalidEntry(f"a file whose name ends in a bar, as a command does: {audio[:200]}; rename it")
    if source.type in ("file", "command"):
        _compare_with_file(recording, source, checks.inspect(audio))
    return audio


def _compare_with_file(recording: Recording, source: AudioSource, info: AudioInfo) -> None:
    differs = (info.rate, info.samples) != (recording.sampling_rate, recording.num_samples)
    if differs and not recording.transforms:  # which change both
        manifest = f"{recording.num_samples} samples at {recording.sampling_rate} Hz"
        file = f"{info.samples} at {info.rate} Hz"
        raise InvalidEntry(f"the manifest says {manifest}, the file has {file}: {source.source}")
    if info.channels != len(source.channels):
        manifest = f"{len(source.channels)} channels"
        raise InvalidEntry(f"the manifest says {manifest}, the file has {info.channels}: {source.source}")


def select_channel(cut: Cut, channel: int | None) -> Cut:
    """Returns a cut of `channel` of a lhotse MultiCut, with the supervisions of that channel; other cuts unchanged."""
    if channel is None or isinstance(cut, MonoCut) or not hasattr(cut, "channel"):
        return cut
    supervisions = [s for s in cut.supervisions if channel in _channels(s.channel)]
    return MonoCut(cut.id, cut.start, cut.duration, channel, supervisions, recording=cut.recording)


def _channels(channel: int | list[int]) -> list[int]:
    return channel if isinstance(channel, list) else [channel]
