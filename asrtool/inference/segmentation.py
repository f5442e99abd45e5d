"""A long recording and its text become a manifest of utterances to train on: `asrtool segment`."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem

from asrtool.data.audio_blocks import Channel, open_recording
from asrtool.data.lhotse_manifest import copy_manifest
from asrtool.data.lhotse_objects import deserialize_entry
from asrtool.data.manifest import ManifestSummary
from asrtool.data.sources import InvalidEntry
from asrtool.data.utterance_checks import UtteranceChecks, create_recording
from asrtool.errors import DataError, UserError, summarise_problems
from asrtool.experiment import Experiment
from asrtool.files import require_output, utf8_path
from asrtool.inference.recording_alignment import RecordingAlignment, align_recording, require_one_channel
from asrtool.inference.utterance_cuts import CutLimits, Utterance, cut_utterances
from asrtool.text.spoken_text import SpokenText, read_spoken_text

SCORE_FIELD = "alignment_score"  # of the cut's custom fields


@dataclass(frozen=True)
class SegmentOptions:
    """What is kept of a recording, and how it is named.

    min_score: the lowest score of an utterance (`Utterance.score`); right transcripts of unclear speech have up to
    -1.3. channel: needed of a recording that has several.
    """

    limits: CutLimits = CutLimits()
    min_score: float = -1.5
    speaker: str | None = None
    channel: Channel = "mix"


@dataclass(frozen=True)
class Segmentation:
    """What `segment_recording` wrote: the manifest, and a line for each utterance that it left out."""

    alignment: RecordingAlignment
    manifest: ManifestSummary
    left_out: Sequence[str]


def segment_recording(
    experiment: Experiment, audio: Path, text: SpokenText, out: Path, options: SegmentOptions
) -> Segmentation:
    """Writes the utterances of a recording with a text, which may be partly wrong, as a manifest to `out`.

    Utterances that are too short, too long or have a poor score are left out. Raises UserError as `align_recording`,
    and for audio that training could not read; DataError if no utterance is left.
    """
    require_output(out, (".jsonl.gz", ".jsonl"), [audio])
    rate = experiment.config.features.sampling_rate
    recording = _recording(audio, options.channel, rate)
    alignment = align_recording(experiment, audio, text, options.channel)
    left_out: list[str] = []
    cuts = list(_cuts(alignment, recording, options, left_out))
    if not cuts:
        raise DataError(f"no utterance of {audio} is left; is --min-score {options.min_score:g} too high?", left_out)
    manifest = copy_manifest(cuts, out, rate, resample=True, channel=cuts[0].channel)
    return Segmentation(alignment, manifest, left_out)


def segment_file(
    experiment: Experiment,
    audio: Path,
    text_file: Path,
    out: Path,
    options: SegmentOptions,
    channel: int | str = "mix",
) -> Iterator[str]:
    """Calls `segment_recording` with the text in a file, and yields lines for the user."""
    options = replace(options, channel=require_one_channel(channel))
    _recording(audio, options.channel, experiment.config.features.sampling_rate)  # before g2p, which takes minutes
    text = read_spoken_text(text_file, experiment.tokenizer)
    yield f"{text_file}: {text.summary()}"
    result = segment_recording(experiment, audio, text, out, options)
    yield f"{audio}: {result.alignment.summary()}"
    for line in summarise_problems(result.left_out):
        yield f"  left out {line}"
    yield f"{out}: {result.manifest}, {len(result.left_out)} utterances left out"


def _recording(audio: Path, channel: Channel, sampling_rate: int) -> Recording:
    """Returns the recording for a manifest. UserError for a file that training could not read."""
    checks = UtteranceChecks(sampling_rate, resample=True)
    try:
        recording = create_recording("_".join(audio.stem.split()), str(audio.absolute()), checks)
    except InvalidEntry as problem:
        raise UserError(_describe_unusable(audio, problem)) from problem
    if len(recording.channel_ids) > 1 and not isinstance(channel, int):
        number = len(recording.channel_ids)
        raise UserError(f"{audio} has {number} channels; choose one with --channel, counted from 0")
    return deserialize_entry(recording.to_dict())


def _describe_unusable(audio: Path, problem: InvalidEntry) -> str:
    """Returns why training could not read a file, and how it becomes one that it reads."""
    try:
        open_recording(audio)
    except InvalidEntry:
        return f"{problem}; a manifest needs audio that training reads, such as wav or flac"
    path = audio.absolute()
    if utf8_path(path) != str(path):
        return f"{utf8_path(path)}: its name is not UTF-8, which a manifest cannot hold; rename it"
    target = audio.with_suffix(".converted.flac" if audio.suffix == ".flac" else ".flac")
    hint = f"convert it first: ffmpeg -i {shlex.quote(str(audio))} {shlex.quote(str(target))}"
    return f"{audio} is of a format that training does not read, which a manifest is for; {hint}"


def _cuts(
    alignment: RecordingAlignment, recording: Recording, options: SegmentOptions, left_out: list[str]
) -> Iterator[MonoCut]:
    """Yields the cuts of the utterances; adds a line to `left_out` for each other one."""
    for number, utterance in enumerate(cut_utterances(alignment, options.limits)):
        if reason := _reason_to_leave_out(utterance, options):
            left_out.append(f"{utterance.start:.2f}-{utterance.end:.2f} s: {reason}: {utterance.text[:100]}")
        else:
            yield _cut(f"{recording.id}-{number:05d}", utterance, recording, options)


def _reason_to_leave_out(utterance: Utterance, options: SegmentOptions) -> str | None:
    limits = options.limits
    if utterance.seconds < limits.min_seconds:
        return f"shorter than {limits.min_seconds:g} s"
    if utterance.seconds > limits.max_seconds:
        return f"longer than {limits.max_seconds:g} s, and a single word"
    if utterance.score < options.min_score:
        return f"a score of {utterance.score:.2f}, below {options.min_score:g}"
    return None


def _cut(name: str, utterance: Utterance, recording: Recording, options: SegmentOptions) -> MonoCut:
    end = min(utterance.end, recording.duration)
    duration = round(end - utterance.start, 4)
    channel = options.channel if isinstance(options.channel, int) else recording.channel_ids[0]
    words = [
        AlignmentItem(
            symbol=word.text,
            start=round(word.start - utterance.start, 4),
            duration=round(word.end - word.start, 4),
            score=word.confidence,
        )
        for word in utterance.words
    ]
    supervision = SupervisionSegment(
        id=name,
        recording_id=recording.id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=utterance.text,
        speaker=options.speaker,
        alignment={"word": words},
    )
    custom = {SCORE_FIELD: round(utterance.score, 4)}
    return MonoCut(name, utterance.start, duration, channel, [supervision], recording=recording, custom=custom)
