"""The processes that recognise uploads, seen from the server: a queue before them, and a new one for one that died."""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import resource
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any

from asrtool.errors import UserError
from asrtool.interrupts import sigterm_held
from asrtool.serve.errors import RequestError
from asrtool.serve.limits import Limits
from asrtool.serve.upload_worker import Job, run_worker

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2  # until a cancelled client and the deadline of a job are looked at again
CANCEL_SECONDS = 30.0  # a process that works on a cancelled job for longer is ended: a batch of segments takes less
LEAST_DEADLINE = 60.0  # seconds for a job, however short the longest recording is: the machine may be busy
OPEN_SECONDS = 600.0  # to open the model, however slow the disk is
TAKE_SECONDS = 60.0  # a process that has not taken a job by then is replaced
JOIN_SECONDS = 5.0
LAST_EVENTS = ("done", "error")

Event = dict[str, Any]


class UploadPool:
    """`limits.upload_workers` processes. `events` recognises one upload in the first that is free."""

    def __init__(self, model: dict[str, Any], threads: int, limits: Limits):
        self._limits = limits
        self._workers = [UploadProcess(model, threads, limits.max_upload_seconds) for _ in range(limits.upload_workers)]
        self._threads = ThreadPoolExecutor(max(1, len(self._workers)), "asrtool uploads")
        self._free: asyncio.Queue[UploadProcess | None] = asyncio.Queue()  # None tells one that waits of `abort`
        self._running: set[asyncio.Queue[Event]] = set()
        self._end_error: RequestError | None = None
        self.is_ready = False
        self.num_requests = 0  # uploads that are received, wait, or are recognised
        self.num_active = 0

    @property
    def num_waiting(self) -> int:
        """The number of uploads that are received or wait for a process."""
        return max(0, self.num_requests - len(self._running))

    async def start(self) -> None:
        """Waits until all processes have opened the model. Raises UserError with the reason if one cannot."""
        loop = asyncio.get_running_loop()
        for worker in self._workers:
            await loop.run_in_executor(self._threads, worker.wait_ready)
            self._free.put_nowait(worker)
        self.is_ready = True

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Counts an upload inside, from its first byte to its answer. Raises RequestError if there are too many."""
        if not self._workers:
            raise RequestError("not_found", "this server takes no uploads")
        if self.num_requests >= len(self._workers) + self._limits.max_queued_uploads:
            raise RequestError("limit", "too many uploads wait; send it again later", self._limits.retry_seconds)
        self.num_requests += 1
        try:
            yield
        finally:
            self.num_requests -= 1

    async def events(self, job: Job) -> AsyncGenerator[Event, None]:
        """Yields the events of a job. Closing the generator cancels the job. Raises RequestError if it fails."""
        worker = await self._free_worker()
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        self._running.add(events)
        is_cancelled = threading.Event()
        self.num_active += 1

        def emit(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        future = loop.run_in_executor(self._threads, worker.run, job, emit, is_cancelled)
        future.add_done_callback(lambda done: self._release(worker, done))
        try:
            while True:
                event = await events.get()
                if event["event"] == "error":
                    raise RequestError(event["code"], event["message"], event.get("retry_seconds"))
                yield event
                if event["event"] == "done":
                    return
        finally:
            self._running.discard(events)
            is_cancelled.set()

    async def _free_worker(self) -> "UploadProcess":
        worker = None if self._end_error else await self._free.get()
        if worker is None:
            assert self._end_error is not None
            raise self._end_error
        return worker

    def abort(self, error: RequestError) -> None:
        """Ends all uploads that are recognised or wait, and all further ones, with an error."""
        self._end_error = error
        for events in self._running:
            events.put_nowait(error.as_message() | {"event": "error", "retry_seconds": error.retry_seconds})
        for _ in range(self.num_requests):
            self._free.put_nowait(None)

    def _release(self, worker: "UploadProcess", done: asyncio.Future[None]) -> None:
        self.num_active -= 1
        self._free.put_nowait(worker)
        if not done.cancelled() and done.exception():
            logger.error("a process of uploads cannot be started again", exc_info=done.exception())

    def memory_bytes(self) -> int:
        """Returns the resident memory of all processes."""
        return sum(worker.memory_bytes() for worker in self._workers)

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


class UploadProcess:
    """One process of asrtool.serve.upload_worker. One thread at a time may call its methods."""

    def __init__(self, model: dict[str, Any], threads: int, max_seconds: float):
        self._arguments = (model, threads, max_seconds)
        self._max_seconds = max_seconds
        self._is_closed = False
        self._lock = threading.Lock()  # of the start and the end of the process
        self._process: SpawnProcess | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
        self._pipe, child = context.Pipe()
        process = context.Process(target=run_worker, args=(child, *self._arguments), name="asrtool uploads")
        resource_tracker.ensure_running()  # as it starts, it would let SIGTERM through
        try:
            with sigterm_held():
                process.start()
        finally:
            child.close()  # so that the end of the process is the end of the pipe
        self._process = process

    def wait_ready(self) -> None:
        """Waits until the model is open. Raises UserError with the reason if it cannot be."""
        event: Event | None = None
        deadline = time.monotonic() + OPEN_SECONDS
        try:
            while event is None and self._pipe.poll(max(0.0, deadline - time.monotonic())):
                event = self._receive()
        except OSError as error:
            raise UserError("the process of uploads ended while it opened the model; see above") from error
        if event is None:
            raise UserError(f"the process of uploads has not opened the model in {OPEN_SECONDS:g} seconds")
        if event["event"] != "ready":
            raise UserError(event["message"])

    def run(self, job: Job, emit: Callable[[Event], None], is_cancelled: threading.Event) -> None:
        """Recognises a job and emits its events, of which the last one is "done" or "error".

        A process that ends or takes too long is replaced.
        """
        try:
            try:
                self._hand_over(job)
            except OSError as error:  # it ended while it was free, and may not be a zombie yet
                logger.error(f"the process of uploads has ended while it was free ({error}): another one is started")
                self._restart()
                self._hand_over(job)
            for event in self._events(is_cancelled):
                emit(event)
                if event["event"] in LAST_EVENTS:
                    return
            reason = "the recognition took too long, and was ended"
            if is_cancelled.is_set():
                reason = "the recognition of an upload whose client has left did not end, and was ended"
        except Exception as error:  # the process has ended, or no other one can be started
            logger.debug("the process of uploads", exc_info=error)
            reason = "the process that recognised this upload has ended"
        emit({"event": "error", "code": "failed", "message": reason})
        if not self._is_closed:
            logger.error(f"{reason}: another one is started")
            self._restart()

    def _hand_over(self, job: Job) -> None:
        """Returns when the process has taken a job. Raises OSError if it has ended, or does not take it in time."""
        self._pipe.send_bytes(json.dumps(asdict(job)).encode())
        deadline = time.monotonic() + TAKE_SECONDS
        while self._pipe.poll(max(0.0, deadline - time.monotonic())):
            if (event := self._receive()) and event["event"] == "taken":
                return
        raise TimeoutError(f"it has not taken a job in {TAKE_SECONDS:g} seconds")

    def _events(self, is_cancelled: threading.Event) -> Iterator[Event]:
        """Yields what the process sends. Returns at the deadline of the job."""
        deadline = time.monotonic() + max(self._max_seconds, LEAST_DEADLINE)
        has_cancelled = False
        while time.monotonic() < deadline:
            if is_cancelled.is_set() and not has_cancelled:
                self._pipe.send_bytes(b"{}")
                has_cancelled = True
                deadline = min(deadline, time.monotonic() + CANCEL_SECONDS)
            if self._pipe.poll(POLL_SECONDS) and (event := self._receive()):
                yield event

    def _receive(self) -> Event | None:
        """Returns the next event; None for a line of the log, which is written.

        Raises OSError if the process has ended.
        """
        try:
            event: Event = json.loads(self._pipe.recv_bytes())
        except EOFError as error:
            raise BrokenPipeError("the process has ended") from error
        if event["event"] != "log":
            return event
        upload = event["upload"]
        text = f"upload {upload}: {event['message']}" if upload else event["message"]
        logger.log(event["level"], text, extra={"fields": {"upload": upload} if upload else {}})
        return None

    def _restart(self) -> None:
        """Replaces the process, unless `stop` was called. Raises OSError or UserError where no new one can be had."""
        with self._lock:
            self._end()
            if self._is_closed:
                return
            self._start()
        self.wait_ready()

    def memory_bytes(self) -> int:
        """Returns the resident memory of the process, 0 if it has ended."""
        process = self._process
        try:
            with open(f"/proc/{process.pid if process else None}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * resource.getpagesize()
        except (OSError, IndexError, ValueError):
            return 0

    def stop(self) -> None:
        """Ends the process for good."""
        with self._lock:
            self._is_closed = True
            self._end()

    def _end(self) -> None:
        self._pipe.close()
        if self._process:
            self._process.kill()
            self._process.join(JOIN_SECONDS)
        self._process = None
