"""Tables of utterances: a header, and a row of fields for each utterance.

Comma- and semicolon-separated tables may quote a field as spreadsheets do, within its line. Tab- and bar-separated ones
have no quotation marks but those of the text.
"""

import csv
import difflib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from asrtool.data.corpora import Utterance, find_audio_file, parse_channel, parse_seconds
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError, did_you_mean, one_line
from asrtool.readers import read_lines

logger = logging.getLogger(__name__)

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
QUOTING = ",;"
COLUMNS: dict[str, tuple[str, ...]] = {  # what other tools call them: Common Voice, NeMo, SpeechBrain, Hugging Face
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
    unlabelled: bool = False  # there need not be a column text


def read_table(file: Path, layout: TableLayout | None = None) -> Iterator[Utterance | str]:
    """The utterances of a table: columns audio and text; optionally id, speaker, start, end (seconds) and channel.

    Yields a line that names file and line for a row that is wrong. Raises UserError for a table without these columns.
    Ids default to the names of the audio files, with the start in milliseconds when there is one, and the channel.
    """
    layout = layout or TableLayout()
    reader = _Reader(Path(file), layout)
    found = list(reader.rows())
    if reader.renamed:
        logger.info(f"{file}: {reader.renamed} ids were made of file names with white space, which became '_'")
    yield from _with_recordings(found)


class _Reader:
    """The rows of a table as utterances."""

    def __init__(self, file: Path, layout: TableLayout):
        self.file, self.layout, self.renamed = file, layout, 0
        self.root = file.parent if layout.audio_root is None else layout.audio_root

    def rows(self) -> Iterator[Utterance | str]:
        """An utterance of each row, or a line that says what is wrong with the row."""
        if self.file.suffix == ".gz":  # a table is held as a whole, which a small compressed file can make too large
            raise UserError(f"{self.file} is compressed; unpack it with gunzip")
        lines = enumerate(read_lines(self.file, "table", "give a .csv or .tsv file"), 1)
        lines = ((number, line.rstrip("\n")) for number, line in lines if line.strip())
        first = next(lines, (1, ""))
        delimiter = self._delimiter(first[1])
        names = list(self.layout.header or _fields(first[1], delimiter, f"{self.file}:{first[0]}"))
        columns = self._columns(names, delimiter)
        if self.layout.header:
            lines = iter([first, *lines])
        for number, line in lines:
            where = f"{self.file}:{number}"
            try:
                values = _split(line, delimiter)
                if len(values) != len(names):
                    raise InvalidEntry(
                        f"{len(values)} fields, the header has {len(names)}; quote a delimiter within a field"
                    )
                yield self._utterance({name: values[index].strip() for name, index in columns.items()}, where)
            except (InvalidEntry, ValueError) as problem:
                yield f"{where}: {problem}"

    def _delimiter(self, first: str) -> str:
        """That of the layout, or the one that the first line has most of; the suffix decides between equals."""
        if self.layout.delimiter:
            return self.layout.delimiter
        usual = "\t" if self.file.suffix == ".tsv" else ","
        choices = [usual, *(sign for sign in DELIMITERS.values() if sign != usual)]
        if self.layout.header is None:
            return max(choices, key=first.count)
        fitting = [sign for sign in choices if first.count(sign) == len(self.layout.header) - 1]
        if len(fitting) != 1 and len(self.layout.header) > 1:
            raise UserError(f"{self.file}: the delimiter is not clear from its first line; give --delimiter")
        return fitting[0] if fitting else usual

    def _columns(self, names: list[str], delimiter: str) -> dict[str, int]:
        """The index of each column of COLUMNS that the table has. Raises UserError."""
        known = [name.strip().lower() for name in names]
        twice = sorted({name for name in known if name and known.count(name) > 1})
        if twice:
            raise UserError(f"{self.file}: the header has {', '.join(twice)} more than once; rename a column")
        found = {column: index for column in COLUMNS if (index := self._index(column, names, known)) is not None}
        needed = {"audio"} if self.layout.unlabelled else {"audio", "text"}
        if not needed <= set(found):
            sign = next((name for name, sign in DELIMITERS.items() if sign == delimiter), delimiter)
            said = f"columns audio and text, found: {', '.join(names)[:500]} (delimiter: {sign})"
            hint = "name them with --column text=NAME, or give --header, --delimiter or --unlabelled"
            raise UserError(f"{self.file}: needs a header with the {said}; {hint}")
        self._say_unused([name for index, name in enumerate(known) if name and index not in found.values()], found)
        return found

    def _index(self, column: str, names: list[str], known: list[str]) -> int | None:
        """Where a column is in the header, by the layout, its own name or a synonym of it. Raises UserError."""
        if column in self.layout.columns:
            wanted = self.layout.columns[column].strip()
            if wanted.lower() not in known:
                raise UserError(f"{self.file}: no column '{wanted}' in the header; {did_you_mean(wanted, names)}")
            return known.index(wanted.lower())
        if column in known:
            return known.index(column)
        taken = {name.strip().lower() for name in self.layout.columns.values()}
        synonyms = [name for name in known if name in COLUMNS[column] and name not in taken]
        if len(synonyms) > 1:
            said = " and ".join(synonyms)
            raise UserError(f"{self.file}: {said} may both be {column}; say which: --column {column}={synonyms[0]}")
        return known.index(synonyms[0]) if synonyms else None

    def _say_unused(self, unused: list[str], found: dict[str, int]) -> None:
        free = [name for column, names in COLUMNS.items() if column not in found for name in (column, *names)]
        similar = {name: difflib.get_close_matches(name, free, n=1) for name in unused}
        shown = [f"{name} (did you mean '{match[0]}'?)" if match else name for name, match in similar.items()]
        if shown:
            logger.info(one_line(f"{self.file}: columns that are not used: {', '.join(shown)}"))

    def _utterance(self, row: dict[str, str], where: str) -> Utterance:
        """Raises InvalidEntry or ValueError."""
        if not row["audio"]:
            raise InvalidEntry("no audio file is named")
        if row["audio"].endswith("|"):
            raise InvalidEntry(f"'{row['audio'][:200]}' ends in a bar, and a table runs no commands; name a file")
        audio = self.root / row["audio"]
        if not audio.suffix and not os.path.isfile(audio):
            audio = Path(find_audio_file(audio))
        start, end = parse_seconds(row.get("start") or "0"), parse_seconds(row["end"]) if row.get("end") else None
        channel = parse_channel(row["channel"]) if row.get("channel") else None
        name = row.get("id") or self._name(audio, start, end, channel)
        text, speaker = row.get("text", ""), row.get("speaker") or None
        return Utterance(name, str(audio), text, speaker, None, start, end, channel, where)

    def _name(self, audio: Path, start: float, end: float | None, channel: int | None) -> str:
        """The id of a row that has none."""
        stem = re.sub(r"\s+", "_", audio.stem)
        self.renamed += stem != audio.stem
        whole = start == 0 and end is None
        stem += "" if channel is None else f"-ch{channel}"
        return stem if whole else f"{stem}-{round(start * 1000):08d}"


def _split(line: str, delimiter: str) -> list[str]:
    """The fields of a line. Raises InvalidEntry for quotation marks that are not closed in the same line."""
    if delimiter not in QUOTING:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise InvalidEntry(
            f"quotation marks do not fit ({error}); close them in the line, or double those of the text"
        ) from error


def _fields(line: str, delimiter: str, where: str) -> list[str]:
    try:
        return [name.strip() for name in _split(line, delimiter)]
    except InvalidEntry as problem:
        raise UserError(f"{where}: {problem}") from problem


def _with_recordings(rows: list[Utterance | str]) -> Iterator[Utterance | str]:
    """Recordings are named for their files: by the stem, or by as much of the path as tells equal stems apart."""
    stems: dict[str, set[str]] = defaultdict(set)
    paths = [os.path.abspath(row.audio) if isinstance(row, Utterance) else "" for row in rows]
    for path in filter(None, paths):
        stems[Path(path).stem].add(path)
    common = {stem: os.path.commonpath(map(os.path.dirname, same)) for stem, same in stems.items()}
    for row, path in zip(rows, paths, strict=True):
        if isinstance(row, str):
            yield row
            continue
        stem = Path(path).stem
        name = stem if len(stems[stem]) == 1 else os.path.relpath(path, common[stem])
        yield replace(row, recording=re.sub(r"\s+", "_", name))
