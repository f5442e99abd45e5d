"""Recognition of what a path holds: a table, a Kaldi folder, a folder of audio, or manifests of lhotse or NeMo.

asrtool/data/corpus_source.py has what it returns.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from asrtool.data.audio_folder import read_plan
from asrtool.data.audio_index import AudioIndex, scan_folder
from asrtool.data.corpora import find_audio_file
from asrtool.data.corpus_source import Source, SourceOptions, describe_layout, describe_plan, table_words
from asrtool.data.folder_plan import TABLE_SUFFIXES, FolderPlan, plan_folder, refuse_unused
from asrtool.data.kaldi_detection import is_kaldi_folder, kaldi_audio_root
from asrtool.data.kaldi_folder import read_kaldi
from asrtool.data.lhotse_detection import (
    MANIFEST_SUFFIXES,
    find_manifests,
    json_kind,
    lhotse_utterances,
    lhotse_words,
    utterances_of_cuts,
)
from asrtool.data.sources import InvalidEntry
from asrtool.data.table_guess import recognise_table
from asrtool.data.table_rows import JSON_SUFFIXES, open_rows
from asrtool.data.tables import NEMO_COLUMN, TableLayout, read_table
from asrtool.errors import UserError

__all__ = ["Source", "SourceOptions", "describe_source", "find_sets", "utterances_of_cuts"]

SETS = {  # names of the sets of a corpus, and what they are called elsewhere
    "train": ("train", "training", "tr"),
    "dev": ("dev", "valid", "validation", "val", "development", "devel", "cv"),
    "test": ("test", "eval", "evaluation", "testing"),
}


def describe_source(path: Path, options: SourceOptions | None = None) -> Source:
    """Returns what a path holds, as one set. Raises UserError that names the options where that is not clear."""
    path = Path(path).absolute()
    options = options or SourceOptions()
    if path.is_file():
        return _describe_file(path, options)
    if not path.is_dir():
        raise UserError(f"nothing is at {path}; give a corpus folder, a table, or a manifest")
    if is_kaldi_folder(path):
        return _kaldi(path, options)
    if manifests := find_manifests(path):
        if len(manifests) == 1:
            return _lhotse(path, next(iter(manifests.values())))
        names = ", ".join(str(files[0]) for files in manifests.values())
        raise UserError(f"{path} has several manifests ({names[:300]}); name one of them, a file")
    return _folder(path, options)


def find_sets(path: Path, options: SourceOptions | None = None) -> dict[str, Source]:
    """Returns the sets "train", "dev" and "test" of a corpus that has its own, or else {"all": its only set}.

    Sets are folders or files named train, dev, validation, test, eval and the like. Raises UserError.
    """
    path = Path(path).absolute()
    options = options or SourceOptions()
    parts = {} if not path.is_dir() or is_kaldi_folder(path) or options.metadata else _parts(path)
    if "train" not in parts:
        return {"all": describe_source(path, options)}
    table_options = options if options.audio_root else replace(options, audio_root=_tables_root(path, parts))
    return {
        name: describe_source(part, table_options if part.is_file() else options)
        if isinstance(part, Path)
        else _lhotse(path, part)
        for name, part in parts.items()
    }


def _parts(path: Path) -> dict[str, Path | tuple[Path, ...]]:
    """Returns folders, tables or manifests of the sets; folders of audio only where each has its transcripts."""
    manifests = find_manifests(path)
    found: dict[str, Path | tuple[Path, ...]] = {}
    for name, synonyms in SETS.items():
        for synonym in synonyms:
            candidates = [manifests.get(synonym), path / synonym]
            candidates += [path / f"{synonym}{suffix}" for suffix in (*TABLE_SUFFIXES, ".json")]
            candidate = next((c for c in candidates if c and (not isinstance(c, Path) or _is_set(c, path))), None)
            if candidate is not None:
                found[name] = candidate
                break
    return found


def _is_set(part: Path, root: Path) -> bool:
    """Returns True for a table or a folder with transcripts of its own."""
    if part.is_file():
        return True
    if not part.is_dir():
        return False
    if is_kaldi_folder(part):
        return True
    return not any((root / f"metadata{suffix}").is_file() for suffix in TABLE_SUFFIXES) and bool(
        scan_folder(part).audio
    )


def _tables_root(path: Path, parts: Mapping[str, object]) -> Path | None:
    """Returns the folder whose audio the tables of the sets name: clips for Common Voice; None where it is clear."""
    if not any(isinstance(part, Path) and part.is_file() for part in parts.values()):
        return None
    return next((path / name for name in ("clips", "audio", "wavs", "wav") if (path / name).is_dir()), path)


def _describe_file(path: Path, options: SourceOptions) -> Source:
    if path.name.endswith(MANIFEST_SUFFIXES):
        kind = json_kind(path)
        if kind in ("cuts", "recordings", "supervisions"):
            return _lhotse(path, _complete(path, kind))
    if path.suffix in JSON_SUFFIXES and json_kind(path) == "nemo" and not options.columns:
        layout = TableLayout(audio_root=options.audio_root, unlabelled=options.unlabelled)
        if not _needs_index(path, replace(layout, columns={"audio": NEMO_COLUMN})):
            command = ("prepare", "nemo", str(path), "OUT", *table_words(layout))
            return Source("nemo", path, "a manifest of NeMo", command, lambda: read_table(path, layout))
    return _table(path, options)


def _complete(path: Path, kind: str) -> tuple[Path, ...]:
    """Returns the manifest of cuts, or the manifests of recordings and supervisions of which one is given."""
    if kind == "cuts":
        return (path,)
    other = "supervisions" if kind == "recordings" else "recordings"
    partner = path.with_name(path.name.replace(kind, other))
    if partner == path or not partner.is_file():
        raise UserError(f"{path} is a manifest of {kind} alone; {other} are not at {partner}; give a manifest of cuts")
    return (path, partner) if kind == "recordings" else (partner, path)


def _lhotse(path: Path, files: tuple[Path, ...]) -> Source:
    what = "a manifest of lhotse's cuts" if len(files) == 1 else "lhotse's recordings and supervisions"
    return Source("lhotse", path, what, lhotse_words(files), lambda: lhotse_utterances(files))


def _kaldi(path: Path, options: SourceOptions) -> Source:
    root = options.audio_root or kaldi_audio_root(path)
    words = ("prepare", "kaldi", str(path), "OUT", *(("--audio-root", str(root.absolute())) if root else ()))
    segments = " with segments" if (path / "segments").is_file() else ""
    if options.unlabelled:
        words += ("--unlabelled",)
    return Source(
        "kaldi", path, f"a Kaldi data folder{segments}", words, lambda: read_kaldi(path, root, options.unlabelled)
    )


def _table(path: Path, options: SourceOptions) -> Source:
    """Returns a table; audio that is not where its rows say is looked for in its folder and those below."""
    refuse_unused(options.folder(), "metadata")
    root = options.audio_root or path.parent
    layout = _layout_by_paths(path, root, options)
    if layout is None:
        index = scan_folder(root)
        layout = recognise_table(path, options.table(), index)
        if _needs_index(path, layout):  # then `prepare folder` reads it, which searches for the files
            plan = FolderPlan("metadata", index, replace(options.folder(), table=layout, metadata=path), (path,))
            return _planned(plan, root, options)
    layout = replace(layout, index=None)
    words = ("prepare", "table", str(path), "OUT", *table_words(layout))
    return Source("table", path, f"a table{describe_layout(layout)}", words, lambda: read_table(path, layout))


def _layout_by_paths(path: Path, root: Path, options: SourceOptions) -> TableLayout | None:
    """Returns the layout of a table whose audio is where its rows say; None if the folder has to be searched for it.

    The folder of a table may be a whole disk, with millions of other files.
    """
    try:
        layout = recognise_table(path, options.table(), AudioIndex(root, [], [], []))
    except UserError:
        return None
    has_audio = "audio" in layout.columns or "audio" in (layout.header or ())
    return layout if has_audio and not _needs_index(path, layout) else None


def _needs_index(path: Path, layout: TableLayout) -> bool:
    """Returns True if some rows name audio that is found only by a search for its name."""
    root = layout.audio_root or path.parent
    rows = open_rows(path, layout.header, layout.delimiter)
    column = layout.columns.get("audio", "audio")
    if column not in rows.names:
        return False
    place = rows.names.index(column)
    names = (values[place] for _, values in rows.values if not isinstance(values, InvalidEntry))
    return any(isinstance(name, str) and not _is_file(root / name.strip()) for name in names)


def _is_file(path: Path) -> bool:
    """Returns True for a file; a suffix may be missing as for `asrtool prepare table`."""
    return os.path.isfile(path) or not path.suffix and os.path.isfile(find_audio_file(path))


def _folder(path: Path, options: SourceOptions) -> Source:
    plan = plan_folder(path, options.folder())
    if plan.kind == "metadata" and len(plan.files) == 1:
        table = recognise_table(plan.files[0], plan.layout.table, plan.index)
        plan = replace(plan, layout=replace(plan.layout, table=table))
    return _planned(plan, path, options)


def _planned(plan: FolderPlan, path: Path, options: SourceOptions) -> Source:
    layout = plan.layout
    words = ["prepare", "folder", str(path), "OUT"]
    if plan.kind == "metadata" and len(plan.files) == 1:
        words += ["--metadata", str(plan.files[0]), *table_words(replace(layout.table, audio_root=None))]
    elif layout.metadata:
        words += ["--metadata", str(plan.files[0])]
    names = ("text_suffix", "audio_suffix", "name_pattern", "speaker_from")
    for name in names:
        if value := getattr(layout, name):
            words += [f"--{name.replace('_', '-')}", value]
    if options.unlabelled:
        words.append("--unlabelled")
    return Source(plan.kind, path, describe_plan(plan), tuple(words), lambda: read_plan(plan))
