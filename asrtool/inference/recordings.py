"""Which recordings a command is to transcribe: files, folders with all that is below them, lists of paths, stdin."""

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.data.audio import ADDRESS_HINT, is_address
from asrtool.errors import DataError, UserError
from asrtool.files import utf8_path
from asrtool.readers import read_lines

logger = logging.getLogger(__name__)

STDIN = Path("-")
RECORDING_SUFFIXES = frozenset(
    [
        *(".wav", ".wave", ".w64", ".rf64", ".bwf", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".spx", ".aiff"),
        *(".aif", ".aifc", ".au", ".snd", ".sph", ".caf", ".m4a", ".m4b", ".aac", ".ac3", ".wma", ".amr", ".mka"),
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".3gp", ".3g2", ".ogv"),
    ]
)
# First bytes of files without such a suffix: containers that hold audio or video, whatever else is in them.
SIGNATURES = (b"RF64", b"fLaC", b"OggS", b"ID3", b".snd", b"NIST_1A", b"caff", b"riff", b"\x1a\x45\xdf\xa3")
# At byte 8 of files of chunks, and after "ftyp" of MP4, whose other brands are pictures
CHUNK_KINDS = {b"RIFF": (b"WAVE", b"AVI "), b"FORM": (b"AIFF", b"AIFC")}
MP4_BRANDS = (b"M4A", b"M4B", b"M4V", b"iso", b"mp4", b"qt ", b"3gp", b"3g2", b"dash", b"avc1", b"f4v")
NUM_NAMED = 3  # files that are not audio, in a summary line


@dataclass(frozen=True)
class Recording:
    """A recording to transcribe.

    path: its file, or STDIN. folder: the sub-folder of a given folder in which it lies, "." for a file that was given
    itself. is_stream: True for standard input and named pipes, which can be read once only.
    """

    path: Path
    folder: Path = Path()
    is_stream: bool = False

    @property
    def name(self) -> str:
        """The name without the suffix of audio; another suffix, as in `talk.2026-01-31`, is a part of the name."""
        if self.path == STDIN:
            return "stdin"
        path = self.path
        return path.stem if path.suffix.lower() in RECORDING_SUFFIXES else path.name

    def __str__(self) -> str:
        return "standard input" if self.path == STDIN else str(self.path)


@dataclass
class Found:
    """The recordings that were found, and what cannot be read: "NAME: reason".

    others: the files of each given folder that are not audio.
    """

    recordings: list[Recording] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    others: dict[Path, list[Path]] = field(default_factory=dict)


def find_recordings(paths: Sequence[Path], list_file: Path | None = None) -> Found:
    """Returns the recordings that `paths` and the lines of `list_file` name, each once, in their order.

    A folder stands for the audio and video files below it, by suffix or by their first bytes; hidden files and
    folders are left out, and links to folders are not followed. The other files of a folder are counted in a log line.

    Raises UserError where there is nothing to read, and DataError where nothing of it can be read.
    """
    chosen = [*paths, *(_listed(list_file) if list_file else ())]
    if not chosen:
        where = f"{list_file} names none" if list_file else "give files, folders, or - for standard input"
        raise UserError(f"no recording to transcribe: {where}")
    found = Found()
    seen: set[str] = set()
    for path in chosen:
        for recording in _recordings_of(path, found):
            key = os.path.abspath(recording.path) if recording.path != STDIN else "-"
            if key not in seen:
                seen.add(key)
                found.recordings.append(recording)
    _require_recordings(found, chosen)
    for folder, files in found.others.items():
        if files:
            logger.info(utf8_path(_describe_others(folder, files)))
    return found


def _require_recordings(found: Found, chosen: Sequence[Path]) -> None:
    """Raises an error if no recording was found."""
    if found.recordings:
        return
    if found.problems:
        raise DataError("no recording can be read", found.problems)
    names = ", ".join(str(path) for path in chosen[:NUM_NAMED])
    raise UserError(f"no audio or video in {names}; give MODEL first, then files, or a folder that has some")


def _listed(list_file: Path) -> Iterator[Path]:
    """Yields the paths of a text file, one a line. Empty lines and those that begin with # are comments."""
    for line in read_lines(list_file, "list of recordings", "give a text file with a path in each line"):
        name = line.rstrip("\n")
        if name.strip() and not name.startswith("#"):
            yield Path(name)


def _recordings_of(path: Path, found: Found) -> Iterator[Recording]:
    """Yields what a path that was given stands for; adds to the problems and others of `found`."""
    if path == STDIN:
        yield Recording(path, is_stream=True)
        return
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        found.problems.append(_unreadable(path, error))
        return
    if stat.S_ISDIR(mode):
        yield from _recordings_below(path, found)
    else:
        yield Recording(path, is_stream=not stat.S_ISREG(mode))


def _recordings_below(top: Path, found: Found) -> Iterator[Recording]:
    others = found.others.setdefault(top, [])

    def add_problem(error: OSError) -> None:
        found.problems.append(_unreadable(Path(error.filename), error))

    for folder, subfolders, names in os.walk(top, onerror=add_problem):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith("."):
                continue
            try:
                is_audio = _is_audio(path)
            except OSError as error:
                found.problems.append(_unreadable(path, error))
                continue
            if is_audio:
                yield Recording(path, path.parent.relative_to(top))
            else:
                others.append(path)


def _is_audio(path: Path) -> bool:
    """Returns True for a file that holds audio, as its suffix or its first bytes say. Raises OSError."""
    has_suffix = path.suffix.lower() in RECORDING_SUFFIXES
    if not stat.S_ISREG(os.stat(path).st_mode):
        if has_suffix:
            raise OSError(None, "not a regular file", str(path))
        return False  # a pipe or socket is not opened: reading could wait for ever
    if has_suffix:
        return True
    with open(path, "rb") as file:
        return is_audio_header(file.read(12))


def is_audio_header(start: bytes) -> bool:
    """Returns True if a file with these first 12 bytes is a container of audio or video.

    MP3 without an ID3 tag is not recognised: its two fixed bytes begin many other files.
    """
    if start[4:8] == b"ftyp":
        return start[8:12].startswith(MP4_BRANDS)
    kinds = CHUNK_KINDS.get(start[:4])
    return start[8:12] in kinds if kinds else start.startswith(SIGNATURES)


def _unreadable(path: Path, error: OSError | ValueError) -> str:
    if is_address(path):
        reason = ADDRESS_HINT
    elif isinstance(error, FileNotFoundError):
        reason = "a link to a file that is not there" if os.path.islink(path) else "no such file or folder"
    else:
        reason = getattr(error, "strerror", None) or str(error)
    return f"{path}: {reason}"


def _describe_others(folder: Path, paths: Sequence[Path]) -> str:
    names = ", ".join(str(path.relative_to(folder)) for path in paths[:NUM_NAMED])
    rest = f" and {len(paths) - NUM_NAMED} more" if len(paths) > NUM_NAMED else ""
    count = "1 file that is" if len(paths) == 1 else f"{len(paths)} files that are"
    return f"{folder}: skipped {count} not audio: {names}{rest}"
