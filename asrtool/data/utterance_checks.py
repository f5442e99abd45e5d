"""What `asrtool prepare` requires of each utterance, whatever corpus it comes from."""

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

from lhotse import MonoCut, Recording
from lhotse.audio import AudioSource

from asrtool.data.audio import AudioInfo, inspect_audio, is_command
from asrtool.data.sources import InvalidEntry

SHORTEST_SECONDS = 0.025  # a window of the features: what is shorter has no whole frame
EXACT_SECONDS = 1e-3  # the precision to which transcribers write times, and lhotse reads them
UNPRINTABLE = {"Cc", "Cf", "Cs"}  # Unicode's control and format characters, and halves of characters
JOINERS = "\u200c\u200d"  # part of the spelling behind letters of the scripts of these blocks, Arabic to Sinhala:
JOINING_SCRIPTS = ("\u0600", "\u0dff")

CLAMPED = "ends beyond their recording clamped to it (--end-tolerance)"
INVISIBLE = "transcripts freed of invisible characters such as U+200B"
SHARP_S = "transcripts in which upper case made SS of ß"
COMMANDS = "recordings that are shell commands: what reads this manifest needs --allow-commands"


@dataclass
class UtteranceChecks:
    """The checks of one call, their settings, and what they have seen and changed. Their methods raise InvalidEntry."""

    sampling_rate: int = 16000  # Hz
    case: str = "keep"  # or "upper", "lower": of the text
    resample: bool = False  # recordings at another rate, while they are read
    channel: int | None = None  # of recordings that have several; counted from 0
    unlabelled: bool = False  # utterances need no transcript
    end_tolerance: float = 0.1  # seconds that an utterance may end behind its recording; it is then clamped
    notes: Counter = field(default_factory=Counter)  # how often something was changed
    rates: set[int] = field(default_factory=set)  # other sampling rates that were refused
    _ids: dict[str, str] = field(default_factory=dict)
    _audio: dict[str, str] = field(default_factory=dict)
    _inspected: dict[str, AudioInfo | InvalidEntry] = field(default_factory=dict)

    def check_id(self, name: str, where: str = "") -> None:
        """An utterance's id is one printable word, and has not been there before. `where`: the line it is from."""
        check_name(name, "the id")
        same = unicodedata.normalize("NFC", name)  # letters with accents may be written in two ways
        if same in self._ids:
            both = f", in {self._ids[same]} and {where}; rename one, e.g. by a column id of a table" if where else ""
            raise InvalidEntry(f"duplicate id{both}")
        self._ids[same] = where

    def check_recording(self, recording: Recording) -> None:
        """A recording's id is one printable word, and the name of one file only."""
        check_name(recording.id, "its recording's id")
        own = " ".join(_identity(source) for source in recording.sources)
        if recording.id not in self._audio:
            self.notes[COMMANDS] += any(source.type == "command" for source in recording.sources)
        if (other := self._audio.setdefault(recording.id, own)) != own:
            raise InvalidEntry(
                f"its recording '{recording.id}' is {own[:200]}, and {other[:200]} elsewhere; rename one of them"
            )

    def check_speaker(self, name: str | None) -> None:
        """A speaker's name is printable; it may have blanks."""
        if name and (wrong := _unprintable(name)):
            raise InvalidEntry(f"the name of its speaker has {wrong}; remove it")

    def audio_of(self, audio: str) -> AudioInfo:
        """What there is in an audio file, inspected once."""
        if audio not in self._inspected:
            try:
                self._inspected[audio] = inspect_audio(audio)
            except InvalidEntry as problem:
                self._inspected[audio] = problem
        if isinstance(found := self._inspected[audio], InvalidEntry):
            raise found
        return found

    def at_rate(self, recording: Recording, audio: str) -> Recording:
        """`recording` at the sampling rate."""
        if recording.sampling_rate == self.sampling_rate:
            return recording
        if not self.resample:
            self.rates.add(recording.sampling_rate)
            wanted = f"expected {self.sampling_rate}"
            raise InvalidEntry(f"{recording.sampling_rate} Hz, {wanted}: {audio} (--sampling-rate, or --resample)")
        return recording.resample(self.sampling_rate)

    def channel_of(self, recording: Recording, audio: str, wanted: int | None = None) -> int:
        """The channel that is used of a recording: `wanted`, --channel, or the only one."""
        wanted = self.channel if wanted is None else wanted
        there = recording.channel_ids
        if wanted is None and len(there) > 1:
            hint = "choose one with --channel, counted from 0, or a table's column channel"
            raise InvalidEntry(f"{len(there)} channels, expected one: {audio} ({hint})")
        if wanted is not None and wanted not in there:
            raise InvalidEntry(f"no channel {wanted}, counted from 0, among its {len(there)}: {audio}")
        return there[0] if wanted is None else wanted

    def end_of(self, start: float, end: float, duration: float) -> float:
        """The end of a segment, in seconds, clamped to its recording's when it is only a little behind that."""
        if not 0 <= start < end:
            raise InvalidEntry(f"start {start} s and end {end} s are not a span")
        if end > duration + max(self.end_tolerance, EXACT_SECONDS):
            hint = f"more than --end-tolerance {self.end_tolerance:g} s later"
            raise InvalidEntry(f"supervision ends at {end:.3f} s, its recording at {duration:.3f} s, {hint}")
        if clamped := end > duration + EXACT_SECONDS:
            end = duration
        if end - start < SHORTEST_SECONDS - 1e-9:  # of rounding
            raise InvalidEntry(f"{max(0.0, end - start):.6f} s long, shorter than a frame of {SHORTEST_SECONDS} s")
        self.notes[CLAMPED] += clamped
        return end

    def text(self, text: str | None) -> str | None:
        """`text`, cleaned; None when there is none and there need not be any."""
        text = text or ""
        cleaned, invisible = clean_transcript(text, self.case)
        if not cleaned and not self.unlabelled:
            raise InvalidEntry("empty transcript")
        self.notes[INVISIBLE] += invisible
        self.notes[SHARP_S] += self.case == "upper" and "ß" in text
        return cleaned or None


