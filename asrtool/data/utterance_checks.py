"""The checks of `asrtool prepare` of each utterance, whatever corpus it comes from."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from asrtool.data.audio import AudioInfo, inspect_audio, is_command
from asrtool.data.manifest_recording import ManifestRecording, ManifestSource
from asrtool.data.sources import InvalidEntry
from asrtool.text.characters import character_name, invisible_characters, without_invisible

if TYPE_CHECKING:
    from lhotse import Recording
    from lhotse.audio import AudioSource

AnyRecording = TypeVar("AnyRecording", ManifestRecording, "Recording")

MIN_SEGMENT_SECONDS = 0.025  # a window of the features: what is shorter has no whole frame
TIME_PRECISION = 1e-3  # seconds: the precision to which transcribers write times, and lhotse reads them
UNPRINTABLE = {"Cc", "Cf", "Cs"}  # Unicode's control and format characters, and halves of characters
CASES: dict[str, Callable[[str], str]] = {"keep": str, "upper": str.upper, "lower": str.lower}

CLAMPED = "ends beyond their recording clamped to it (--end-tolerance)"
INVISIBLE = "transcripts freed of invisible characters"  # and their names
SHARP_S = "transcripts in which upper case made SS of ß"
COMMANDS = "recordings that are shell commands: what reads this manifest needs --allow-commands"


@dataclass
class UtteranceChecks:
    """The checks of one call: settings, and what was checked and changed so far. Its methods raise InvalidEntry."""

    sampling_rate: int = 16000  # Hz
    case: str = "keep"  # or "upper", "lower": of the text
    resample: bool = False  # recordings at another rate, while they are read
    channel: int | None = None  # of recordings that have several; counted from 0
    unlabelled: bool = False  # utterances need no transcript
    end_tolerance: float = 0.1  # seconds that an utterance may end behind its recording; it is then clamped
    notes: Counter[str] = field(default_factory=Counter)  # how often something was changed
    refused_rates: set[int] = field(default_factory=set)  # other sampling rates
    _lines_of_ids: dict[str, str] = field(default_factory=dict)
    _audio_of_recordings: dict[str, str] = field(default_factory=dict)
    _inspected: dict[str, AudioInfo | InvalidEntry] = field(default_factory=dict)

    def check_id(self, name: str, where: str = "") -> None:
        """Checks that an utterance's id is one printable word, and none that `remember_id` knows.

        `where` is the line that it is from.
        """
        check_name(name, "the id")
        normalised = _normalised_id(name)
        if normalised in self._lines_of_ids:
            hint = "rename one, e.g. by a column id of a table"
            lines = f", in {self._lines_of_ids[normalised]} and {where}; {hint}" if where else ""
            raise InvalidEntry(f"duplicate id{lines}")

    def remember_id(self, name: str, where: str = "") -> None:
        """Remembers the id of an utterance that has passed all checks: a bad one does not take its id from others."""
        self._lines_of_ids[_normalised_id(name)] = where

    def check_recording(self, recording: "ManifestRecording | Recording") -> None:
        """Checks that a recording's id is one printable word, and the name of one file only."""
        check_name(recording.id, "its recording's id")
        audio = " ".join(_identity(source) for source in recording.sources)
        if recording.id not in self._audio_of_recordings:
            self.notes[COMMANDS] += any(source.type == "command" for source in recording.sources)
        if (other := self._audio_of_recordings.setdefault(recording.id, audio)) != audio:
            both = f"{audio[:200]}, and {other[:200]} elsewhere"
            raise InvalidEntry(f"its recording '{recording.id}' is {both}; rename one of them")

    def clean_speaker(self, name: str | None) -> str | None:
        """Returns a speaker's name in NFC, which must be printable; it may contain spaces."""
        if name and (character := _unprintable(name)):
            raise InvalidEntry(f"the name of its speaker has {character}; remove it")
        return name and unicodedata.normalize("NFC", name)

    def inspect(self, audio: str) -> AudioInfo:
        """Returns rate, length and channels of an audio file, which is inspected once."""
        if audio not in self._inspected:
            try:
                self._inspected[audio] = inspect_audio(audio)
            except InvalidEntry as problem:
                self._inspected[audio] = problem
        info = self._inspected[audio]
        if isinstance(info, InvalidEntry):
            raise info
        return info

    def at_sampling_rate(self, recording: AnyRecording, audio: str) -> AnyRecording:
        """Returns `recording`, resampled to the sampling rate if that is asked for."""
        if recording.sampling_rate == self.sampling_rate:
            return recording
        if not self.resample:
            self.refused_rates.add(recording.sampling_rate)
            expected = f"expected {self.sampling_rate}"
            raise InvalidEntry(f"{recording.sampling_rate} Hz, {expected}: {audio} (--sampling-rate, or --resample)")
        return recording.resample(self.sampling_rate)

    def choose_channel(self, recording: ManifestRecording, audio: str, channel: int | None = None) -> int:
        """Returns the channel that is used of a recording: `channel`, --channel, or the only one."""
        channel = self.channel if channel is None else channel
        available = recording.channel_ids
        if channel is None and len(available) > 1:
            hint = "choose one with --channel, counted from 0, or a table's column channel"
            raise InvalidEntry(f"{len(available)} channels, expected one: {audio} ({hint})")
        if channel is not None and channel not in available:
            raise InvalidEntry(f"no channel {channel}, counted from 0, among its {len(available)}: {audio}")
        return available[0] if channel is None else channel

    def check_end(self, start: float, end: float, duration: float) -> float:
        """Returns the end of a segment in seconds, clamped to its recording's if it is within the tolerance."""
        if not 0 <= start < end:
            raise InvalidEntry(f"start {start} s and end {end} s are not a span")
        if start >= duration:
            raise InvalidEntry(f"it starts at {start:.3f} s, and its recording ends at {duration:.3f} s")
        if end > duration + max(self.end_tolerance, TIME_PRECISION):
            hint = f"more than --end-tolerance {self.end_tolerance:g} s later"
            raise InvalidEntry(f"supervision ends at {end:.3f} s, its recording at {duration:.3f} s, {hint}")
        if clamped := end > duration + TIME_PRECISION:
            end = duration
        if end - start < MIN_SEGMENT_SECONDS - 1e-9:  # of rounding
            seconds = max(0.0, end - start)
            raise InvalidEntry(f"{seconds:.6f} s long, shorter than a frame of {MIN_SEGMENT_SECONDS} s")
        self.notes[CLAMPED] += clamped
        return end

    def clean_text(self, text: str | None) -> str | None:
        """Returns `text`, cleaned; None if it is empty and may be."""
        text = text or ""
        cleaned, had_invisible = clean_transcript(text, self.case)
        if not cleaned and not self.unlabelled:
            raise InvalidEntry("empty transcript")
        if had_invisible:
            self.notes[f"{INVISIBLE}: {_names_of_invisible(text)}"] += 1
        self.notes[SHARP_S] += self.case == "upper" and "ß" in text
        return cleaned or None


