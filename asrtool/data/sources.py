"""The checks of what manifests name before anything opens it: data may name plain files, and nothing that runs.

lhotse reads audio and features from shell commands, addresses and pipes when a manifest asks for it. A manifest of a
stranger must not do that: `require_plain_sources` and `require_plain_path` refuse such sources by name unless the user
gave --allow-commands to this call.
"""

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asrtool.errors import DataError, one_line
from asrtool.text.words import composed

FILE_SOURCES = {"file", "memory", "shar"}  # types of audio sources that read no more than a file
FILE_STORAGE = {  # types of feature storage that read no more than a file
    *("lilcom_chunky", "lilcom_files", "numpy_files", "lilcom_hdf5", "chunked_lilcom_hdf5", "numpy_hdf5"),
    *("memory_lilcom", "memory_raw", "memory_npy", "shar"),
}
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # http:, s3:, pipe:; one letter is a drive
HINT = "if you trust it, give --allow-commands"

_commands_allowed = False  # for this process and the workers that it forks


class InvalidEntry(Exception):
    """A problem of one entry of a manifest, or of its audio or features. The message follows the entry's id."""

    def __str__(self) -> str:
        return one_line(super().__str__())


@contextmanager
def as_data_error() -> Iterator[None]:
    """Turns an InvalidEntry inside it into a DataError, which names the cut."""
    try:
        yield
    except InvalidEntry as problem:
        message = "stopped at unreadable data; check the manifest with `asrtool prepare`"
        raise DataError(message, [str(problem)]) from None


def allow_commands(allowed: bool = True) -> None:
    """Lets manifests name shell commands and addresses, in this process. For the option --allow-commands alone."""
    global _commands_allowed
    _commands_allowed = allowed


def commands_allowed() -> bool:
    """Returns True if this call has --allow-commands."""
    return _commands_allowed


def require_plain_sources(data: dict) -> None:
    """Raises InvalidEntry if a manifest's entry names a shell command, a pipe or an address, unless allowed."""
    if not _commands_allowed:
        for problem in _command_problems(data):
            raise InvalidEntry(problem)


def normalise_text_fields(data: dict) -> None:
    """Brings transcripts and speakers of an entry into one Unicode form, transcripts as units and lexicons have it.

    It is NFC, for transcripts also without invisible characters. Other tools leave both forms of an accented letter in
    their manifests, which look the same and compare as different.
    """
    supervisions = data.get("supervisions")
    for supervision in supervisions if isinstance(supervisions, list) else ():
        if not isinstance(supervision, dict):
            continue
        if isinstance(text := supervision.get("text"), str) and not text.isascii():
            supervision["text"] = composed(text)
        if isinstance(speaker := supervision.get("speaker"), str) and not speaker.isascii():
            supervision["speaker"] = unicodedata.normalize("NFC", speaker)


def require_plain_path(path: str) -> str:
    """Returns `path` if it is a plain file's. Raises InvalidEntry for a shell command or an address, unless allowed."""
    if not _commands_allowed and (problem := _path_problem(path)):
        raise InvalidEntry(problem)
    return path


def _command_problems(value: Any) -> Iterator[str]:
    """Yields a problem for each source that is not a plain file, at any depth of an entry.

    Recordings are also in the fields of transforms, features in custom fields.
    """
    if isinstance(value, dict):
        if isinstance(value.get("sources"), list):
            for source in value["sources"]:
                yield from _source_problems(source)
        if "storage_path" in value or "storage_type" in value:
            yield from _storage_problems(value)
        for key, item in value.items():
            if key not in ("alignment", "sources"):
                yield from _command_problems(item)
    elif isinstance(value, list):
        for item in value:
            yield from _command_problems(item)


def _source_problems(source: Any) -> Iterator[str]:
    kind = source.get("type") if isinstance(source, dict) else None
    if not isinstance(kind, str) or kind not in FILE_SOURCES:
        yield f"its audio source is of type {str(kind)[:30]!r}, which may run a command: {_quoted(source)}; {HINT}"
    elif kind == "file" and (problem := _path_problem(source.get("source"))):
        yield problem


def _storage_problems(features: dict) -> Iterator[str]:
    kind = features.get("storage_type")
    if kind is not None and (not isinstance(kind, str) or kind not in FILE_STORAGE):
        yield f"its features are stored as {str(kind)[:30]!r}, which may run a command; {HINT}"
    path = features.get("storage_path")
    in_memory = str(kind).startswith("memory") or kind == "shar"  # Shar's tar file is named by the manifest's own name
    if path is not None and not in_memory and (problem := _path_problem(path)):
        yield problem


def _path_problem(path: Any) -> str | None:
    if not isinstance(path, str) or not path or "\0" in path:
        return f"not the path of a file: {str(path)[:200]!r}"
    if path.strip().endswith("|") or path.strip().startswith("|") or ADDRESS.match(path):
        return f"a command or an address, not a file: {_quoted(path)}; {HINT}"
    return None


def _quoted(value: Any) -> str:
    return repr(value.get("source") if isinstance(value, dict) else value)[:200]
