"""Reader of tables of utterances: a header, and a row of fields for each utterance.

Comma- and semicolon-separated tables may quote a field as spreadsheets do, within its line. In tab- and bar-separated
ones a quotation mark is a character of the text.
"""

import csv
import difflib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from asrtool.data.corpora import Utterance, find_audio_file, parse_channel, parse_seconds
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError, did_you_mean, one_line
from asrtool.readers import read_lines

logger = logging.getLogger(__name__)

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
QUOTING = ",;"  # delimiters of tables whose fields may be quoted
COLUMNS: dict[str, tuple[str, ...]] = {  # column -> its names in Common Voice, NeMo, SpeechBrain, Hugging Face
    "audio": ("path", "file", "filename", "file_name", "wav", "wav_path", "wav_filename", "audio_filepath")
    + ("audio_path", "audio_file"),
    "text": ("sentence", "transcript", "transcription", "wrd"),
    "speaker": ("client_id", "spk", "spk_id", "speaker_id"),
    "id": ("utt", "utt_id", "utterance_id"),
    "start": ("begin", "start_time"),
    "end": ("stop", "end_time"),
    "channel": (),
}


@dataclass(frozen=True)
class TableLayout:
    """How to read a table. By default it has a header, and the delimiter is recognised by it."""

    columns: Mapping[str, str] = field(default_factory=dict)  # column of COLUMNS -> its name in the header
    header: Sequence[str] | None = None  # names of the columns of a table that has no header
    delimiter: str | None = None
    audio_root: Path | None = None  # where relative audio paths start; the table's folder by default
    unlabelled: bool = False  # a column text is not needed


def read_table(file: Path, layout: TableLayout | None = None) -> Iterator[Utterance | str]:
    """Yields the utterances of a table: columns audio and text; optionally id, speaker, start, end (s) and channel.

    Yields a line that names file and line for a row that is wrong. Raises UserError for a table without these columns.
    Ids default to the names of the audio files, with the start in milliseconds if there is one, and the channel.
    """
    reader = _TableReader(Path(file), layout or TableLayout())
    rows = list(reader.rows())
    if reader.renamed:
        logger.info(f"{file}: {reader.renamed} ids were made of file names with white space, which became '_'")
    yield from _with_recordings(rows)


