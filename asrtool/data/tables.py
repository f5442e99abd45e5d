"""Reader of tables of utterances: their columns, whatever they are called, and an utterance for each row.

asrtool/data/table_rows.py reads the rows of the files: csv, tsv and the like, and JSON objects, one a line.
"""

import difflib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from asrtool.data.audio_index import AudioIndex, audio_in
from asrtool.data.corpora import Utterance, find_audio_file, parse_channel, parse_seconds
from asrtool.data.sources import InvalidEntry
from asrtool.data.table_rows import DELIMITERS, TableRows, open_rows
from asrtool.errors import UserError, did_you_mean, one_line

logger = logging.getLogger(__name__)

COLUMNS: dict[str, tuple[str, ...]] = {  # column -> its names in Common Voice, NeMo, SpeechBrain, Hugging Face
    "audio": ("path", "file", "filename", "file_name", "wav", "wav_path", "wav_filename", "audio_filepath")
    + ("audio_path", "audio_file"),
    "text": ("sentence", "transcript", "transcription", "wrd"),
    "speaker": ("client_id", "spk", "spk_id", "speaker_id"),
    "id": ("utt", "utt_id", "utterance_id"),
    "start": ("begin", "start_time", "offset"),
    "end": ("stop", "end_time"),
    "duration": (),
    "channel": (),
}


NEMO_COLUMN = "audio_filepath"  # where it is, a duration without a start is from the beginning of the file


@dataclass(frozen=True)
class TableLayout:
    """How to read a table. By default it has a header, and the delimiter is recognised by it."""

    columns: Mapping[str, str] = field(default_factory=dict)  # column of COLUMNS -> its name in the header
    header: Sequence[str] | None = None  # names of the columns of a table that has no header
    delimiter: str | None = None
    audio_root: Path | None = None  # where relative audio paths start; the table's folder by default
    unlabelled: bool = False  # a column text is not needed
    index: AudioIndex | None = None  # finds audio that is named without its folder or suffix
    is_json: bool = False  # whatever the suffix of the file


def read_table(file: Path, layout: TableLayout | None = None) -> Iterator[Utterance | str]:
    """Yields the utterances of a table: columns audio and text; optionally id, speaker, start, end (s) and channel.

    Yields a line that names file and line for a row that is wrong. Raises UserError for a table without these columns.
    Ids default to the names of the audio files, with the start in milliseconds if there is one, and the channel.
    """
    yield from TableReader(Path(file), layout or TableLayout()).utterances()


class TableReader:
    """Reads the rows of a table as utterances; `named` are the audio files of its rows, also of wrong ones."""

    def __init__(self, file: Path, layout: TableLayout):
        self.file = file
        self.layout = layout
        self.root = file.parent if layout.audio_root is None else layout.audio_root
        self.is_nemo = False
        self.renamed = 0  # ids made of file names with white space
        self.named: set[Path] = set()
        self._files: dict[str, Path | InvalidEntry] = {}  # of the names in the column audio

    def utterances(self) -> Iterator[Utterance | str]:
        """Yields the utterances, and a line for each row that is wrong, as `read_table`."""
        rows = list(self._rows())
        if self.renamed:
            logger.info(f"{self.file}: {self.renamed} ids were made of file names with white space, which became '_'")
        yield from _with_recordings(rows)

    def _rows(self) -> Iterator[Utterance | str]:
        """Yields an utterance of each row, or a line that says what is wrong with the row."""
        rows = open_rows(self.file, self.layout.header, self.layout.delimiter, self.layout.is_json)
        columns = self._columns(rows)
        self.is_nemo = NEMO_COLUMN in rows.names
        if self.layout.index:
            rows = replace(rows, values=list(rows.values))
            self._files = self._find_audio(self.layout.index, rows, columns["audio"])
            self.named = {file for file in self._files.values() if isinstance(file, Path)}
        for where, values in rows.values:
            try:
                if isinstance(values, InvalidEntry):
                    raise values
                yield self._utterance({column: _field(values, index) for column, index in columns.items()}, where)
            except (InvalidEntry, ValueError) as problem:
                yield f"{where}: {problem}"

    def _columns(self, rows: TableRows) -> dict[str, int]:
        """Returns the index of each column of COLUMNS that the table has. Raises UserError."""
        names = rows.names
        lower_names = [name.strip().lower() for name in names]
        repeated = sorted({name for name in lower_names if name and lower_names.count(name) > 1})
        if repeated:
            raise UserError(f"{self.file}: the header has {', '.join(repeated)} more than once; rename a column")
        indices = {column: self._index(column, names, lower_names) for column in COLUMNS}
        columns = {column: index for column, index in indices.items() if index is not None}
        required = {"audio"} if self.layout.unlabelled else {"audio", "text"}
        if not required <= set(columns):
            raise UserError(f"{self.file}: {_missing_columns(rows)}")
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
        audio = self._audio(row["audio"])
        start = parse_seconds(row.get("start") or "0")
        end = self._end(row, start)
        channel = parse_channel(row["channel"]) if row.get("channel") else None
        return Utterance(
            id=row.get("id") or self._default_id(audio, row, start, channel),
            audio=str(audio),
            text=row.get("text", ""),
            speaker=row.get("speaker") or None,
            start=start,
            end=end,
            channel=channel,
            where=where,
        )

    def _audio(self, name: str) -> Path:
        if self.layout.index:
            file = self._files[name]
            if isinstance(file, InvalidEntry):
                raise file
            return file
        audio = self.root / name
        return audio if audio.suffix or os.path.isfile(audio) else Path(find_audio_file(audio))

    def _find_audio(self, index: AudioIndex, rows: TableRows, column: int) -> dict[str, Path | InvalidEntry]:
        """Returns the audio file of each name in a column, or why it has none."""
        values = (row[column] for _, row in rows.values if not isinstance(row, InvalidEntry))
        names = [value.strip() for value in values if isinstance(value, str)]
        return index.find_all(filter(None, names), self.file.parent, partial(audio_in, self.root))

    def _end(self, row: dict[str, str], start: float) -> float | None:
        """Returns the end of a row in seconds, by its end or duration; None where the recording ends."""
        if row.get("end"):
            return parse_seconds(row["end"])
        if row.get("duration") and (row.get("start") or self.is_nemo):
            return start + parse_seconds(row["duration"])
        return None

    def _default_id(self, audio: Path, row: dict[str, str], start: float, channel: int | None) -> str:
        """Returns the id of a row without one."""
        name = re.sub(r"\s+", "_", audio.stem)
        self.renamed += name != audio.stem
        if channel is not None:
            name += f"-ch{channel}"
        is_whole = start == 0 and not row.get("end") and not (row.get("start") and row.get("duration"))
        return name if is_whole else f"{name}-{round(start * 1000):08d}"


def _field(values: Sequence[str | InvalidEntry], index: int) -> str:
    value = values[index]
    if isinstance(value, InvalidEntry):
        raise value
    return value.strip()


def _missing_columns(rows: TableRows) -> str:
    """Says that a table has no column of audio or text, and which it has."""
    found = ", ".join(rows.names)[:500]
    if rows.delimiter is None:
        return f"needs objects with the keys audio and text, found: {found}; name them with --column text=NAME"
    sign = next((name for name, sign in DELIMITERS.items() if sign == rows.delimiter), rows.delimiter)
    header = f"columns audio and text, found: {found} (delimiter: {sign})"
    hint = "name them with --audio-column or --text-column, or give --header, --delimiter or --unlabelled"
    return f"needs a header with the {header}; {hint}"


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
