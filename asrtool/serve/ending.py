"""How signals end the server: it drains, or ends at once."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator

import uvicorn

from asrtool.serve.service import Service

logger = logging.getLogger(__name__)

DRAIN_POLL_SECONDS = 0.1
CLOSE_SECONDS = 5  # for the last results after the drain
HURRY_SECONDS = 1.0  # for them after a second signal, and for the error of a stream that has not got them in time
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """The first signal drains the server, the second one ends it at once."""

    def __init__(self, service: Service, server: uvicorn.Server):
        self._service = service
        self._server = server
        self._drain: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def handled_signals(self) -> Iterator[None]:
        """Handles signals inside, if this is the main thread."""
        loop = asyncio.get_running_loop()
        try:
            for number in SIGNALS:
                loop.add_signal_handler(number, self.handle)
        except (ValueError, RuntimeError):  # another thread, as in tests
            yield
            return
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def handle(self) -> None:
        """Handles one signal."""
        if self._drain is None:
            seconds = self._service.settings.drain_seconds
            logger.info(f"ending: running streams and uploads have {seconds:g} s (again to end at once)")
            self._service.is_draining = True
            self._drain = asyncio.get_running_loop().create_task(self._drain_and_exit())
        else:
            self._drain.cancel()
            self._drain = asyncio.get_running_loop().create_task(self._exit(HURRY_SECONDS, is_forced=True))

    async def _drain_and_exit(self) -> None:
        await self._until_idle(self._service.settings.drain_seconds)
        await self._exit(CLOSE_SECONDS)

    async def _exit(self, seconds: float, is_forced: bool = False) -> None:
        """Tells the clients of streams and uploads that still run, and ends the server after so many seconds."""
        self._service.end()
        await self._until_idle(seconds)
        self._service.abort()
        await self._until_idle(HURRY_SECONDS)
        self._server.force_exit = is_forced
        self._server.should_exit = True

    async def _until_idle(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._service.is_idle:
                    await asyncio.sleep(DRAIN_POLL_SECONDS)
