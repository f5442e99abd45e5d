"""Reader of folders of audio files.

The transcripts are in text files beside the audio, in a table, in files of lines "NAME TEXT" (LibriSpeech's
*.trans.txt), or in the names of the files. asrtool/data/folder_plan.py recognises which.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from asrtool.data.audio_index import AudioIndex, audio_in, media_problem, stem, unique_names
from asrtool.data.audio_names import NamePattern
from asrtool.data.corpora import Utterance, read_key_values
from asrtool.data.folder_plan import FolderLayout, FolderPlan, plan_folder
from asrtool.data.sources import InvalidEntry
from asrtool.data.table_guess import recognise_table
from asrtool.data.tables import TableReader
from asrtool.errors import UserError
from asrtool.readers import read_lines

NOT_TEXTS = re.compile(r"(readme|licen[sc]e|copying|changelog|credits|about|speakers|md5|sha)", re.IGNORECASE)
MAX_TEXT_BYTES = 1 << 20  # of a transcript
TRN_NAME = re.compile(r"\s*\([^()]*\)\s*$")  # the id at the end of a line of NIST's .trn


def read_folder(folder: Path, layout: FolderLayout | None = None) -> Iterator[Utterance | str]:
    """Yields the utterances of a folder of audio, and a line for each problem, e.g. audio without a transcript.

    Raises UserError that names the option where it is not clear which files hold the transcripts.
    """
    yield from read_plan(plan_folder(folder, layout or FolderLayout()))


def read_plan(plan: FolderPlan) -> Iterator[Utterance | str]:
    """Yields the utterances of a planned folder, and a line for each problem."""
    readers = {"metadata": _read_tables, "keys": _read_keys, "texts": _read_texts}
    rows = readers.get(plan.kind, _read_names)(plan)
    pattern = NamePattern(plan.layout.name_pattern) if plan.layout.name_pattern else None
    for row in rows:
        yield _with_speaker(row, plan, pattern) if isinstance(row, Utterance) else row


def _with_speaker(row: Utterance, plan: FolderPlan, pattern: NamePattern | None) -> Utterance:
    """Returns an utterance with the speaker and id of its name's pattern, or else the speaker of its folder's name."""
    path = Path(row.audio)
    if pattern and path.is_relative_to(plan.index.root):
        fields = pattern.match(path, plan.index.root) or {}
        row = replace(row, speaker=fields.get("speaker", row.speaker), id=fields.get("id", row.id))
    if plan.layout.speaker_from == "folder" and not row.speaker and path.parent != plan.index.root:
        return replace(row, speaker=path.parent.name)
    return row


def _read_tables(plan: FolderPlan) -> Iterator[Utterance | str]:
    """Yields the utterances of tables, and audio that no row names: without a transcript, or as a problem.

    With --metadata, it is not listed: the table of one set does not name the audio of the others in the same folder.
    """
    index = _with_transcript_folders(plan)
    layout = replace(plan.layout.table, unlabelled=plan.layout.unlabelled)
    named: set[Path] = set()
    for file in plan.files:
        reader = TableReader(file, recognise_table(file, layout, index))
        yield from reader.utterances()
        named |= reader.named
    if plan.layout.metadata is None or plan.layout.unlabelled:
        yield from _unnamed(plan, named, "row")


def _read_keys(plan: FolderPlan) -> Iterator[Utterance | str]:
    """Yields the utterances of files of lines "NAME TEXT", and a problem for audio that no line names."""
    index = _with_transcript_folders(plan)
    rows: list[tuple[Path, int, str, str, Path | InvalidEntry]] = []  # file, number of the line, name, text, audio
    for file in plan.files:
        lines = list(read_key_values(file))
        audio_of = index.find_all((name for _, name, _ in lines), file.parent, partial(audio_in, file.parent))
        rows += [(file, number, name, text, audio_of[name]) for number, name, text in lines]
    named = dict.fromkeys(audio for *_, audio in rows if not isinstance(audio, InvalidEntry))
    ids = unique_names(named, plan.index.root)
    for file, number, name, text, audio in rows:
        where = f"{file}:{number}"
        if isinstance(audio, InvalidEntry):
            yield f"{where}: {audio}"
        else:
            yield Utterance(ids[audio], str(audio), text, _librispeech_speaker(file, name), where=where)
    yield from _unnamed(plan, named, "line")


def _with_transcript_folders(plan: FolderPlan) -> AudioIndex:
    return replace(plan.index, transcript_folders=frozenset(file.parent for file in plan.files))


def _unnamed(plan: FolderPlan, named: Collection[Path], what: str) -> Iterator[Utterance | str]:
    """Yields audio that no row or line names: as an utterance without a transcript if such are taken, or a problem."""
    files = f"{plan.files[0].name} and {len(plan.files) - 1} more" if len(plan.files) > 1 else str(plan.files[0])
    known = set(map(os.path.abspath, named))
    ids = unique_names(plan.index.audio, plan.index.root)
    for path in plan.index.audio:
        if os.path.abspath(path) not in known:
            yield _without_text(path, ids[path], plan, f"no {what} in {files}")


def _without_text(path: Path, name: str, plan: FolderPlan, problem: str) -> Utterance | str:
    """Returns an utterance without a transcript if such are taken, else the problem."""
    if plan.layout.unlabelled:
        return Utterance(name, str(path), "", where=str(path))
    return f"{path}: {problem}"


def _librispeech_speaker(file: Path, name: str) -> str | None:
    """Returns the speaker of LibriSpeech's names, 1088-134315-0001 in 1088-134315.trans.txt; None for others."""
    chapter = file.name.removesuffix(".trans.txt")
    is_librispeech = re.fullmatch(r"\d+[-_]\d+", chapter) and name.startswith(chapter)
    return re.split("[-_]", chapter)[0] if is_librispeech else None


