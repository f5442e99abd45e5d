"""Results that wait to be sent to one client: bounded, and of partial results only the newest."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from asrtool.serve.errors import RequestError


@dataclass(frozen=True)
class Outgoing:
    """A message, and when the audio was received that it is the result of, by the clock of asyncio's loop."""

    message: dict[str, Any]
    received: float | None = None
    is_last: bool = False


class Outbox:
    """Messages of one stream, in order. All methods are called in the thread of the event loop.

    A client that reads slowly loses partial results, of which a newer one replaces the older one. If more than
    `max_unsent` other messages wait, the stream fails.
    """

    def __init__(self, max_unsent: int):
        self._max_unsent = max_unsent
        self._messages: deque[Outgoing] = deque()
        self._partial: Outgoing | None = None
        self._error: RequestError | None = None  # of `fail`
        self._end: RequestError | None = None
        self._changed = asyncio.Event()

    def put(self, outgoing: Outgoing) -> None:
        """Adds a message that must arrive; the partial result before it is outdated."""
        self._partial = None
        self._messages.append(outgoing)
        if len(self._messages) > self._max_unsent:
            self.fail(RequestError("slow_reader", f"more than {self._max_unsent} results were not read in time"))
        self._changed.set()

    def put_partial(self, outgoing: Outgoing) -> None:
        """Adds a partial result, which replaces one that was not sent yet."""
        self._partial = outgoing
        self._changed.set()

    def fail(self, error: RequestError) -> None:
        """Makes `get` raise the error; what waits is dropped."""
        self._error = self._error or error
        self._messages.clear()
        self._partial = None
        self._changed.set()

    def end(self, error: RequestError) -> None:
        """Makes `get` raise the error after what waits."""
        self._end = error
        self._changed.set()

    async def get(self) -> Outgoing:
        """Waits for the next message. Raises the error of `fail`, or, when no message waits, the error of `end`."""
        while True:
            if self._error:
                raise self._error
            if self._messages:
                return self._messages.popleft()
            if self._partial:
                partial, self._partial = self._partial, None
                return partial
            if self._end:
                raise self._end
            self._changed.clear()
            await self._changed.wait()
