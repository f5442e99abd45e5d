"""A set of utterances as `asrtool prepare` reads it: the words of the command, and a reader in Python."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.data.corpora import Utterance
from asrtool.data.folder_plan import FolderLayout, FolderPlan
from asrtool.data.table_rows import DELIMITERS
from asrtool.data.tables import TableLayout

Rows = Iterator[Utterance | str]


@dataclass(frozen=True)
class SourceOptions:
    """What the user says about a source; everything else is recognised."""

    columns: Mapping[str, str] = field(
        default_factory=dict
    )  # column of asrtool (audio, text, ...) -> name in the table
    header: Sequence[str] | None = None  # of a table without one
    delimiter: str | None = None
    audio_root: Path | None = None
    metadata: Path | None = None
    text_suffix: str | None = None
    audio_suffix: str | None = None
    name_pattern: str | None = None
    speaker_from: str | None = None
    unlabelled: bool = False

    def table(self) -> TableLayout:
        """Returns these options for a table."""
        return TableLayout(self.columns, self.header, self.delimiter, self.audio_root, self.unlabelled)

    def folder(self) -> FolderLayout:
        """Returns these options for a folder of audio."""
        names = ("metadata", "text_suffix", "audio_suffix", "name_pattern", "speaker_from", "unlabelled")
        return FolderLayout(table=self.table(), **{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Source:
    """A set of utterances. `kind` is table, nemo, kaldi, lhotse, metadata, keys, texts, names or unlabelled."""

    kind: str
    path: Path
    description: str  # a phrase for people
    command: tuple[str, ...]  # after `asrtool`, with "OUT" for the manifest, and without options of the audio
    _read: Callable[[], Rows] = field(repr=False)

    def read(self) -> Rows:
        """Yields the utterances, unchecked, and a line for each one that is wrong."""
        return self._read()


def describe_plan(plan: FolderPlan) -> str:
    """Returns a phrase for people that says where the transcripts of a folder are."""
    first = plan.files[0].name if plan.files else ""
    tables = f"{len(plan.files)} tables such as {first}" if len(plan.files) > 1 else f"the table {first}"
    descriptions = {
        "metadata": f"audio files and {tables}{describe_layout(plan.layout.table)}",
        "keys": f"audio files, and {len(plan.files)} files of lines NAME TEXT such as {first}",
        "texts": f"audio files with a text file *{plan.layout.text_suffix} each",
        "names": f"audio files whose names are the transcripts, {plan.layout.name_pattern}",
        "unlabelled": "audio files without transcripts",
    }
    return descriptions[plan.kind]


def describe_layout(layout: TableLayout) -> str:
    """Returns delimiter, header and columns of a table in parentheses, "" for the usual ones."""
    sign = next((name for name, sign in DELIMITERS.items() if sign == layout.delimiter), None)
    columns = ", ".join(f"{column} is {name}" for column, name in layout.columns.items())
    parts = [f"{sign}-separated" if sign else "", "without a header" if layout.header else "", columns]
    shown = "; ".join(part for part in parts if part)
    return f" ({shown})" if shown else ""


def table_words(layout: TableLayout) -> list[str]:
    """Returns the options that say how to read a table."""
    words = []
    for column, name in layout.columns.items():
        if column in ("audio", "text", "speaker"):
            words += [f"--{column}-column", name]
        else:
            words += ["--column", f"{column}={name}"]
    if layout.header:
        words += ["--header", ",".join(layout.header)]
    if layout.delimiter:
        words += ["--delimiter", next(name for name, sign in DELIMITERS.items() if sign == layout.delimiter)]
    if layout.audio_root:
        words += ["--audio-root", str(Path(layout.audio_root).absolute())]
    return [*words, "--unlabelled"] if layout.unlabelled else words