def _read_texts(plan: FolderPlan) -> Iterator[Utterance | str]:
    """Yields the utterances of audio with a text file each, and a problem for each one without the other."""
    suffix = str(plan.layout.text_suffix)
    texts = [path for path in plan.index.others if path.name.endswith(suffix)]
    texts_of_audio = _texts_of_audio(plan.index, texts, suffix)
    names = unique_names(plan.index.audio, plan.index.root)
    for path in plan.index.audio:
        text_file = texts_of_audio.get(path)
        if text_file is None:
            yield _without_text(path, names[path], plan, f"no text file {stem(path)}{suffix}")
            continue
        text = _read_text(text_file)
        yield text if isinstance(text, str) else Utterance(names[path], str(path), text[0], where=str(text_file))
    yield from (media_problem(path) for path in plan.index.media)
    used = set(texts_of_audio.values())
    for path in texts:
        if path not in used and not NOT_TEXTS.match(path.name):
            yield f"{path}: a text without an audio file"


def _texts_of_audio(index: AudioIndex, texts: Sequence[Path], suffix: str) -> dict[Path, Path]:
    """Returns the text files of the audio files that have one: next to it, or the only one of its name elsewhere.

    Folders that have audio next to its texts keep to themselves: a text that is missing there is not taken from
    another folder, and a text there is not of audio elsewhere. Nor is a text elsewhere the one of two audio files.
    """
    beside = {path.with_name(path.name.removesuffix(suffix)): path for path in texts}
    audio = [*index.audio, *index.media]
    found = {path: beside[key] for path in audio if (key := path.parent / stem(path)) in beside}
    paired_folders = {path.parent for path in found}
    texts_elsewhere: dict[str, list[Path]] = defaultdict(list)
    for key, path in beside.items():
        if path.parent not in paired_folders:
            texts_elsewhere[key.name].append(path)
    others = [path for path in audio if path.parent not in paired_folders]
    counts = Counter(map(stem, others))
    for path in others:
        candidates = texts_elsewhere[stem(path)]
        if len(candidates) == counts[stem(path)] == 1:
            found[path] = candidates[0]
    return found


def _read_text(file: Path) -> tuple[str] | str:
    """Returns the transcript in a file, in a tuple, or what is wrong with it."""
    try:
        if file.stat().st_size > MAX_TEXT_BYTES:
            return f"{file}: more than {MAX_TEXT_BYTES >> 20} MB, too long for a transcript of one utterance"
        text = " ".join(line.strip() for line in read_lines(file, "transcript"))
    except (UserError, OSError) as problem:
        return str(problem)
    if file.suffix == ".trn":
        text = TRN_NAME.sub("", text)
    return (text.strip(),) if text.strip() else f"{file}: empty transcript"


def _read_names(plan: FolderPlan) -> Iterator[Utterance | str]:
    """Yields the utterances of audio whose names hold the transcripts, or that has none."""
    names = unique_names(plan.index.audio, plan.index.root)
    pattern = NamePattern(plan.layout.name_pattern) if plan.layout.name_pattern else None
    for path in plan.index.audio:
        fields = pattern.match(path, plan.index.root) if pattern else {}
        if fields is None:
            yield f"{path}: its name does not fit the pattern {plan.layout.name_pattern}"
        else:
            yield Utterance(names[path], str(path), fields.get("text", ""), where=str(path))
    yield from (media_problem(path) for path in plan.index.media)
