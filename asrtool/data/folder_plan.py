"""Recognition of where the transcripts of a folder of audio files are; asrtool/data/audio_folder.py reads them."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from asrtool.data.audio_index import AudioIndex, scan_folder, stem
from asrtool.data.audio_names import NamePattern, are_transcripts, describe_names
from asrtool.data.corpora import require_folder
from asrtool.data.tables import TableLayout
from asrtool.errors import UserError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
KEY_FILES = re.compile(r"(.*\.trans|transcripts?|text|prompts)(\.txt)?", re.IGNORECASE)  # of lines "NAME TEXT"
TEXT_SUFFIXES = (".txt", ".lab", ".trn", ".transcript", ".text", ".lrc")
MIN_SHARE = 0.5  # of the audio files, that have a text file: then texts beside the audio are the layout
PLACES = {  # kinds of layouts: where the transcripts are
    "metadata": "in a table",
    "keys": "in lines NAME TEXT",
    "texts": "in a text file for each audio file",
    "names": "in the file names",
    "unlabelled": "not given",
}


@dataclass(frozen=True)
class FolderLayout:
    """How to read a folder of audio. What is not given is recognised."""

    metadata: Path | None = None  # table, or file of lines "NAME TEXT"
    table: TableLayout = field(default_factory=TableLayout)  # how to read it
    text_suffix: str | None = None  # of text files beside the audio
    audio_suffix: str | None = None
    name_pattern: str | None = None  # of file names, see asrtool/data/audio_names.py
    speaker_from: str | None = None  # "folder": the folder of an audio file is its speaker
    unlabelled: bool = False  # audio without a transcript is taken


@dataclass(frozen=True)
class FolderPlan:
    """Where the transcripts of a folder are: `kind` is one of PLACES, `files` are the tables or files of lines."""

    kind: str
    index: AudioIndex
    layout: FolderLayout
    files: tuple[Path, ...] = ()


def plan_folder(folder: Path, layout: FolderLayout) -> FolderPlan:
    """Returns where the transcripts of a folder are, by the options or else by its files.

    Raises UserError where that is not clear, and for an option that has no effect there.
    """
    plan = _plan(folder, layout)
    refuse_unused(layout, plan.kind)
    return plan


def refuse_unused(layout: FolderLayout, kind: str) -> None:
    """Raises UserError for a choice of the user that has no effect where the transcripts are of `kind` (of PLACES)."""
    table, pattern = layout.table, layout.name_pattern
    if kind != "metadata":
        options = [option_of_column(column) for column in table.columns]
        values = {"--header": table.header, "--delimiter": table.delimiter, "--audio-root": table.audio_root}
        options += [option for option, value in values.items() if value]
        if options:
            _refuse(options[0], "tables", kind)
    if kind != "texts" and layout.text_suffix:
        _refuse("--text-suffix", "text files of audio files", kind)
    if kind != "names" and pattern and "text" in NamePattern(pattern).fields:
        _refuse("the field {text} of --name-pattern", "transcripts in file names", kind)


def option_of_column(column: str) -> str:
    """Returns the option of `asrtool prepare` and `new` that names the column of a table."""
    return f"--{column}-column" if column in ("audio", "text", "speaker") else "--column"


def _refuse(option: str, valid: str, kind: str) -> None:
    raise UserError(f"{option} has no effect here: it is for {valid}, and the transcripts are {PLACES[kind]}")


def _plan(folder: Path, layout: FolderLayout) -> FolderPlan:
    index = scan_folder(require_folder(folder, "folder of audio"), layout.audio_suffix)
    if not index.audio and not index.media:
        raise UserError(f"no audio files in {folder}{_suffix_hint(index, layout)}")
    pattern = NamePattern(layout.name_pattern) if layout.name_pattern else None
    if layout.metadata:
        file = _metadata_file(folder, layout.metadata)
        return FolderPlan(_kind_of(file), index, layout, (file,))
    if pattern and "text" in pattern.fields:
        return FolderPlan("names", index, layout)
    if layout.text_suffix:
        return FolderPlan("texts", index, layout)
    return _recognise(index, layout)


def _metadata_file(folder: Path, metadata: Path) -> Path:
    """Returns the file of --metadata, which is below `folder` or else a path of its own. UserError if both exist."""
    inside = folder / metadata
    if inside.is_file() and metadata.is_file() and not inside.samefile(metadata):
        raise UserError(f"--metadata {metadata} may be {inside} or {metadata.absolute()}; give the whole path")
    return metadata if metadata.is_file() and not inside.is_file() else inside


def _suffix_hint(index: AudioIndex, layout: FolderLayout) -> str:
    suffixes = Counter(path.suffix for path in index.others if path.suffix).most_common(3)
    others = f", other files are {', '.join(suffix for suffix, _ in suffixes)}" if suffixes else ""
    hint = f"of the suffix {layout.audio_suffix}" if layout.audio_suffix else "that libsndfile or FFmpeg read"
    return f" {hint}{others}"


def _kind_of(file: Path) -> str:
    """Returns "keys" for a file of lines NAME TEXT, and "metadata" for a table."""
    return "keys" if KEY_FILES.fullmatch(file.name) else "metadata"


def _recognise(index: AudioIndex, layout: FolderLayout) -> FolderPlan:
    suffix = _common_text_suffix(index)
    tables = _tables(index, only_metadata=suffix is not None)
    keys = [path for path in index.others if KEY_FILES.fullmatch(path.name)]
    found = {
        "metadata": [str(path) for path in tables[:2]],
        "keys": [str(path) for path in keys[:2]],
        "texts": [suffix] if suffix else [],
    }
    kinds = [kind for kind, files in found.items() if files]
    if len(kinds) > 1 and not layout.unlabelled:
        files = ", ".join(file for kind in kinds for file in found[kind])
        raise UserError(f"{index.root} has transcripts in several places ({files}); give --metadata or --text-suffix")
    if kinds == ["texts"]:
        return FolderPlan("texts", index, replace(layout, text_suffix=suffix))
    if kinds:
        return FolderPlan(kinds[0], index, layout, tuple(tables or keys))
    if layout.unlabelled:
        return FolderPlan("unlabelled", index, layout)
    if are_transcripts(index.audio):
        return FolderPlan("names", index, replace(layout, name_pattern="{text}"))
    raise UserError(_describe_missing(index))


def _tables(index: AudioIndex, only_metadata: bool) -> list[Path]:
    """Returns the tables of a folder: metadata.*, in each folder that has one, or the only other table. UserError.

    `only_metadata`: other tables, e.g. of speakers, do not count, since texts have the transcripts.
    """
    tables = [path for path in index.others if path.suffix in TABLE_SUFFIXES]
    metadata = [path for path in tables if path.stem == "metadata"]
    if metadata or only_metadata or len(tables) <= 1:
        return metadata if metadata or only_metadata else tables
    names = ", ".join(str(path.relative_to(index.root)) for path in tables[:6])
    raise UserError(f"{index.root} has {len(tables)} tables ({names}); say which has the transcripts: --metadata")


def _describe_missing(index: AudioIndex) -> str:
    audio = index.audio or index.media
    hint = "if the names hold them, give --name-pattern, such as '{text}_{speaker}_{index}'; else --metadata FILE"
    problem = f"no transcripts found for the {len(audio)} audio files of {index.root}"
    return f"{problem}; {describe_names(audio)}. {hint}; --unlabelled takes audio without"


def _common_text_suffix(index: AudioIndex) -> str | None:
    """Returns the suffix of the text files beside most audio files; None without. UserError for two such suffixes."""
    stems = {path.parent / stem(path) for path in index.audio}
    names = {stem(path) for path in index.audio}
    counts: Counter[str] = Counter()
    for path in index.others:
        base, _, rest = path.name.partition(".")
        for suffix in {f".{rest}", path.suffix}:
            name = path.name.removesuffix(suffix)
            if path.suffix in TEXT_SUFFIXES and (path.parent / name in stems or name in names):
                counts[suffix] += 1
    suffixes = [suffix for suffix, count in counts.items() if count >= MIN_SHARE * len(index.audio)]
    if len(suffixes) > 1:
        both = ", ".join(sorted(suffixes))
        raise UserError(f"{index.root} has text files of several kinds ({both}); choose one with --text-suffix")
    return suffixes[0] if suffixes else None
