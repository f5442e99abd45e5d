"""A local server in place of OpenSLR, for tests of downloads."""

import contextlib
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path


class Resources:
    """Files by path below `url`; `requests` are (path, first byte asked for); faults can be set."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.requests: list[tuple[str, int]] = []
        self.ranges = True  # whether it can send from the middle
        self.lose_after: int | None = None  # bytes of each answer after which the connection is lost
        self.url = ""

    def write_sums(self, path: Path) -> Path:
        """A file as `md5sum` writes it."""
        sums = (f"{hashlib.md5(data).hexdigest()}  {name}\n" for name, data in self.files.items())
        path.write_text("".join(sums))
        return path


def archive(part: str, files: dict[str, bytes]) -> bytes:
    """PART.tar.gz: LibriSpeech/README.TXT and, below LibriSpeech/PART, the files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for name, data in {"README.TXT": b"made up\n", **{f"{part}/{n}": d for n, d in files.items()}}.items():
            member = tarfile.TarInfo(f"LibriSpeech/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


@contextlib.contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Resources]:
    """The files at `url`, by HTTP, until the context is left."""
    resources = Resources(files)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(resources))
    resources.url = f"http://127.0.0.1:{server.server_port}/resources"
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield resources
    finally:
        server.shutdown()
        server.server_close()


def _handler(resources: Resources) -> type:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            name = self.path.removeprefix("/resources/")
            asked = self.headers.get("Range")
            first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and resources.ranges else 0
            resources.requests.append((name, first))
            data = resources.files.get(name)
            if data is None:
                self.send_error(404)
            elif first >= len(data):
                self.send_error(416)
            else:
                self._send(data[first:], 206 if first else 200)

        def _send(self, data: bytes, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: resources.lose_after])

        def log_message(self, *_) -> None:
            pass

    return Handler
