#!/usr/bin/env python3
"""Download parts of a corpus, language models or lexicons for a recipe, each checked against its published checksum.

  download.py OUT_DIR NAME ... --url URL --sums FILE [--inside FOLDER]

FILE lists what there is as `md5sum` or `sha256sum` write it, with paths below URL; a line that begins with # is a
comment. NAME is one of these files, such as 4-gram.arpa.gz, which becomes OUT_DIR/4-gram.arpa.gz, or an archive without
its .tar.gz, such as train-clean-5. An archive is unpacked: it has to hold FOLDER/NAME (without --inside: NAME), which
becomes OUT_DIR/FOLDER/NAME.

The same command continues an interrupted download, and leaves alone what is there. A finished part is marked by a file
`.completed`, as lhotse's own download marks it.
"""

import logging
import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports below needs no traceback

import argparse
import functools
import hashlib
import http.client
import os
import re
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from asrtool.errors import UserError, did_you_mean, require_file
from asrtool.logs import log_to_stderr
from asrtool.progress import progress

logger = logging.getLogger("asrtool")

BLOCK = 1 << 20  # bytes
SILENCE = 60  # seconds without a byte after which a connection counts as lost
TRIES = 10  # each goes on where the one before ended, so that these are for connections lost in a file of 30 GB
ARCHIVE = ".tar.gz"
ALGORITHMS = {32: "md5", 64: "sha256"}  # by the number of hexadecimal digits


def read_sums(path: Path) -> dict[str, tuple[str, str]]:
    """{name: (path below the URL, checksum)} of a file of checksums; an archive goes by the name of its part.

    Raises UserError when the file is missing or a line is no checksum and path.
    """
    lines = require_file(path, "file of checksums", "give --sums FILE").read_text(encoding="utf-8").split("\n")
    found = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([0-9a-f]{32}|[0-9a-f]{64})  (\S+)", line)
        if match is None:
            raise UserError(f"{path}:{number}: not a line of md5sum or sha256sum: {line[:80]}")
        found[Path(match[2]).name.removesuffix(ARCHIVE)] = (match[2], match[1])
    return found


def fetch(url: str, path: Path, checksum: str) -> None:
    """Download `url`. The file has the name `path` once it is whole and right; until then `.part` is added.

    Raises UserError when the server cannot be reached, or has something else.
    """
    part = path.with_name(f"{path.name}.part")
    for _ in range(TRIES):
        before, problem = _size(part), None
        try:
            _go_on(url, part)
        except (OSError, http.client.HTTPException) as error:
            problem = error
        if problem is None and _checksum(part, ALGORITHMS[len(checksum)]) == checksum:
            os.replace(part, path)
            return
        if problem is not None and _size(part) == before:
            raise UserError(f"cannot download {url} ({problem}); the same command tries again, --mirror takes another")
        if problem is None and _size(part) == before:  # all is there, so that something in it is wrong
            part.unlink()
    part.unlink(missing_ok=True)
    name = {"md5": "MD5", "sha256": "SHA-256"}[ALGORITHMS[len(checksum)]]
    raise UserError(f"{url} has not the {name} sum {checksum}; was it replaced, or is the mirror broken?")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _go_on(url: str, part: Path) -> None:
    """Append to `part` what it lacks; a server that cannot send from the middle sends everything anew."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=SILENCE) as response:
            left = int(response.headers.get("Content-Length") or 0)
            with open(part, "ab" if response.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
                for block in _blocks(response, f"downloading {part.stem}", left):
                    file.write(block)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # which means that nothing is lacking
            raise


def _checksum(path: Path, algorithm: str) -> str:
    found = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        for block in _blocks(file, f"checking {path.stem}", _size(path)):
            found.update(block)
    return found.hexdigest()


def _blocks(file: BinaryIO, what: str, size: int) -> Iterator[bytes]:
    """The rest of a file, with progress; `size` in bytes, 0 if unknown."""
    return progress(iter(functools.partial(file.read, BLOCK), b""), what, -(-size // BLOCK) or None, "MiB")


def unpack(archive: Path, folder: Path, out: Path) -> None:
    """Unpack an archive that holds `folder` into out/folder; it is removed in the end, for it is as big again.

    Raises tarfile.FilterError for a member that would lie elsewhere, such as ../x, an absolute path, or behind a link.
    """
    shutil.rmtree(out / folder, ignore_errors=True)  # an unpacking that was interrupted
    with tarfile.open(archive) as tar:
        tar.extractall(out, members=progress(tar, f"unpacking {archive.name}", units="files"), filter="data")
    if not (out / folder).is_dir():
        raise UserError(f"{archive} holds no {folder}; remove it and run the same command again")
    (out / folder / ".completed").touch()
    archive.unlink()


def get(name: str, out: Path, options: argparse.Namespace, sums: dict[str, tuple[str, str]]) -> None:
    """Have the part or file `name` under `out`. UserError as of `fetch`, and for a name that there is not."""
    if name not in sums:
        raise UserError(f"there is no '{name}' to download; {did_you_mean(name, sums)}")
    place, checksum = sums[name]
    path, folder, url = out / Path(place).name, options.inside / name, f"{options.url.rstrip('/')}/{place}"
    if not path.exists() and not (out / folder / ".completed").exists():
        logger.info(url)
        fetch(url, path, checksum)
    if place.endswith(ARCHIVE) and path.exists():
        unpack(path, folder, out)


def require_safe_tar() -> None:
    """Raises UserError for a Python without the filter that keeps the members of an archive in their folder."""
    if not hasattr(tarfile, "data_filter"):  # Python 3.11 has it from 3.11.4 on
        raise UserError(f"Python {sys.version.split()[0]} cannot unpack archives safely; use 3.11.4 or newer")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="download.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--url", required=True, help="where the files are, such as https://www.openslr.org/resources")
    parser.add_argument(
        "--sums", type=Path, required=True, metavar="FILE", help="the files there are and their checksums"
    )
    parser.add_argument("--inside", type=Path, default=Path(), metavar="FOLDER", help="the folder that archives hold")
    options = parser.parse_args(arguments)
    try:
        require_safe_tar()
        options.out.mkdir(parents=True, exist_ok=True)
        sums = read_sums(options.sums)
        for name in options.names:
            get(name, options.out, options, sums)
    except UserError as error:
        logger.info(f"download.py: error: {error}")
        return error.exit_status
    except (OSError, tarfile.TarError) as error:  # disk full, no permission
        logger.info(f"download.py: error: {error}; the same command goes on from here")
        return 2
    except KeyboardInterrupt:
        logger.info("download.py: interrupted; the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log_to_stderr()
    sys.exit(main())
