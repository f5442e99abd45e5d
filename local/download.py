#!/usr/bin/env python3
"""Download parts of a corpus, language models or lexicons for a recipe, each checked against its published checksum.

  download.py OUT_DIR NAME ... --url URL --sums FILE [--inside FOLDER]

FILE lists the available files as `md5sum` or `sha256sum` write it, with paths below URL; a line that begins with # is a
comment. NAME is one of these files, such as 4-gram.arpa.gz, which becomes OUT_DIR/4-gram.arpa.gz, or an archive without
its .tar.gz, such as train-clean-5. An archive is unpacked: it has to contain FOLDER/NAME (without --inside: NAME),
which becomes OUT_DIR/FOLDER/NAME.

The same command continues an interrupted download, and downloads nothing twice. A complete part has a file
`.completed`, which lhotse's own download also writes.
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports below needs no traceback

import argparse
import functools
import gzip
import hashlib
import http.client
import logging
import os
import re
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from asrtool.errors import UserError, did_you_mean
from asrtool.logs import log_to_stderr, printable
from asrtool.progress import progress
from asrtool.readers import GZIP_ERRORS, read_lines

logger = logging.getLogger("asrtool")

BLOCK = 1 << 20  # bytes
TIMEOUT_SECONDS = 60  # without a byte, after which a connection counts as lost
MAX_TRIES = 10  # each continues where the one before ended; they are for connections lost in a file of 30 GB
ARCHIVE = ".tar.gz"
ALGORITHMS = {32: "md5", 64: "sha256"}  # by the number of hexadecimal digits
ALGORITHM_NAMES = {"md5": "MD5", "sha256": "SHA-256"}


@dataclass(frozen=True)
class RemoteFile:
    """A line of a file of checksums."""

    path: str  # below the URL
    checksum: str


def read_checksums(path: Path) -> dict[str, RemoteFile]:
    """Returns the files of a file of checksums by name; an archive is named without its .tar.gz.

    Raises UserError if the file is missing or a line is not a checksum and a path.
    """
    files = {}
    for number, text in enumerate(read_lines(path, "file of checksums", "give --sums FILE"), 1):
        line = text.rstrip("\n")
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([0-9a-f]{32}|[0-9a-f]{64})  (\S+)", line)
        if match is None:
            raise UserError(f"{path}:{number}: not a line of md5sum or sha256sum: {line[:80]}")
        files[Path(match[2]).name.removesuffix(ARCHIVE)] = RemoteFile(path=match[2], checksum=match[1])
    return files


def fetch(url: str, path: Path, checksum: str) -> None:
    """Downloads `url` to `path`. Until it is complete and its checksum is right, the file has the suffix `.part`.

    Raises UserError if the server cannot be reached, or has another file.
    """
    part = path.with_name(f"{path.name}.part")
    algorithm = ALGORITHMS[len(checksum)]
    for _ in range(MAX_TRIES):
        size_before = _size(part)
        problem: Exception | None = None
        try:
            _continue_download(url, part)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: the URL is none
            problem = error
        if problem is None and _checksum(part, algorithm) == checksum:
            os.replace(part, path)
            return
        has_grown = _size(part) != size_before
        if problem is not None and not has_grown:
            raise UserError(f"cannot download {url} ({problem}); the same command tries again, --mirror takes another")
        if problem is None and not has_grown:  # it is complete, so that something in it is wrong
            part.unlink()
    part.unlink(missing_ok=True)
    name = ALGORITHM_NAMES[algorithm]
    raise UserError(f"{url} does not have the {name} sum {checksum}; was it replaced, or is the mirror broken?")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue_download(url: str, part: Path) -> None:
    """Appends to `part` what it lacks; a server that cannot send from the middle sends everything again."""
    size = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={size}-"} if size else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            length = int(response.headers.get("Content-Length") or 0)
            with open(part, "ab" if response.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
                for block in _blocks(response, f"downloading {part.stem}", length):
                    file.write(block)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # which means that the file is complete
            raise


def _checksum(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        for block in _blocks(cast(BinaryIO, file), f"checking {path.stem}", _size(path)):
            digest.update(block)
    return digest.hexdigest()


def _blocks(file: BinaryIO, what: str, size: int) -> Iterator[bytes]:
    """Yields the rest of a file, with progress; `size` in bytes, 0 if unknown."""
    return progress(iter(functools.partial(file.read, BLOCK), b""), what, -(-size // BLOCK) or None, "MiB")


def unpack(archive: Path, folder: Path, out: Path) -> None:
    """Unpacks an archive that contains `folder` into out/folder, and removes the archive.

    Raises UserError for a damaged archive, and tarfile.FilterError for a member outside of `out`, such as ../x, an
    absolute path, or behind a link.
    """
    shutil.rmtree(out / folder, ignore_errors=True)  # an unpacking that was interrupted
    try:
        with gzip.open(archive) as file:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                tar.extractall(out, members=progress(tar, f"unpacking {archive.name}", units="files"), filter="data")
            while file.read(BLOCK):  # to the end, where gzip has its checksum
                pass
    except (tarfile.ReadError, *GZIP_ERRORS) as error:
        raise UserError(f"{archive} is damaged ({error}); remove it and run the same command again") from error
    if not (out / folder).is_dir():
        raise UserError(f"{archive} holds no {folder}; remove it and run the same command again")
    (out / folder / ".completed").touch()
    archive.unlink()


def download(name: str, out: Path, options: argparse.Namespace, files: dict[str, RemoteFile]) -> None:
    """Downloads the part or file `name` into `out` unless it is there. UserError as of `fetch`, and for other names."""
    if name not in files:
        raise UserError(f"there is no '{name}' to download; {did_you_mean(name, files)}")
    remote = files[name]
    path = out / Path(remote.path).name
    folder = options.inside / name
    url = f"{options.url.rstrip('/')}/{remote.path}"
    if not path.exists() and not (out / folder / ".completed").exists():
        logger.info(url)
        fetch(url, path, remote.checksum)
    if remote.path.endswith(ARCHIVE) and path.exists():
        unpack(path, folder, out)


def require_safe_tar() -> None:
    """Raises UserError for a Python without the filter that keeps the members of an archive in their folder."""
    if not hasattr(tarfile, "data_filter"):  # Python 3.11 has it from 3.11.4 on
        raise UserError(f"Python {sys.version.split()[0]} cannot unpack archives safely; use 3.11.4 or newer")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(prog="download.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="folder for the files")
    parser.add_argument("names", nargs="+", metavar="NAME", help="file, or archive without its .tar.gz")
    parser.add_argument("--url", required=True, help="address of the files, such as https://www.openslr.org/resources")
    parser.add_argument(
        "--sums", type=Path, required=True, metavar="FILE", help="list of the available files and their checksums"
    )
    parser.add_argument("--inside", type=Path, default=Path(), metavar="FOLDER", help="folder inside the archives")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse_arguments(arguments)
    try:
        require_safe_tar()
        options.out.mkdir(parents=True, exist_ok=True)
        files = read_checksums(options.sums)
        for name in options.names:
            download(name, options.out, options, files)
    except UserError as error:
        return _report(f"error: {error}", error.exit_status)
    except (OSError, tarfile.TarError) as error:  # disk full, no permission
        return _report(f"error: {error}; the same command goes on from here", 2)
    except KeyboardInterrupt:
        return _report("interrupted; the same command goes on from here", 130)
    return 0


def _report(message: str, status: int) -> int:
    print(printable(f"download.py: {message}"), file=sys.stderr)
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log_to_stderr()
    sys.exit(main())
