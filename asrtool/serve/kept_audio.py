"""The folder of --keep-audio: what was sent, and what was recognised. Without the option, nothing is stored."""

import json
import logging
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asrtool.errors import UserError
from asrtool.files import atomic_path
from asrtool.serve.messages import StartMessage

logger = logging.getLogger(__name__)

SUBTYPES = {"s16le": "PCM_16", "f32le": "FLOAT"}
HEADER_BYTES = 128  # of a WAV file, at most


class AudioKeeper:
    """Stores recordings as NAME.wav or NAME.audio with NAME.json, up to `max_bytes` in the folder.

    A full folder or disk stores no more, which is logged once; streams and uploads go on. Only the results of streams
    whose audio is stored already are still written to a full folder. Any thread may call the methods, which wait for
    the disk.
    """

    def __init__(self, folder: Path | None, max_bytes: int):
        self.folder = folder
        self._left = max_bytes
        self._lock = threading.Lock()
        if folder is None:
            return
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._left -= sum(map(_size, folder.iterdir()))
        except OSError as error:
            raise UserError(f"--keep-audio {folder}: {error.strerror}; give a folder that can be written") from error
        if folder.stat().st_mode & 0o077:  # the folder is older than this server, and its mode the user's choice
            logger.warning(f"--keep-audio: other users may read {folder}; `chmod 700` prevents it")

    def take(self, num_bytes: int) -> bool:
        """Counts bytes that will be stored; returns False if the folder has no place for them."""
        with self._lock:
            if self.folder is None or self._left < 0:
                return False
            self._left -= num_bytes
            if self._left < 0:
                logger.warning(f"--keep-audio: {self.folder} is full; no further audio is stored")
            return self._left >= 0

    def open_stream(self, name: str, start: StartMessage) -> "KeptStream | None":
        """Returns what stores a stream; None if nothing is stored."""
        if self.folder is None or not self.take(0):
            return None
        return KeptStream(self, self.folder / _file_name("stream", name), start)

    def keep_upload(self, name: str, file: Path, result: dict[str, Any]) -> None:
        """Stores the file of an upload as it was sent, and its result."""
        text = _json_text(result)
        if self.folder is None or not self.take(file.stat().st_size + len(text.encode())):
            return
        path = self.folder / _file_name("upload", name)
        try:
            with atomic_path(path.with_suffix(".audio")) as temporary:
                shutil.copyfile(file, temporary)
            _write_json(path, text)
        except (OSError, UserError) as error:
            logger.warning(f"--keep-audio: the upload {name} is not stored: {error}")


class KeptStream:
    """A WAV file that grows with a stream, and its results; a stream without audio has neither.

    `close` may come while another thread writes.
    """

    def __init__(self, keeper: AudioKeeper, path: Path, start: StartMessage):
        self._keeper = keeper
        self._path = path
        self._results: list[dict[str, Any]] = []
        self._start = start
        self._file: soundfile.SoundFile | None = None  # until the first samples
        self._is_open = True
        self._lock = threading.Lock()

    def write(self, samples: np.ndarray) -> None:
        """Adds samples (n, channels)."""
        with self._lock:
            self._write(samples)

    def _write(self, samples: np.ndarray) -> None:
        if not self._is_open:
            return
        num_bytes = samples.nbytes + (0 if self._file else HEADER_BYTES)
        try:
            if self._keeper.take(num_bytes):
                self._file = self._file or self._new_file()
                self._file.write(samples)
                return
        except (OSError, soundfile.LibsndfileError) as error:
            logger.warning(f"--keep-audio: {self._path}.wav ends early: {error}")
        self._end()

    def _new_file(self) -> soundfile.SoundFile:
        wav = self._path.with_suffix(".wav")
        return soundfile.SoundFile(wav, "w", self._start.rate, self._start.channels, SUBTYPES[self._start.format])

    def add_result(self, message: dict[str, Any]) -> None:
        """Adds a final result."""
        self._results.append(message)

    def close(self, outcome: str) -> None:
        """Ends the file, and writes the results to a file of the same name."""
        with self._lock:
            self._end()
        if self._file is None:
            return
        text = _json_text({"outcome": outcome, "start": self._start.model_dump(), "results": self._results})
        self._keeper.take(len(text.encode()))
        try:
            _write_json(self._path, text)
        except (OSError, UserError) as error:
            logger.warning(f"--keep-audio: {self._path}.json is not written: {error}")

    def _end(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._file is None:
            return
        try:
            self._file.close()
        except (OSError, soundfile.LibsndfileError) as error:
            logger.warning(f"--keep-audio: {self._path}.wav is not complete: {error}")


def _size(file: Path) -> int:
    """Returns the size of a file; 0 if another server that stores in the folder has renamed or removed it."""
    try:
        return file.lstat().st_size
    except FileNotFoundError:
        return 0


def _file_name(kind: str, name: str) -> str:
    """Returns a name that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{kind}-{name}"


def _json_text(tree: dict[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _write_json(path: Path, text: str) -> None:
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(text, encoding="utf-8")
