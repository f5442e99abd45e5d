"""Readers of corpus layouts: each yields an `Utterance` for a row, or a line of text that says what is wrong with it.

asrtool/data/manifest.py checks the utterances and writes them. A reader lists what its files say and judges only their
form; a new layout is a new function of a screen's length. Tables are in asrtool/data/tables.py.
"""

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.readers import read_lines

logger = logging.getLogger(__name__)

BLANKS = " \t\r\n\v\f"  # what Kaldi takes for white space, and nothing of Unicode
SECONDS = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NEEDED = "a data folder needs wav.scp and text (text may be missing with --unlabelled)"
AUDIO_SUFFIXES = (".flac", ".wav", ".sph", ".opus", ".ogg", ".mp3")  # FLAC first: LibriSpeech as published


@dataclass(frozen=True)
class Utterance:
    """A segment of a recording and its transcript. `audio` is a file, or a shell command that ends in "|" (Kaldi)."""

    id: str
    audio: str
    text: str
    speaker: str | None = None
    recording: str | None = None  # id of the recording; that of the utterance by default
    start: float = 0.0  # seconds
    end: float | None = None  # seconds; the recording's end by default
    channel: int | None = None  # counted from 0; the only one by default
    where: str = ""  # file:line that the utterance comes from


def read_librispeech(corpus: Path, parts: list[str]) -> Iterator[Utterance]:
    """LibriSpeech's layout: PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, an audio file for each of its lines."""
    corpus = _folder(corpus, "LibriSpeech corpus")
    if not any((corpus / part).is_dir() for part in parts) and (corpus / "LibriSpeech").is_dir():
        corpus = corpus / "LibriSpeech"
    for part in parts:
        transcripts = sorted(_folder(corpus / part, "part").glob("*/*/*.trans.txt"))
        if not transcripts:
            raise UserError(f"no SPEAKER/CHAPTER/*.trans.txt under {corpus / part}; is it a part of LibriSpeech?")
        for transcript in transcripts:
            for number, name, text in _pairs(transcript):
                audio, where = find_audio_file(transcript.parent / name), f"{transcript}:{number}"
                yield Utterance(name, audio, text, speaker=name.split("-")[0], where=where)


def find_audio_file(stem: Path) -> str:
    """The audio file of this stem in any format that libsndfile reads; FLAC, as published, when there is none."""
    found = (f"{stem}{suffix}" for suffix in AUDIO_SUFFIXES if os.path.isfile(f"{stem}{suffix}"))
    return next(found, f"{stem}.flac")


def read_yesno(corpus: Path, part: str) -> Iterator[Utterance]:
    """The yesno corpus (OpenSLR 1): 60 files whose names are their words; every other one is in "train" or "test"."""
    corpus = _folder(corpus, "yesno corpus")
    corpus = corpus / "waves_yesno" if (corpus / "waves_yesno").is_dir() else corpus
    files = sorted(corpus.glob("*.wav"))
    if len(files) != 60:
        raise UserError(f"{corpus} has {len(files)} .wav files, yesno has 60; give the folder waves_yesno")
    for file in files[0 if part == "train" else 1 :: 2]:
        words = ["YES" if digit == "1" else "NO" for digit in file.stem.split("_")]
        yield Utterance(file.stem, str(file), " ".join(words), speaker="yesno")


def read_kaldi(folder: Path, audio_root: Path | None = None, unlabelled: bool = False) -> Iterator[Utterance | str]:
    """A Kaldi data folder: wav.scp and text; segments and utt2spk where they are.

    Relative paths in wav.scp start at `audio_root`, or else at the current folder, as in Kaldi. With `unlabelled`,
    segments (or recordings) without a line in text are utterances without a transcript, and text may be missing.
    """
    folder = _folder(folder, "Kaldi data folder")
    files = _KaldiFiles(
        text=_read_keyed(folder / "text", required=not unlabelled),
        recordings=_read_keyed(folder / "wav.scp"),
        speakers=_read_keyed(folder / "utt2spk", required=False),
        segments=_read_keyed(folder / "segments", required=False),
        audio_root=audio_root,
    )
    for file in (files.text, files.recordings, files.speakers, files.segments):
        yield from file.repeated.values()
    others = [name for name in files.available().values if name not in files.text.values]
    for name in [*files.text.values, *(others if unlabelled else ())]:
        if any(name in file.repeated for file in (files.text, files.speakers, files.segments)):
            continue  # the repeated line is listed already
        try:
            yield files.utterance(name)
        except InvalidEntry as problem:
            yield f"{name}: {problem}"
    if not unlabelled:
        files.say_unused(others)


@dataclass
class _KeyFile:
    """A file of lines KEY VALUE. `values` has the first line of each key, `repeated` a problem for a repeated one."""

    path: Path
    present: bool
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)


def _read_keyed(path: Path, required: bool = True) -> _KeyFile:
    file = _KeyFile(path, required or path.is_file())
    if not file.present:
        return file
    for number, key, value in _pairs(path):
        if key in file.values:
            file.repeated[key] = f"{path}:{number}: '{key}' is in line {file.lines[key]} already; keep one of them"
        else:
            file.values[key], file.lines[key] = value, number
    return file


