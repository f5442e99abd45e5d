#!/usr/bin/env python3
"""Fetch parts of LibriSpeech, and its language models and lexicon, from OpenSLR.

  download.py OUT_DIR NAME ... [--url URL] [--sums FILE]

NAME is a part, such as train-clean-5, which is unpacked into OUT_DIR/LibriSpeech, or a file, such as 4-gram.arpa.gz,
which becomes OUT_DIR/4-gram.arpa.gz. `md5sum.txt` beside this script says what there is and how it must be: the sums of
resources 12 and 31 are those that OpenSLR publishes, those of 11, where it publishes none, are of copies in use.

The same command goes on where it was interrupted, and leaves alone what is there. lhotse's own download marks a
finished part in the same way (`.completed`); it checks no sums, and takes a lost connection for the end of a file.
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports below needs no traceback

import argparse
import functools
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from asrtool.errors import UserError, nearest, require_file
from asrtool.progress import progress, say

OPENSLR = "https://www.openslr.org/resources"
SUMS = Path(__file__).with_name("md5sum.txt")
BLOCK = 1 << 20  # bytes
SILENCE = 60  # seconds without a byte after which a connection counts as lost
TRIES = 10  # each goes on where the one before ended, so that these are for connections lost in a file of 30 GB
ARCHIVE = ".tar.gz"


def read_sums(path: Path) -> dict[str, tuple[str, str]]:
    """{name: (path below the URL, MD5)} of a file as `md5sum` writes it; archives go by the name of their part."""
    lines = require_file(path, "file of sums", "give --sums FILE").read_text(encoding="utf-8").split("\n")
    pairs = [line.split() for line in lines if line]
    return {Path(place).name.removesuffix(ARCHIVE): (place, md5) for md5, place in pairs}


def fetch(url: str, path: Path, md5: str) -> None:
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
        if problem is None and _md5(part) == md5:
            os.replace(part, path)
            return
        if problem is not None and _size(part) == before:
            raise UserError(f"cannot download {url} ({problem}); the same command tries again, --mirror takes another")
        if problem is None and _size(part) == before:  # all is there, so that something in it is wrong
            part.unlink()
    part.unlink(missing_ok=True)
    raise UserError(f"{url} has not the MD5 sum {md5} of local/md5sum.txt; was it replaced, or is the mirror broken?")


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


def _md5(path: Path) -> str:
    found = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        for block in _blocks(file, f"checking {path.stem}", _size(path)):
            found.update(block)
    return found.hexdigest()


def _blocks(file: BinaryIO, what: str, size: int) -> Iterator[bytes]:
    """The rest of a file, with progress; `size` in bytes, 0 if unknown."""
    return progress(iter(functools.partial(file.read, BLOCK), b""), what, -(-size // BLOCK) or None, "MiB")


def unpack(archive: Path, part: str, out: Path) -> None:
    """Unpack the archive of a part into out/LibriSpeech/PART; it is removed in the end, for it is as big again."""
    folder = out / "LibriSpeech" / part
    shutil.rmtree(folder, ignore_errors=True)  # an unpacking that was interrupted
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11 has it from 3.11.4 on
        tar.extractall(out, members=progress(tar, f"unpacking {archive.name}", units="files"))
    if not folder.is_dir():
        raise UserError(f"{archive} holds no LibriSpeech/{part}; remove it and run the same command again")
    (folder / ".completed").touch()
    archive.unlink()


def get(name: str, out: Path, url: str, sums: dict[str, tuple[str, str]]) -> None:
    """Have the part or file `name` under `out`. UserError as of `fetch`, and for a name that there is not."""
    if name not in sums:
        raise UserError(f"there is no '{name}' to download; {nearest(name, sums)}")
    place, md5 = sums[name]
    path = out / Path(place).name
    if not path.exists() and not (out / "LibriSpeech" / name / ".completed").exists():
        say(f"{url}/{place}")
        fetch(f"{url}/{place}", path, md5)
    if place.endswith(ARCHIVE) and path.exists():
        unpack(path, name, out)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="download.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--url", default=OPENSLR, help=f"of the resources (default {OPENSLR})")
    parser.add_argument("--sums", type=Path, default=SUMS, help="the files there are and their MD5 sums")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        sums = read_sums(options.sums)
        for name in options.names:
            get(name, options.out, options.url.rstrip("/"), sums)
    except UserError as error:
        say(f"download.py: error: {error}")
        return error.exit_status
    except (OSError, tarfile.TarError) as error:  # disk full, no permission
        say(f"download.py: error: {error}; the same command goes on from here")
        return 2
    except KeyboardInterrupt:
        say("download.py: interrupted; the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
