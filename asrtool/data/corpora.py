"""Readers of corpus layouts: each yields an `Utterance` for a row, or a line of text that says what is wrong with it.

asrtool/data/manifest.py checks the utterances and writes them. A reader lists what its files say and judges only their
form; a new layout is a new function of about 20 lines. Kaldi's data folders are read by asrtool/data/kaldi_folder.py,
tables by asrtool/data/tables.py.
"""

import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from asrtool.errors import UserError
from asrtool.readers import read_lines

WHITESPACE = " \t\r\n\v\f"  # as Kaldi defines it: ASCII only
SECONDS = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LIBRISPEECH_SUFFIXES = (".flac", ".wav", ".sph", ".opus", ".ogg", ".mp3")  # FLAC first: LibriSpeech as published


@dataclass(frozen=True)
class Utterance:
    """A segment of a recording and its transcript. `audio` is a file, or a shell command that ends in "|" (Kaldi)."""

    id: str
    audio: str
    text: str
    speaker: str | None = None
    recording: str | None = None  # id of the recording; the id of the utterance by default
    start: float = 0.0  # seconds
    end: float | None = None  # seconds; the recording's end by default
    channel: int | None = None  # counted from 0; the only one by default
    where: str = ""  # file:line that the utterance comes from


def read_librispeech(corpus: Path, parts: list[str]) -> Iterator[Utterance]:
    """Yields the utterances of LibriSpeech's layout: PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, and an audio file
    for each of its lines."""
    corpus = require_folder(corpus, "LibriSpeech corpus")
    if not any((corpus / part).is_dir() for part in parts) and (corpus / "LibriSpeech").is_dir():
        corpus = corpus / "LibriSpeech"
    for part in parts:
        transcripts = sorted(require_folder(corpus / part, "part").glob("*/*/*.trans.txt"))
        if not transcripts:
            raise UserError(f"no SPEAKER/CHAPTER/*.trans.txt under {corpus / part}; is it a part of LibriSpeech?")
        for transcript in transcripts:
            for number, name, text in read_key_values(transcript):
                yield Utterance(
                    id=name,
                    audio=find_audio_file(transcript.parent / name),
                    text=text,
                    speaker=name.split("-")[0],
                    where=f"{transcript}:{number}",
                )


def find_audio_file(stem: Path) -> str:
    """Returns the audio file of this stem in any format that libsndfile reads; FLAC, as published, if there is none."""
    paths = (f"{stem}{suffix}" for suffix in LIBRISPEECH_SUFFIXES)
    return next((path for path in paths if os.path.isfile(path)), f"{stem}.flac")


def read_yesno(corpus: Path, part: str) -> Iterator[Utterance]:
    """Yields the utterances of yesno (OpenSLR 1): 60 files named for their words; half are "train", half "test"."""
    corpus = require_folder(corpus, "yesno corpus")
    if (corpus / "waves_yesno").is_dir():
        corpus = corpus / "waves_yesno"
    files = sorted(corpus.glob("*.wav"))
    if len(files) != 60:
        raise UserError(f"{corpus} has {len(files)} .wav files, yesno has 60; give the folder waves_yesno")
    for file in files[0 if part == "train" else 1 :: 2]:
        words = ["YES" if digit == "1" else "NO" for digit in file.stem.split("_")]
        yield Utterance(file.stem, str(file), " ".join(words), speaker="yesno")


def parse_seconds(text: str) -> float:
    """Returns a time in seconds, in ASCII digits with a decimal point. Raises ValueError, also for nan and infinity."""
    seconds = float(text) if SECONDS.fullmatch(text.strip()) else math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"'{text[:30]}' is not a time in seconds, such as 12.34")
    return seconds


def parse_channel(text: str) -> int:
    """Returns the number of a channel, counted from 0. Raises ValueError."""
    if not re.fullmatch("[0-9]{1,4}", text.strip()):
        raise ValueError(f"'{text[:30]}' is not the number of a channel, counted from 0")
    return int(text)


def choose_speakers(utterances: Iterable[Utterance], included: str | None, excluded: str | None) -> Iterator[Utterance]:
    """Yields the utterances of the speakers `included`, or of all but the `excluded` ones.

    Speakers are comma-separated names, or a file with one a line. Raises UserError for one that the corpus lacks.
    """
    wanted = speaker_names(included)
    unwanted = speaker_names(excluded) or frozenset()
    utterances = list(utterances)
    speakers = [utterance.speaker and unicodedata.normalize("NFC", utterance.speaker) for utterance in utterances]
    missing = sorted((unwanted | (wanted or frozenset())) - set(speakers))
    if missing:
        raise UserError(f"no such speaker in the corpus: {', '.join(missing)}; look at its speaker folders")
    for utterance, speaker in zip(utterances, speakers, strict=True):
        if (wanted is None or speaker in wanted) and speaker not in unwanted:
            yield utterance


def speaker_names(listed: str | None) -> frozenset[str] | None:
    """Returns the names in a comma-separated list, or in a file with one a line, in NFC; None without a list.

    Names may contain spaces.
    """
    if not listed:
        return None
    names = read_lines(listed, "list of speakers") if os.path.isfile(listed) else re.split("[,\n]", listed)
    return frozenset(unicodedata.normalize("NFC", name.strip()) for name in names if name.strip())


def require_folder(path: Path, what: str) -> Path:
    """Returns `path` if it is a folder. UserError that says what it should be."""
    if not Path(path).is_dir():
        raise UserError(f"{what} not found: {path}; give the folder where it is")
    return Path(path)


def read_key_values(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yields number, key and value of each line "KEY VALUE" that is not blank, split as Kaldi does. UserError."""
    hint = "a data folder needs wav.scp and text (text may be missing with --unlabelled)"
    for number, line in enumerate(read_lines(file, "Kaldi data file", hint), 1):
        if line := line.strip(WHITESPACE):
            key, *value = re.split(f"[{WHITESPACE}]+", line, maxsplit=1)
            yield number, key, value[0] if value else ""