def _identity(source: AudioSource) -> str:
    if source.type == "file":
        return os.path.normpath(source.source)
    return source.source if source.type in ("command", "url") else f"{source.type} {hash(source.source)}"


def check_name(name: str, what: str) -> None:
    """Raises InvalidEntry unless `name` is one printable word: tables, CTM and Kaldi's files have one field for it."""
    if not name:
        raise InvalidEntry(f"{what} is empty")
    if wrong := _unprintable(name):
        raise InvalidEntry(f"{what} has {wrong}; rename it")
    if any(map(str.isspace, name)):
        raise InvalidEntry(f"{what} has white space, and must be one word; rename it, e.g. by a column id of a table")


def _unprintable(name: str) -> str | None:
    return next((f"the character U+{ord(c):04X}" for c in name if unicodedata.category(c) in UNPRINTABLE), None)


def clean_transcript(text: str, case: str = "keep") -> tuple[str, bool]:
    """Text in `case` and in Unicode's composed form (NFC) with single spaces, and whether it had invisible characters.

    Raises InvalidEntry for control characters.
    """
    text = " ".join(text.split())
    visible = text if text.isascii() else "".join(map(_visible, text, " " + text[:-1]))
    if not text.isprintable() and (wrong := _unprintable(visible.replace("\u200c", "").replace("\u200d", ""))):
        raise InvalidEntry(f"its transcript has {wrong}; remove it")
    composed = unicodedata.normalize("NFC", visible)
    cased = {"keep": str, "upper": str.upper, "lower": str.lower}[case](composed)
    return " ".join(unicodedata.normalize("NFC", cased).split()), visible != text


def _visible(character: str, before: str) -> str:
    """`character`, or nothing when it is an invisible format character."""
    if character in JOINERS and JOINING_SCRIPTS[0] <= before <= JOINING_SCRIPTS[1]:
        return character
    return "" if unicodedata.category(character) == "Cf" else character


def check_recording_audio(recording: Recording, channel: int, checks: UtteranceChecks) -> str:
    """The file or command of a lhotse recording's channel. Raises InvalidEntry when it is not as the manifest says."""
    source = next((source for source in recording.sources if channel in source.channels), None)
    if source is None or channel not in recording.channel_ids:
        raise InvalidEntry(f"no channel {channel} in its recording '{recording.id}'")
    if source.type == "shar":
        raise InvalidEntry(
            "its audio is in a tar file of Shar; give the folder of Shar itself to asrtool, without prepare"
        )
    audio = str(source.source) + ("|" if source.type == "command" else "")
    if abs(recording.duration - recording.num_samples / recording.sampling_rate) > EXACT_SECONDS:
        said = f"{recording.num_samples} samples at {recording.sampling_rate} Hz and {recording.duration} s"
        raise InvalidEntry(f"the manifest says {said}, which do not fit: {audio[:200]}")
    if source.type == "file" and is_command(audio):
        raise InvalidEntry(f"a file whose name ends in a bar, as a command does: {audio[:200]}; rename it")
    if source.type in ("file", "command"):
        _check_source(recording, source, checks.audio_of(audio))
    return audio


def _check_source(recording: Recording, source: AudioSource, found: AudioInfo) -> None:
    said = f"{recording.num_samples} samples at {recording.sampling_rate} Hz"
    lies = (found.rate, found.samples) != (recording.sampling_rate, recording.num_samples)
    if lies and not recording.transforms:  # which change both
        raise InvalidEntry(
            f"the manifest says {said}, the file has {found.samples} at {found.rate} Hz: {source.source}"
        )
    if found.channels != len(source.channels):
        said = f"{len(source.channels)} channels"
        raise InvalidEntry(f"the manifest says {said}, the file has {found.channels}: {source.source}")


def create_recording(name: str, audio: str, checks: UtteranceChecks) -> Recording:
    """The lhotse recording of an audio file or command, at its own sampling rate. Raises InvalidEntry."""
    found = checks.audio_of(audio)
    kind, place = ("command", audio.rstrip().rstrip("|")) if is_command(audio) else ("file", audio)
    source = AudioSource(kind, list(range(found.channels)), place)
    return Recording(name, [source], found.rate, found.samples, found.samples / found.rate)


def select_channel(cut: MonoCut, channel: int | None) -> MonoCut:
    """A cut of `channel` of a lhotse MultiCut, with the supervisions of that channel; other cuts as they are."""
    if channel is None or isinstance(cut, MonoCut) or not hasattr(cut, "channel"):
        return cut
    own = [s for s in cut.supervisions if channel in (s.channel if isinstance(s.channel, list) else [s.channel])]
    return MonoCut(cut.id, cut.start, cut.duration, channel, own, recording=cut.recording)