def _normalised_id(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # letters with accents may be written in two ways


def _identity(source: "ManifestSource | AudioSource") -> str:
    if source.type == "file":
        return os.path.normpath(source.source)
    return source.source if source.type in ("command", "url") else f"{source.type} {hash(source.source)}"


def check_name(name: str, what: str) -> None:
    """Raises InvalidEntry unless `name` is one printable word: tables, CTM and Kaldi's files have one field for it."""
    if not name:
        raise InvalidEntry(f"{what} is empty")
    if character := _unprintable(name):
        raise InvalidEntry(f"{what} has {character}; rename it")
    if any(map(str.isspace, name)):
        raise InvalidEntry(f"{what} has white space, and must be one word; rename it, e.g. by a column id of a table")


def _unprintable(name: str) -> str | None:
    return next((f"the character U+{ord(c):04X}" for c in name if unicodedata.category(c) in UNPRINTABLE), None)


def clean_transcript(text: str, case: str = "keep") -> tuple[str, bool]:
    """Returns text in `case` and NFC with single spaces, and whether it had invisible characters.

    Raises InvalidEntry for control characters.
    """
    text = " ".join(text.split())
    visible = without_invisible(text)
    if not text.isprintable() and (character := _unprintable(visible.replace("\u200c", "").replace("\u200d", ""))):
        raise InvalidEntry(f"its transcript has {character}; remove it")
    cased = CASES[case](unicodedata.normalize("NFC", visible))
    return " ".join(unicodedata.normalize("NFC", cased).split()), visible != text


def _names_of_invisible(text: str) -> str:
    """Returns the names of the invisible characters of a text, such as "U+200B ZERO WIDTH SPACE"."""
    return ", ".join(map(character_name, sorted(set(invisible_characters(text)))))


def create_recording(name: str, audio: str, checks: UtteranceChecks) -> ManifestRecording:
    """Returns the recording of an audio file or command, at its own sampling rate. Raises InvalidEntry."""
    info = checks.inspect(audio)
    channels = list(range(info.channels))
    if is_command(audio):
        source = ManifestSource("command", channels, audio.rstrip().rstrip("|"))
    else:
        source = ManifestSource("file", channels, audio)
    return ManifestRecording(name, [source], info.rate, info.samples, info.samples / info.rate, channels)
