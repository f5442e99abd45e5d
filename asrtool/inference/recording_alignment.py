"""A recording aligned with its text: when each word is spoken, and what only one of both has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np

from asrtool.data.audio_blocks import AudioRecording, Channel
from asrtool.data.features import FRAME_SHIFT
from asrtool.decoding.confidence import WordEvidence, acoustic_posteriors
from asrtool.decoding.edit_alignment import AlignedUnit, EditAlignment
from asrtool.decoding.edit_graph import EditCosts
from asrtool.decoding.long_alignment import align_long, greedy_units
from asrtool.decoding.recording_log_probs import RecordingFrames, recording_log_probs, topology_with_blank
from asrtool.decoding.unit_chain import FrameSpan
from asrtool.decoding.word_times import word_times
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.inference.results import Word
from asrtool.text.spoken_text import SpokenText, SpokenWord
from asrtool.text.tokenizer import Tokenizer

# A text does not belong to a recording if fewer of its words are found there, and they cover less of its units.
# Between unrelated ones, some short words fit by chance.
MIN_SHARE = 0.3
MAX_STRETCH_WORDS = 200  # words whose times and confidences are computed together: a minute


@dataclass(frozen=True)
class AlignedWord(Word):
    """A word of the text with its times; `index` is its place in the text's words."""

    index: int = 0


@dataclass(frozen=True)
class MissingWords:
    """Words of the text, one after the other, that are not in the audio; `time` is where they should be, in seconds."""

    time: float
    words: Sequence[SpokenWord]


@dataclass(frozen=True)
class ExtraSpeech:
    """Audio that the text does not have. heard: its units by greedy search; before: the index of the following word."""

    start: float
    end: float
    heard: str
    before: int


@dataclass(frozen=True)
class RecordingAlignment:
    """The alignment of a recording of `seconds` with its text; times in seconds. channel: None for the mean of all."""

    source: str
    seconds: float
    text: SpokenText
    words: Sequence[AlignedWord]
    missing: Sequence[MissingWords]
    extra: Sequence[ExtraSpeech]
    edits: EditAlignment
    frame_seconds: float
    channel: int | None = None

    @cached_property
    def num_missing(self) -> int:
        """The number of words that are not in the audio."""
        return sum(len(part.words) for part in self.missing)

    def summary(self) -> str:
        """Returns the result in one line."""
        seconds = sum(part.end - part.start for part in self.extra)
        parts = [
            f"{len(self.words)} of {len(self.text.words)} words aligned in {self.seconds:.1f} s",
            f"{self.num_missing} words in {len(self.missing)} places are not in the audio",
            f"{seconds:.1f} s of speech in {len(self.extra)} places are not in the text",
        ]
        return "; ".join(parts)


def align_recording(
    experiment: Experiment,
    audio: Path | AudioRecording,
    text: SpokenText,
    channel: Channel = "mix",
    costs: EditCosts | None = None,
) -> RecordingAlignment:
    """Returns the alignment of a recording of any length with its text, which may be partly wrong.

    Raises UserError for audio that cannot be read, in which nothing was recognised, or which is of another text.
    """
    name = audio.name if isinstance(audio, AudioRecording) else str(audio)
    frames = recording_log_probs(experiment, audio, channel)
    log_probs = frames.log_probs
    heard, _, _ = greedy_units(log_probs)
    if not len(heard):
        raise UserError(f"no speech was recognised in {name}: is it silent, or of another kind than the training data?")
    words = text.tokenizer.pronunciation_units(" ".join(word.text for word in text.words))
    topology = topology_with_blank(experiment)
    edits = align_long(log_probs, words, topology, costs)
    _require_common(edits, len(heard), name)
    frame = experiment.frame_seconds
    aligned = list(_aligned_words(frames, edits, text, frame, topology))
    return RecordingAlignment(
        source=name,
        seconds=frames.seconds,
        text=text,
        words=aligned,
        missing=list(_missing_words(edits.present, text.words, aligned, frames.seconds)),
        extra=list(_extra_speech(log_probs, edits, text.tokenizer, frame)),
        edits=edits,
        frame_seconds=frame,
        channel=None if channel == "mix" else channel,
    )


