"""POST /v1/transcribe: an audio file in, the formats of `asrtool transcribe` out."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from asrtool.data.audio_blocks import Channel
from asrtool.errors import did_you_mean
from asrtool.serve.errors import RequestError
from asrtool.serve.service import Service, new_id, service_of
from asrtool.serve.upload_worker import Job
from asrtool.serve.uploads import MAX_NAME, Upload, display_name, received_upload, until_disconnect

logger = logging.getLogger(__name__)

MEDIA_TYPES = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
PARAMETERS = ("format", "channel", "name")
MAX_CHANNEL = 63

Event = dict[str, Any]


async def transcribe_endpoint(request: Request) -> Response:
    """Recognises an upload. The query has `format`, `channel` and `name`; a form may have them as fields instead."""
    given = request.query_params.multi_items()
    parse_parameters(given)  # before the upload is received
    run = UploadRun(service_of(request))
    async with run.opened(request) as upload:
        fields = [(name, value) for name, values in upload.fields.items() for value in values]
        parameters = parse_parameters([*given, *fields])
        format, channel = parameters.format, parameters.channel
        name = upload.name if parameters.name is None else display_name(parameters.name)
        if format == "jsonl":
            job = Job(upload.file.name, name, channel=channel, has_segments=True, id=run.id)
            return await run.streamed(request, json_lines(run.events(job)), MEDIA_TYPES["jsonl"], _error_line)
        done = await until_disconnect(request, run.result(Job(upload.file.name, name, format, channel, id=run.id)))
        return Response(done["content"], media_type=MEDIA_TYPES[format])


class Parameters(NamedTuple):
    """The parameters of a request. name: of the file, for the answer and for messages; None: as the form names it."""

    format: str
    channel: Channel
    name: str | None


def parse_parameters(given: Sequence[tuple[str, str]]) -> Parameters:
    """Returns the parameters of a query and of a form. Raises RequestError for an unknown, double or impossible one."""
    values: dict[str, str] = {}
    for name, value in given:
        if name not in PARAMETERS:
            shown = name[:MAX_NAME]
            raise RequestError("invalid", f"unknown parameter {shown!r} ({did_you_mean(shown, PARAMETERS)})")
        if name in values:
            raise RequestError("invalid", f"the parameter {name} is given twice; give it once, in query or form")
        values[name] = value
    format = values.get("format", "json")
    if format not in MEDIA_TYPES:
        raise RequestError("invalid", f"format is one of {', '.join(MEDIA_TYPES)}")
    return Parameters(format, parse_channel(values.get("channel", "mix")), values.get("name"))


def parse_channel(text: str) -> Channel:
    """Returns "mix" or the number of a channel. Raises RequestError for anything else."""
    if text == "mix":
        return "mix"
    if not text.isdecimal() or len(text) > 2 or int(text) > MAX_CHANNEL:
        raise RequestError("invalid", f"channel is mix or a number from 0 to {MAX_CHANNEL}")
    return int(text)


async def json_lines(events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    """Yields events as lines of JSON: the recording, its segments as soon as they are recognised, its end."""
    async with contextlib.aclosing(events):
        async for event in events:
            if event["event"] == "recording":
                yield _line({"type": "recording", "seconds": event["seconds"]})
            elif event["event"] == "segment":
                yield _line({"type": "segment", **event["segment"]})
            else:
                seconds = {"seconds": event["seconds"], "compute_seconds": event["compute_seconds"]}
                yield _line({"type": "end", **seconds})


def _line(tree: dict[str, Any]) -> str:
    return json.dumps(tree, ensure_ascii=False) + "\n"


def _error_line(error: RequestError) -> str:
    return _line(error.as_message())


class UploadRun:
    """One upload from its first byte to its answer: admitted, received, recognised, counted, removed."""

    def __init__(self, service: Service):
        self.id = new_id()
        self._service = service
        self._stack = contextlib.AsyncExitStack()
        self._outcome = "failed"
        self._is_streamed = False
        self._is_closed = False
        self._seconds = 0.0
        self._compute_seconds = 0.0

    @contextlib.asynccontextmanager
    async def opened(self, request: Request) -> AsyncIterator[Upload]:
        """Receives the upload. Afterwards it is counted and removed, unless its answer is still streamed."""
        try:
            self._service.require_ready()
            self._stack.enter_context(self._service.pool.request())
            yield await self._stack.enter_async_context(received_upload(request, self._service.limits))
        except RequestError as error:
            self._outcome = error.code
            raise
        except ClientDisconnect:
            self._outcome = "disconnected"
            raise
        finally:
            if not self._is_streamed:
                await self._close()

    async def events(self, job: Job) -> AsyncGenerator[Event, None]:
        """Yields the events of the recognition; see asrtool.serve.upload_worker."""
        events = self._service.pool.events(job)
        async with contextlib.aclosing(events):
            async for event in events:
                if event["event"] == "done":
                    self._seconds, self._compute_seconds = event["seconds"], event["compute_seconds"]
                    await asyncio.to_thread(self._keep, job, event)
                    self._outcome = "finished"
                yield event

    async def result(self, job: Job) -> Event:
        """Returns the last event of the recognition. Raises RequestError if it fails."""
        last: Event = {}
        async with contextlib.aclosing(self.events(job)) as events:
            async for event in events:
                last = event
        return last

    async def streamed(
        self,
        request: Request,
        parts: AsyncGenerator[str, None],
        media_type: str,
        error_part: Callable[[RequestError], str],
    ) -> Response:
        """Returns an answer that is sent while the upload is recognised.

        The first part is awaited, so that an upload that cannot be read gets a status of its own. What fails later is
        the last part, by `error_part`.
        """
        first = await until_disconnect(request, anext(parts))  # a client may leave while the upload waits
        self._is_streamed = True
        self._outcome = "disconnected"  # unless it comes to its end
        return StreamingResponse(
            self._all_parts(first, parts, error_part), media_type=media_type, background=BackgroundTask(self._close)
        )

    async def _all_parts(
        self, first: str, parts: AsyncGenerator[str, None], error_part: Callable[[RequestError], str]
    ) -> AsyncGenerator[str, None]:
        try:
            async with contextlib.aclosing(parts):
                yield first
                async for part in parts:
                    yield part
        except RequestError as error:
            self._outcome = error.code
            yield error_part(error)
        finally:
            await self._close()

    def _keep(self, job: Job, done: Event) -> None:
        if job.format == "json":
            self._service.keeper.keep_upload(self.id, Path(job.path), json.loads(done["content"]))
        else:
            result = {"recording": job.name, job.format: done["content"]}
            self._service.keeper.keep_upload(self.id, Path(job.path), result)

    async def _close(self) -> None:
        """Removes the upload, and counts it; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._stack.aclose()
        service = self._service
        service.metrics.uploads.labels(self._outcome).inc()
        service.metrics.audio_seconds.labels("upload").inc(self._seconds)
        service.metrics.compute_seconds.labels("upload").inc(self._compute_seconds)
        fields = {"upload": self.id, "outcome": self._outcome, "audio_seconds": self._seconds}
        text = (
            f"upload {self.id} {self._outcome}: {self._seconds:.1f} s of audio, {self._compute_seconds:.1f} s computing"
        )
        logger.info(text, extra={"fields": fields})