@dataclass
class _KaldiFiles:
    text: _KeyFile
    recordings: _KeyFile
    speakers: _KeyFile
    segments: _KeyFile
    audio_root: Path | None

    def available(self) -> _KeyFile:
        """The file that lists all utterances: segments, or wav.scp without it."""
        return self.segments if self.segments.present else self.recordings

    def utterance(self, name: str) -> Utterance:
        """The utterance `name`. Raises InvalidEntry when the files do not fit together."""
        recording, start, end, channel = self._span(name) if self.segments.present else (name, 0.0, None, None)
        if recording not in self.recordings.values:
            raise InvalidEntry(
                f"{self.recordings.path} has no recording '{recording}' of utterance '{name}'; add its line"
            )
        if recording in self.recordings.repeated:
            raise InvalidEntry(
                f"its recording '{recording}' has several lines in {self.recordings.path}; keep one of them"
            )
        audio = self._audio(self.recordings.values[recording])
        text, speaker = self.text.values.get(name, ""), self._speaker(name)
        file = self.text if name in self.text.lines else self.available()
        where = f"{file.path}:{file.lines[name]}"
        return Utterance(name, audio, text, speaker, recording, start, end, channel, where)

    def _speaker(self, name: str) -> str | None:
        speaker = self.speakers.values.get(name)
        if speaker is not None and len(speaker.split()) != 1:
            raise InvalidEntry(f"{self.speakers.path}:{self.speakers.lines[name]}: no line 'ID SPEAKER'; mend it")
        return speaker

    def _span(self, name: str) -> tuple[str, float, float | None, int | None]:
        """Recording, start, end (None: to the recording's end) and channel of an utterance. Raises InvalidEntry."""
        if name not in self.segments.values:
            raise InvalidEntry(f"{self.segments.path}: no line 'ID RECORDING START END' for '{name}'; add it")
        try:
            recording, start, end, *channel = re.split(f"[{BLANKS}]+", self.segments.values[name])
            number = parse_channel(" ".join(channel)) if channel else None
            return recording, parse_seconds(start), None if end == "-1" else parse_seconds(end), number
        except ValueError as error:
            where = f"{self.segments.path}:{self.segments.lines[name]}"
            raise InvalidEntry(f"{where}: no line 'ID RECORDING START END' ({error}); mend it") from error

    def _audio(self, value: str) -> str:
        if self.audio_root is None or value.endswith("|"):
            return value
        return str(self.audio_root / value)

    def say_unused(self, unused: list[str]) -> None:
        """Count the audio that has no transcript, and the utterances that have no speaker."""
        if unused:
            hint = f"have no line in {self.text.path}, and are left out (--unlabelled takes them)"
            logger.info(f"{self.available().path}: {len(unused)} of {len(self.available().lines)} {hint}")
        missing = sum(name not in self.speakers.values for name in self.text.values)
        if self.speakers.present and missing:
            logger.info(f"{self.speakers.path}: {missing} utterances have no line there, and no speaker")


def parse_seconds(text: str) -> float:
    """A time in seconds, in ASCII digits with a decimal point. Raises ValueError, also for nan and infinity."""
    value = float(text) if SECONDS.fullmatch(text.strip()) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"'{text[:30]}' is not a time in seconds, such as 12.34")
    return value


def parse_channel(text: str) -> int:
    """A channel's number, counted from 0. Raises ValueError."""
    if not re.fullmatch("[0-9]{1,4}", text.strip()):
        raise ValueError(f"'{text[:30]}' is not the number of a channel, counted from 0")
    return int(text)


def choose_speakers(utterances: Iterable[Utterance], only: str | None, without: str | None) -> Iterator[Utterance]:
    """Those of the speakers `only`, or of all but `without`: comma-separated names, or a file with one a line.

    Raises UserError for a speaker that the corpus does not have.
    """
    wanted, unwanted = _names(only), _names(without)
    utterances = list(utterances)
    missing = sorted(((wanted or set()) | (unwanted or set())) - {u.speaker for u in utterances})
    if missing:
        raise UserError(f"no such speaker in the corpus: {', '.join(missing)}; look at its speaker folders")
    for utterance in utterances:
        if (wanted is None or utterance.speaker in wanted) and utterance.speaker not in (unwanted or ()):
            yield utterance


def _names(listed: str | None) -> set[str] | None:
    if not listed:
        return None
    if os.path.isfile(listed):
        return {name for line in read_lines(listed, "list of speakers") for name in line.split()}
    return set(listed.replace(",", "\n").split())


def _folder(path: Path, what: str) -> Path:
    if not Path(path).is_dir():
        raise UserError(f"{what} not found: {path}; give the folder where it is")
    return Path(path)


def _pairs(file: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, key and value of each line "KEY VALUE" that is not blank, split as Kaldi does. Raises UserError."""
    for number, line in enumerate(read_lines(file, "Kaldi data file", _NEEDED), 1):
        if line := line.strip(BLANKS):
            key, *value = re.split(f"[{BLANKS}]+", line, maxsplit=1)
            yield number, key, value[0] if value else ""