class _TableReader:
    """Reads the rows of a table as utterances."""

    def __init__(self, file: Path, layout: TableLayout):
        self.file = file
        self.layout = layout
        self.root = file.parent if layout.audio_root is None else layout.audio_root
        self.renamed = 0  # ids made of file names with white space

    def rows(self) -> Iterator[Utterance | str]:
        """Yields an utterance of each row, or a line that says what is wrong with the row."""
        if self.file.suffix == ".gz":  # a table is held as a whole, which a small compressed file can make too large
            raise UserError(f"{self.file} is compressed; unpack it with gunzip")
        lines = self._numbered_lines()
        first_number, first_line = next(lines, (1, ""))
        delimiter = self._delimiter(first_line)
        names = list(self.layout.header or _header_fields(first_line, delimiter, f"{self.file}:{first_number}"))
        columns = self._columns(names, delimiter)
        if self.layout.header:
            lines = chain([(first_number, first_line)], lines)
        for number, line in lines:
            where = f"{self.file}:{number}"
            try:
                values = _split(line, delimiter)
                if len(values) != len(names):
                    hint = "quote a delimiter within a field"
                    raise InvalidEntry(f"{len(values)} fields, the header has {len(names)}; {hint}")
                yield self._utterance({name: values[index].strip() for name, index in columns.items()}, where)
            except (InvalidEntry, ValueError) as problem:
                yield f"{where}: {problem}"

    def _numbered_lines(self) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(read_lines(self.file, "table", "give a .csv or .tsv file"), 1):
            if line.strip():
                yield number, line.rstrip("\n")

    def _delimiter(self, first_line: str) -> str:
        """Returns the layout's delimiter, or the most frequent one of the first line; the suffix breaks ties."""
        if self.layout.delimiter:
            return self.layout.delimiter
        usual = "\t" if self.file.suffix == ".tsv" else ","
        choices = [usual, *(sign for sign in DELIMITERS.values() if sign != usual)]
        if self.layout.header is None:
            return max(choices, key=first_line.count)
        fitting = [sign for sign in choices if first_line.count(sign) == len(self.layout.header) - 1]
        if len(fitting) != 1 and len(self.layout.header) > 1:
            raise UserError(f"{self.file}: the delimiter is not clear from its first line; give --delimiter")
        return fitting[0] if fitting else usual

    def _columns(self, names: list[str], delimiter: str) -> dict[str, int]:
        """Returns the index of each column of COLUMNS that the table has. Raises UserError."""
        lower_names = [name.strip().lower() for name in names]
        repeated = sorted({name for name in lower_names if name and lower_names.count(name) > 1})
        if repeated:
            raise UserError(f"{self.file}: the header has {', '.join(repeated)} more than once; rename a column")
        indices = {column: self._index(column, names, lower_names) for column in COLUMNS}
        columns = {column: index for column, index in indices.items() if index is not None}
        required = {"audio"} if self.layout.unlabelled else {"audio", "text"}
        if not required <= set(columns):
            sign = next((name for name, sign in DELIMITERS.items() if sign == delimiter), delimiter)
            header = f"columns audio and text, found: {', '.join(names)[:500]} (delimiter: {sign})"
            hint = "name them with --column text=NAME, or give --header, --delimiter or --unlabelled"
            raise UserError(f"{self.file}: needs a header with the {header}; {hint}")
        unused = [name for index, name in enumerate(lower_names) if name and index not in columns.values()]
        self._log_unused(unused, columns)
        return columns

    def _index(self, column: str, names: list[str], lower_names: list[str]) -> int | None:
        """Returns where a column is in the header, by the layout, its own name or a synonym. Raises UserError."""
        if column in self.layout.columns:
            wanted = self.layout.columns[column].strip()
            if wanted.lower() not in lower_names:
                raise UserError(f"{self.file}: no column '{wanted}' in the header; {did_you_mean(wanted, names)}")
            return lower_names.index(wanted.lower())
        if column in lower_names:
            return lower_names.index(column)
        taken = {name.strip().lower() for name in self.layout.columns.values()}
        synonyms = [name for name in lower_names if name in COLUMNS[column] and name not in taken]
        if len(synonyms) > 1:
            both = " and ".join(synonyms)
            raise UserError(f"{self.file}: {both} may both be {column}; say which: --column {column}={synonyms[0]}")
        return lower_names.index(synonyms[0]) if synonyms else None

    def _log_unused(self, unused: list[str], columns: dict[str, int]) -> None:
        free = [name for column, names in COLUMNS.items() if column not in columns for name in (column, *names)]
        shown = []
        for name in unused:
            similar = difflib.get_close_matches(name, free, n=1)
            shown.append(f"{name} (did you mean '{similar[0]}'?)" if similar else name)
        if shown:
            logger.info(one_line(f"{self.file}: columns that are not used: {', '.join(shown)}"))

    def _utterance(self, row: dict[str, str], where: str) -> Utterance:
        """Returns the utterance of a row. Raises InvalidEntry or ValueError."""
        if not row["audio"]:
            raise InvalidEntry("no audio file is named")
        if row["audio"].endswith("|"):
            raise InvalidEntry(f"'{row['audio'][:200]}' ends in a bar, and a table runs no commands; name a file")
        audio = self.root / row["audio"]
        if not audio.suffix and not os.path.isfile(audio):
            audio = Path(find_audio_file(audio))
        start = parse_seconds(row.get("start") or "0")
        end = parse_seconds(row["end"]) if row.get("end") else None
        channel = parse_channel(row["channel"]) if row.get("channel") else None
        return Utterance(
            id=row.get("id") or self._default_id(audio, start, end, channel),
            audio=str(audio),
            text=row.get("text", ""),
            speaker=row.get("speaker") or None,
            start=start,
            end=end,
            channel=channel,
            where=where,
        )

    def _default_id(self, audio: Path, start: float, end: float | None, channel: int | None) -> str:
        """Returns the id of a row without one."""
        name = re.sub(r"\s+", "_", audio.stem)
        self.renamed += name != audio.stem
        if channel is not None:
            name += f"-ch{channel}"
        is_whole = start == 0 and end is None
        return name if is_whole else f"{name}-{round(start * 1000):08d}"


def _split(line: str, delimiter: str) -> list[str]:
    """Returns the fields of a line. Raises InvalidEntry for quotation marks that are not closed in the same line."""
    if delimiter not in QUOTING:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        hint = "close them in the line, or double those of the text"
        raise InvalidEntry(f"quotation marks do not fit ({error}); {hint}") from error


def _header_fields(line: str, delimiter: str, where: str) -> list[str]:
    try:
        return [name.strip() for name in _split(line, delimiter)]
    except InvalidEntry as problem:
        raise UserError(f"{where}: {problem}") from problem


def _with_recordings(rows: list[Utterance | str]) -> Iterator[Utterance | str]:
    """Names recordings for their files: by the stem, or by as much of the path as distinguishes equal stems."""
    paths_of_stem: dict[str, set[str]] = defaultdict(set)
    paths = [os.path.abspath(row.audio) if isinstance(row, Utterance) else "" for row in rows]
    for path in filter(None, paths):
        paths_of_stem[Path(path).stem].add(path)
    folders = {stem: os.path.commonpath(map(os.path.dirname, same)) for stem, same in paths_of_stem.items()}
    for row, path in zip(rows, paths, strict=True):
        if isinstance(row, str):
            yield row
            continue
        stem = Path(path).stem
        name = stem if len(paths_of_stem[stem]) == 1 else os.path.relpath(path, folders[stem])
        yield replace(row, recording=re.sub(r"\s+", "_", name))
