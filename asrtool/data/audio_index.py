"""The audio files of a folder and all folders below it, and where a file is that a transcript names."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
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

    def find(self, name: str) -> Path:
        """Returns the audio file that a transcript calls `name`: a path, a file's name, or one without its suffix.

        Raises InvalidEntry if there is none, or if several folders have such a file.
        """
        path = self.root / name
        if os.path.isfile(path):
            return path
        files = self._by_name.get(Path(name).name) or self._by_name.get(stem(Path(name))) or []
        if not files:
            raise InvalidEntry(f"no such audio file: {name}, below {self.root}")
        if len(files) > 1:
            end = f"/{Path(name).as_posix()}"
            ends = [file for file in files if f"{file.parent.as_posix()}/{stem(file)}".endswith(end)]
            ends = ends or [file for file in files if file.as_posix().endswith(end)]
            if len(ends) == 1:
                return ends[0]
            raise InvalidEntry(f"several files are called {name}: {files[0]}, {files[1]}; name the folder, too")
        return files[0]

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
        name = "-".join((*path.relative_to(root).parent.parts, name))
    return re.sub(r"\s+", "_", name)