def require_one_channel(channel: int | str) -> Channel:
    """Returns the channel. UserError for "each": a text belongs to one channel, or to the mean of all."""
    if channel == "each":
        raise UserError("--channel each: a text is aligned with one channel; give mix or a number from 0 on")
    return channel  # type: ignore[return-value]  # "mix" or a number


def _require_common(edits: EditAlignment, num_heard: int, audio: str) -> None:
    num_present = int(edits.present.sum())
    if num_present < MIN_SHARE * edits.num_words and len(edits.units) < MIN_SHARE * num_heard:
        found = f"only {num_present} of {edits.num_words} words of the text are found in {audio}"
        raise UserError(f"{found}: is it the text of this recording, in the language of the model?")


def _aligned_words(
    recording: RecordingFrames, edits: EditAlignment, text: SpokenText, frame_seconds: float, topology: str
) -> Iterator[AlignedWord]:
    """Yields the words that are in the audio, with times and confidences."""
    factor = round(frame_seconds / FRAME_SHIFT)
    for units, first, last in _stretches(edits, len(recording.log_probs)):
        words = [list(group) for _, group in groupby(units, key=lambda unit: unit.word)]
        spans = [FrameSpan(word[0].begin - first, word[-1].end - first) for word in words]
        energy = recording.energy[first * factor : last * factor]
        times = word_times(spans, len(units), last - first, frame_seconds, energy)
        log_probs = recording.log_probs[first:last].astype(np.float32)
        posteriors = acoustic_posteriors(log_probs, spans, [[unit.unit for unit in word] for word in words], topology)
        offset = first * frame_seconds
        for word, (start, end), posterior in zip(words, times, posteriors, strict=True):
            index = word[0].word
            confidence = WordEvidence(None, posterior, len(word)).raw_confidence
            yield AlignedWord(text.words[index].text, start + offset, end + offset, confidence, index)


def _stretches(edits: EditAlignment, num_frames: int) -> Iterator[tuple[list[AlignedUnit], int, int]]:
    """Yields units of neighbouring words without other speech between them, and the first and last frame around them.

    A stretch has at most MAX_STRETCH_WORDS words, and begins and ends in the middle of what is around it.
    """
    places = {filler.place for filler in edits.fillers}
    stretches: list[list[AlignedUnit]] = []
    num_words = 0
    for word, group in groupby(edits.units, key=lambda unit: unit.word):
        units = list(group)
        previous = stretches[-1][-1].word if stretches else -1
        is_interrupted = any(place in places for place in range(previous + 1, word + 1))
        if not stretches or is_interrupted or num_words == MAX_STRETCH_WORDS:
            stretches.append([])
            num_words = 0
        stretches[-1] += units
        num_words += 1
    spans = [(units[0].begin, units[-1].end) for units in stretches]
    occupied = sorted([*spans, *((filler.begin, filler.end) for filler in edits.fillers)])
    begins = np.array([begin for begin, _ in occupied])
    ends = np.array([end for _, end in occupied])
    for units, (begin, end) in zip(stretches, spans, strict=True):
        place = int(np.searchsorted(begins, begin))
        before = int(ends[place - 1]) if place else 0
        after = int(begins[place + 1]) if place + 1 < len(begins) else num_frames
        first = 0 if not place else (before + begin + 1) // 2
        last = num_frames if place + 1 == len(begins) else (end + after + 1) // 2
        yield units, first, last


def _missing_words(
    present: np.ndarray, words: Sequence[SpokenWord], aligned: Sequence[AlignedWord], seconds: float
) -> Iterator[MissingWords]:
    ends = {word.index: word.end for word in aligned}
    time = 0.0
    for is_present, group in groupby(range(len(words)), key=lambda index: bool(present[index])):
        indices = list(group)
        if is_present:
            time = ends[indices[-1]]
        else:
            yield MissingWords(min(time, seconds), [words[index] for index in indices])


def _extra_speech(
    log_probs: np.ndarray, edits: EditAlignment, tokenizer: Tokenizer, frame_seconds: float
) -> Iterator[ExtraSpeech]:
    for filler in edits.fillers:
        units, _, _ = greedy_units(log_probs[filler.begin : filler.end])
        heard = tokenizer.decode(units.tolist())
        yield ExtraSpeech(filler.begin * frame_seconds, filler.end * frame_seconds, heard, filler.place)
