"""The audio files of a folder and all folders below it, and where a file is that a transcript names."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError

# Suffixes of files that libsndfile reads, which reads audio for training.
AUDIO_SUFFIXES = (
    *(".flac", ".wav", ".wave", ".sph", ".opus", ".ogg", ".oga", ".mp3"),
    *(".aiff", ".aif", ".au", ".caf", ".w64", ".nist"),
)
# Suffixes of files that only FFmpeg reads: they can be recognised, but not trained on.
MEDIA_SUFFIXES = (".m4a", ".mp4", ".aac", ".webm", ".wma", ".amr", ".3gp", ".mkv", ".mov", ".avi")
MAX_FILES = 20_000_000  # of a folder, beyond which it is not a corpus but a disk


@dataclass(frozen=True)
class AudioIndex:
    """The files below `root`, in the order of their paths."""

    root: Path
    audio: list[Path]  # that can be trained on
    media: list[Path]  # that have to be converted first
    others: list[Path] = field(repr=False)  # all other files, e.g. texts
    transcript_folders: frozenset[Path] = frozenset()  # of several tables or files of lines "NAME TEXT"

    def find(self, name: str, foreign: tuple[str, ...] = ()) -> Path:
        """Returns the audio file that a transcript calls `name`: a path, a file's name, or one without its suffix.

        A path starts at `root`, or is the end of the file's path; the folders `foreign`, with which it may begin, do
        not count. Raises InvalidEntry if the file does not exist, or if several folders have one.
        """
        path = self.root / name
        if os.path.isfile(path):
            return path
        own = Path(name)
        if foreign and own.parts[: len(foreign)] == foreign:
            own = Path(*own.parts[len(foreign) :])
        folders = own.parent.parts
        for key in (own.name, stem(own)):
            files = self._by_name.get(key, [])
            if folders:
                files = [file for file in files if file.parent.parts[-len(folders) :] == folders]
            if len(files) > 1:
                raise InvalidEntry(f"several files are called {name}: {files[0]}, {files[1]}; name the folder, too")
            if files:
                return files[0]
        raise InvalidEntry(f"no such audio file: {name}, below {self.root}")

    def find_all(
        self, names: Iterable[str], folder: Path, locate: Callable[[str], Path | None]
    ) -> dict[str, Path | InvalidEntry]:
        """Returns the audio file of each name in a table or file of transcripts in `folder`, or why it has none.

        `locate` returns the file where the name says that it is, or None. Other names are searched for in the corpus.
        A file that was searched for belongs to one name only, and not to a folder with transcripts of its own: the
        file of a name may be missing, and another recording have the same name.
        """
        names = set(names)
        files: dict[str, Path | InvalidEntry] = {}
        foreign = self.foreign_folders(names)
        searched: set[str] = set()
        for name in names:
            located = locate(name)
            if located is None:
                searched.add(name)
            files[name] = located or self._search(name, folder, foreign)
        names_of: dict[str, set[str]] = defaultdict(set)
        for name, file in files.items():
            if isinstance(file, Path):
                names_of[os.path.abspath(file)].add(name)
        for name in searched:
            file = files[name]
            if isinstance(file, Path) and (others := names_of[os.path.abspath(file)] - {name}):
                problem = f"no such audio file: {name}; the only one of this name, {file}, is called {min(others)}, too"
                files[name] = InvalidEntry(problem)
        return files

    def _search(self, name: str, folder: Path, foreign: tuple[str, ...]) -> Path | InvalidEntry:
        try:
            file = self.find(name, foreign)
        except InvalidEntry as problem:
            return problem
        owner = next((parent for parent in file.parents if parent in self.transcript_folders), folder)
        if len(Path(name).parts) == 1 and owner != folder:
            return InvalidEntry(f"no such audio file: {name}; {file} has transcripts of its own in {owner}")
        return file

    def foreign_folders(self, names: Iterable[str]) -> tuple[str, ...]:
        """Returns the first folders of all `names` that have folders, as far as the corpus has no folder of this name.

        They are of the machine where the transcripts were written.
        """
        folders = [parts for name in names if (parts := Path(name).parent.parts)]
        common = os.path.commonprefix(folders) if folders else ()
        return tuple(takewhile(lambda part: part not in self._folder_names, common))

    @cached_property
    def _folder_names(self) -> set[str]:
        folders = {path.parent for path in (*self.audio, *self.media)}
        return {part for folder in folders for part in folder.relative_to(self.root).parts}

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """The files by their names with and without suffix."""
        files: dict[str, list[Path]] = defaultdict(list)
        for path in (*self.audio, *self.media):
            files[path.name].append(path)
            if stem(path) != path.name:
                files[stem(path)].append(path)
        return files


def stem(path: Path) -> str:
    """Returns the name of an audio file without its suffix; a dot that does not begin one is part of the name."""
    return path.stem if path.suffix.lower() in (*AUDIO_SUFFIXES, *MEDIA_SUFFIXES) else path.name


def audio_in(folder: Path, name: str) -> Path | None:
    """Returns the audio file `name`, with or without its suffix, that a folder has; None without."""
    paths = (folder / (name + suffix) for suffix in ("", *AUDIO_SUFFIXES))
    return next((path for path in paths if os.path.isfile(path)), None)


def scan_folder(root: Path, audio_suffix: str | None = None) -> AudioIndex:
    """Returns the files of a folder, links included. With `audio_suffix` only such files are audio."""
    index = AudioIndex(root, [], [], [])
    for path in _files(root):
        suffix = path.suffix.lower()
        is_audio = suffix == audio_suffix.lower() if audio_suffix else suffix in AUDIO_SUFFIXES
        if is_audio:
            index.audio.append(path)
        elif suffix in MEDIA_SUFFIXES and not audio_suffix:
            index.media.append(path)
        else:
            index.others.append(path)
    return index


def _files(root: Path) -> Iterator[Path]:
    """Yields the files below a folder in the order of their paths; hidden files and folders are left out."""
    visited: set[tuple[int, int]] = set()
    count = 0
    for folder, subfolders, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:  # a link to a folder that contains it
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                count += 1
                if count > MAX_FILES:
                    raise UserError(f"{root} has more than {MAX_FILES:,} files; name the corpus's own folder")
                yield Path(folder, name)


def media_problem(path: Path) -> str:
    """Says that a file has to be converted before a model can be trained on it."""
    return f"{path}: {path.suffix} cannot be read for training; convert it: ffmpeg -i {path.name} {path.stem}.flac"


def unique_names(paths: Iterable[Path], root: Path) -> dict[Path, str]:
    """Returns an id for each audio file: its name without suffix, or its path below `root` if names repeat."""
    paths = list(paths)
    by_stem: dict[str, int] = defaultdict(int)
    for path in paths:
        by_stem[stem(path)] += 1
    return {path: _id(path, root, by_stem[stem(path)] > 1) for path in paths}


def _id(path: Path, root: Path, with_folders: bool) -> str:
    name = stem(path)
    if with_folders:
        folders = path.relative_to(root).parent.parts if path.is_relative_to(root) else (path.parent.name,)
        name = "-".join((*folders, name))
    return re.sub(r"\s+", "_", name)
