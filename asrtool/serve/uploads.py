"""The body of an upload: received within its limits, and spooled to a temporary file, which is removed at its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import IO, Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from asrtool.data.audio_spool import open_spool, spool
from asrtool.data.sources import InvalidEntry
from asrtool.logs import printable
from asrtool.serve.errors import RequestError
from asrtool.serve.limits import Limits

MAX_FIELDS = 32  # of a form, besides the file
MAX_FIELD_BYTES = 1 << 16
MAX_NAME = 200  # characters
UTF8 = (b"utf-8", b"utf8")  # other charsets of Python are slow, or have characters that no answer can have


@dataclass
class Upload:
    """A file that was sent. fields: the other fields of its form, each with all its values."""

    file: IO[bytes]
    name: str
    fields: dict[str, list[str]] = field(default_factory=dict)


class BoundedBody:
    """Receives a body, and refuses one that is too large or too slow."""

    def __init__(self, request: Request, limits: Limits):
        self._receive = request.receive
        self._limits = limits
        self._deadline = asyncio.get_running_loop().time() + limits.body_seconds
        self._size = 0
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.max_upload_bytes:
            raise self._too_large()

    def _too_large(self) -> RequestError:
        megabytes = self._limits.max_upload_bytes / (1 << 20)
        return RequestError("too_large", f"an upload has at most {megabytes:g} MB")

    async def receive(self) -> Message:
        """Returns the next part of the body. Raises RequestError for one that is too large or too late."""
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, min(left, self._limits.pause_seconds))):
                message = await self._receive()
        except TimeoutError as error:
            raise RequestError("timeout", "the body of the request did not arrive in time") from error
        self._size += len(message.get("body", b""))
        if self._size > self._limits.max_upload_bytes:
            raise self._too_large()
        return message


@contextlib.asynccontextmanager
async def received_upload(request: Request, limits: Limits) -> AsyncIterator[Upload]:
    """Receives a body: a form with a field `file`, or the file itself, with its name in the query. Removes it after.

    Raises RequestError for one that is refused, ClientDisconnect if the client has left.
    """
    bounded = Request(request.scope, BoundedBody(request, limits).receive)
    content_type, parameters = parse_options_header(request.headers.get("content-type"))
    is_form = content_type == b"multipart/form-data"
    if is_form and parameters.get(b"charset", b"utf-8").lower() not in UTF8:
        raise RequestError("bad_request", "the form is in another charset; send it in UTF-8")
    try:
        upload = await (_receive_form(bounded) if is_form else _receive_file(bounded))
    except OSError as error:
        text = f"the upload cannot be stored: {error.strerror}"
        raise RequestError("disk_full", text, limits.retry_seconds) from error
    try:
        yield upload
    finally:
        with contextlib.suppress(FileNotFoundError):
            upload.file.close()


async def _receive_form(request: Request) -> Upload:
    """Receives a form. Raises RequestError for one that is malformed, OSError if it cannot be stored."""
    try:
        form = request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
        async with form as fields:
            file = fields.get("file")
            if not isinstance(file, UploadFile):
                raise RequestError("bad_request", "the form has no field `file` with a file")
            name = display_name(file.filename)
            texts: dict[str, list[str]] = {}
            for key, value in fields.multi_items():
                if isinstance(value, str):
                    texts.setdefault(key, []).append(value)
            return Upload(await asyncio.to_thread(spool, file.file, name), name, texts)
    except HTTPException as error:
        raise RequestError("bad_request", f"the form cannot be read: {error.detail}") from error
    except UnicodeError as error:
        raise RequestError("bad_request", "the form cannot be read: its names are not in UTF-8") from error
    except InvalidEntry as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from error
        raise RequestError("bad_request", str(error)) from error


async def _receive_file(request: Request) -> Upload:
    """Receives a body that is the file. Raises RequestError for an empty one, OSError if it cannot be stored."""
    file = await asyncio.to_thread(open_spool)
    try:
        size = 0
        async for piece in request.stream():
            size += await asyncio.to_thread(file.write, piece) if piece else 0
        await asyncio.to_thread(file.flush)
        if not size:
            raise RequestError("bad_request", "the body of the request is empty; send an audio file")
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        raise
    return Upload(file, display_name(request.query_params.get("name")))


def display_name(name: str | None) -> str:
    """Returns the name of a file as messages and results show it; it is never used as a path."""
    name = (name or "").encode("utf-8", "replace").decode()
    base = printable(name.replace("\\", "/").rsplit("/", 1)[-1]).strip()
    return " ".join(base.split())[:MAX_NAME] or "upload"


async def until_disconnect(request: Request, work: Any) -> Any:
    """Returns the result of the coroutine `work`; cancels it and raises ClientDisconnect if the client leaves.

    The body of the request must have been received before.
    """

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(wait_for_disconnect())
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, watcher):
            one.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)
