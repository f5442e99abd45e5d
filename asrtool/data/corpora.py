"""Readers of corpus layouts: each yields plain `Utterance` rows, which asrtool/data/manifest.py checks and writes.

A reader lists what its files say and judges only their form; a new layout is a new function of a screen's length.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asrtool.errors import UserError, require_file


@dataclass(frozen=True)
class Utterance:
    """A stretch of a recording and its transcript. `audio` is a file, or a shell command that ends in "|" (Kaldi)."""

    id: str
    audio: str
    text: str
    speaker: str | None = None
    recording: str | None = None  # id of the recording; that of the utterance by default
    start: float = 0.0  # seconds
    end: float | None = None  # seconds; the recording's end by default


def librispeech(corpus: Path, parts: list[str]) -> Iterator[Utterance]:
    """LibriSpeech's layout: PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, an audio file for each of its lines."""
    corpus = _folder(corpus, "LibriSpeech corpus")
    if not any((corpus / part).is_dir() for part in parts) and (corpus / "LibriSpeech").is_dir():
        corpus = corpus / "LibriSpeech"
    for part in parts:
        transcripts = sorted(_folder(corpus / part, "part").glob("*/*/*.trans.txt"))
        if not transcripts:
            raise UserError(f"no SPEAKER/CHAPTER/*.trans.txt under {corpus / part}; is it a part of LibriSpeech?")
        for transcript in transcripts:
            for line in _lines(transcript):
                name, _, text = line.partition(" ")
                yield Utterance(name, _audio_beside(transcript.parent / name), text, speaker=name.split("-")[0])


def _audio_beside(stem: Path) -> str:
    """The audio file of this stem in any format that libsndfile reads; FLAC, as published, when there is none."""
    for suffix in (".flac", ".wav", ".opus", ".ogg", ".mp3"):
        if Path(f"{stem}{suffix}").is_file():
            return f"{stem}{suffix}"
    return f"{stem}.flac"


def yesno(corpus: Path, part: str) -> Iterator[Utterance]:
    """The yesno corpus (OpenSLR 1): 60 files whose names are their words; every other one is in "train" or "test"."""
    corpus = _folder(corpus, "yesno corpus")
    corpus = corpus / "waves_yesno" if (corpus / "waves_yesno").is_dir() else corpus
    files = sorted(corpus.glob("*.wav"))
    if len(files) != 60:
        raise UserError(f"{corpus} has {len(files)} .wav files, yesno has 60; give the folder waves_yesno")
    for file in files[0 if part == "train" else 1 :: 2]:
        words = ["YES" if digit == "1" else "NO" for digit in file.stem.split("_")]
        yield Utterance(file.stem, str(file), " ".join(words), speaker="yesno")


def kaldi(folder: Path) -> Iterator[Utterance]:
    """A Kaldi data folder: wav.scp and text; segments and utt2spk where they are."""
    folder = _folder(folder, "Kaldi data folder")
    audio = _table(folder / "wav.scp")
    speakers = _table(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    spans = _table(folder / "segments") if (folder / "segments").is_file() else None
    for name, text in _pairs(folder / "text"):
        recording, start, end = name, 0.0, None
        if spans is not None:
            recording, start, end = _span(folder, name, spans)
        if recording not in audio:
            raise UserError(f"{folder / 'wav.scp'} has no recording '{recording}' of utterance '{name}'; add its line")
        yield Utterance(name, audio[recording], text, speakers.get(name), recording, start, end)


def _span(folder: Path, name: str, spans: dict[str, str]) -> tuple[str, float, float | None]:
    try:
        recording, start, end = spans[name].split()
        return recording, float(start), None if end == "-1" else float(end)  # -1: to the end of the recording
    except (KeyError, ValueError) as error:
        raise UserError(f"{folder / 'segments'}: no line 'ID RECORDING START END' for '{name}'; mend it") from error


def table(file: Path) -> Iterator[Utterance]:
    """A table with a header, comma- or tab-separated: columns audio and text; optionally id, speaker, start, end.

    Relative audio paths start at the table's folder.
    """
    file = require_file(file, "table", "give a .csv or .tsv file")
    with open(file, encoding="utf-8", newline="") as handle:
        rows = csv.DictReader(handle, delimiter="\t" if file.suffix == ".tsv" else ",")
        if not {"audio", "text"} <= set(rows.fieldnames or ()):
            found = ", ".join(rows.fieldnames or ())
            raise UserError(f"{file}: needs a header with the columns audio and text, found: {found}")
        for row in rows:
            yield _from_row(file, rows.line_num, row)


def _from_row(file: Path, number: int, row: dict) -> Utterance:
    audio = file.parent / (row["audio"] or "")
    try:
        start, end = float(row.get("start") or 0), float(row["end"]) if row.get("end") else None
    except ValueError as error:
        raise UserError(f"{file}:{number}: start and end must be seconds") from error
    whole = start == 0 and end is None
    name = row.get("id") or (audio.stem if whole else f"{audio.stem}-{round(start * 1000):08d}")
    return Utterance(name, str(audio), row["text"] or "", row.get("speaker"), audio.stem, start, end)


def choose_speakers(utterances: Iterator[Utterance], only: str | None, without: str | None) -> Iterator[Utterance]:
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
    text = Path(listed).read_text(encoding="utf-8") if Path(listed).is_file() else listed.replace(",", "\n")
    return set(text.split())


def _folder(path: Path, what: str) -> Path:
    if not Path(path).is_dir():
        raise UserError(f"{what} not found: {path}; give the folder where it is")
    return Path(path)


def _lines(file: Path) -> Iterator[str]:
    try:
        yield from filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines()))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error


def _pairs(file: Path) -> Iterator[tuple[str, str]]:
    require_file(file, "Kaldi data file", "a data folder needs wav.scp and text")
    for line in _lines(file):
        key, *value = line.split(maxsplit=1)
        yield key, value[0] if value else ""


def _table(file: Path) -> dict[str, str]:
    return dict(_pairs(file))
