"""Recognition of a table's layout by its contents: header, delimiter, and the columns of audio and text."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from asrtool.data.audio_index import AUDIO_SUFFIXES, MEDIA_SUFFIXES, AudioIndex
from asrtool.data.sources import InvalidEntry
from asrtool.data.table_rows import DELIMITERS, JSON_SUFFIXES, numbered_lines, open_rows, split_line
from asrtool.data.tables import COLUMNS, TableLayout
from asrtool.errors import UserError

logger = logging.getLogger(__name__)

SAMPLE_ROWS = 300  # that are looked at
MIN_AUDIO_SHARE = 0.5  # of the values of a column, that are audio files: some may be missing
MIN_TEXT_SHARE = 0.9  # of the values of a column of text, that have a letter
MIN_WORDS = 1.5  # of a transcript on average; columns of fewer words are names
MIN_SENTENCE_WORDS = 3  # from which on a field is a transcript: names of columns have fewer
KNOWN_NAMES = frozenset(chain(COLUMNS, *COLUMNS.values()))
SAME_SHARE = 0.3  # of the rows, in which two columns are the same text apart from case and punctuation


@dataclass(frozen=True)
class _Column:
    name: str
    values: list[str]

    def share(self, is_one) -> float:
        """Returns the share of the values for which `is_one` is true."""
        return sum(map(is_one, self.values)) / max(1, len(self.values))

    def words(self) -> float:
        """Returns the mean number of words."""
        return sum(len(value.split()) for value in self.values) / max(1, len(self.values))


def recognise_table(file: Path, layout: TableLayout, index: AudioIndex) -> TableLayout:
    """Returns `layout` with the header, delimiter and columns of a table that it lacks.

    The column of audio is the one whose values are files of `index`. Raises UserError where audio or text are not
    clear; it names the option.
    """
    has_header = layout.header is not None
    layout = replace(layout, index=index)
    if file.suffix not in JSON_SUFFIXES and layout.header is None:
        layout = _with_delimiter_and_header(file, layout)
    rows = open_rows(file, layout.header, layout.delimiter)
    sample = [values for _, values in islice(rows.values, SAMPLE_ROWS) if not isinstance(values, InvalidEntry)]
    columns = [_Column(name, [_as_text(values[place]) for values in sample]) for place, name in enumerate(rows.names)]
    audio = _audio_column(file, columns, layout, index)
    names = {"audio": audio} if audio else {}
    if not layout.unlabelled and (text := _text_column(file, columns, layout, audio)):
        names["text"] = text
    if layout.header and not has_header:  # of names that are only numbers of columns
        columns_of_names = {name: column for column, name in names.items()}
        return replace(layout, header=[columns_of_names.get(name, name) for name in layout.header])
    return replace(layout, columns={**names, **layout.columns})


def _as_text(value: str | InvalidEntry) -> str:
    return value if isinstance(value, str) else ""


def is_audio(name: str, root: Path, index: AudioIndex, foreign: tuple[str, ...]) -> bool:
    """Returns True if a value of a table is an audio file, from `root` or anywhere in the folder.

    `foreign` are the `AudioIndex.foreign_folders` of its column.
    """
    name = name.strip()
    if not name or "\0" in name:
        return False
    try:
        index.find(name, foreign)
        return True
    except InvalidEntry:
        return os.path.isfile(root / name)


def _root(file: Path, layout: TableLayout) -> Path:
    return file.parent if layout.audio_root is None else layout.audio_root


def _with_delimiter_and_header(file: Path, layout: TableLayout) -> TableLayout:
    """Recognises the delimiter by the lines, and whether the first line is a header. UserError if that is not clear."""
    lines = [line for _, line in islice(numbered_lines(file), 50)]
    if not lines:
        raise UserError(f"{file} is empty; give a table with a row for each utterance")
    delimiter = layout.delimiter or _delimiter(lines, file)
    try:
        first = split_line(lines[0], delimiter)
    except InvalidEntry as problem:
        raise UserError(f"{file}:1: {problem}") from problem
    if _is_header(first, file, layout):
        return replace(layout, delimiter=delimiter)
    return replace(layout, delimiter=delimiter, header=[f"column{number}" for number in range(1, len(first) + 1)])


def _is_header(first: Sequence[str], file: Path, layout: TableLayout) -> bool:
    """Returns True if the fields of the first line are the names of the columns, not a row.

    Names that are usual, or that an option gives, are a header, and a field that is an audio file makes a row. A row
    whose audio is missing may look like a header of other names: UserError where a field has the words of a sentence.
    """
    names = [field.strip().lower() for field in first]
    given = {name.strip().lower() for name in layout.columns.values()}
    known = [name in KNOWN_NAMES for name in names]
    if given.intersection(names) or all(known) or sum(known) > 1:
        return True
    assert layout.index is not None
    index, root = layout.index, _root(file, layout)
    if any(name.endswith((*AUDIO_SUFFIXES, *MEDIA_SUFFIXES)) for name in names):
        return False
    if any(is_audio(field, root, index, index.foreign_folders([field])) for field in first):
        return False
    if any(known):
        return True
    shown = ", ".join(first)[:200]
    if any(len(name.split()) >= MIN_SENTENCE_WORDS for name in names):
        hint = "for a row, name the columns in their order: --header audio,text,...; for a header, give --audio-column"
        raise UserError(f"{file}: its first line may be a header, or a row whose audio is missing ({shown}); {hint}")
    logger.info(f"{file}: its first line is taken as the header ({shown}); --header names the columns of one without")
    return True


def _delimiter(lines: Sequence[str], file: Path) -> str:
    """Returns the delimiter that all lines have, the rarest of several: others are part of the text."""
    usual = "\t" if file.suffix == ".tsv" else ","
    order = [usual, *(sign for sign in ("\t", "|", ";", ",") if sign != usual)]
    everywhere = [sign for sign in order if all(sign in line for line in lines)]
    constant = [sign for sign in everywhere if len({line.count(sign) for line in lines}) == 1]
    if constant or everywhere:
        return (constant or everywhere)[0]
    return max(DELIMITERS.values(), key=lines[0].count)


def _known(columns: Sequence[_Column], column: str) -> list[str]:
    """Returns the columns that are called `column` or one of its synonyms."""
    return [item.name for item in columns if item.name.strip().lower() in (column, *COLUMNS[column])]


def _audio_column(file: Path, columns: list[_Column], layout: TableLayout, index: AudioIndex) -> str | None:
    """Returns the column whose values are audio files; a known name first, then the longest values. UserError."""
    if "audio" in layout.columns:
        return None
    root = _root(file, layout)
    fitting = [item for item in columns if _audio_share(item, root, index) >= MIN_AUDIO_SHARE]
    known = _known(fitting, "audio")
    if known:
        return known[0]
    if not fitting:
        if _known(columns, "audio"):
            return None  # named as usual, and its files are missing: they are listed one by one
        names = ", ".join(item.name for item in columns)
        hint = "name it with --audio-column, and the folder of the files with --audio-root"
        raise UserError(f"{file}: no column names audio files below {index.root} (columns: {names[:300]}); {hint}")
    return max(fitting, key=lambda item: sum(map(len, item.values))).name


def _audio_share(column: _Column, root: Path, index: AudioIndex) -> float:
    foreign = index.foreign_folders(column.values)
    return column.share(lambda value: is_audio(value, root, index, foreign))


def _text_column(file: Path, columns: list[_Column], layout: TableLayout, audio: str | None) -> str | None:
    """Returns the column of transcripts: one of a known name, or the only one of sentences. UserError."""
    if "text" in layout.columns or _known(columns, "text"):
        return None
    others = {audio, *layout.columns.values(), *(name for kind in COLUMNS for name in _known(columns, kind))}
    left = [item for item in columns if item.name not in others]
    texts = [item for item in left if item.share(_has_letter) >= MIN_TEXT_SHARE and item.words() >= MIN_WORDS]
    candidates = texts or left
    while len(candidates) > 1 and _are_same(candidates[-2], candidates[-1]):
        del candidates[-2]  # the later one is normalised, as in LJSpeech
    if len(candidates) != 1:
        names = ", ".join(item.name for item in columns)
        hint = "name it with --text-column"
        if layout.header:
            hint = "it has no header, so name the columns in their order: --header audio,text,..."
        raise UserError(f"{file}: the column of the transcripts is not clear (columns: {names[:300]}); {hint}")
    return candidates[0].name


def _has_letter(value: str) -> bool:
    return any(map(str.isalpha, value))


def _are_same(one: _Column, other: _Column) -> bool:
    same = sum(_words_only(a) == _words_only(b) for a, b in zip(one.values, other.values, strict=True))
    return same >= SAME_SHARE * max(1, len(one.values))


def _words_only(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().casefold()
