"""What other threads tell the thread of a streaming engine, and when that runs its next step."""

import threading
import time
from collections import deque
from collections.abc import Callable

Event = Callable[[], None]

# A step begins at the earliest so many times its predecessor's computing time after it, unless the limit is reached:
# below a quarter of its time the engine's thread has no need of larger batches.
STEP_INTERVALS = 4.0


class EventQueue:
    """Events from any thread, for one thread that takes them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._awaited: float = 1  # this many events wake the thread
        self._is_urgent = False

    def post(self, event: Event, *, is_urgent: bool = False) -> None:
        """Adds an event. An urgent one is taken at once."""
        with self._changed:
            self._events.append(event)
            self._is_urgent |= is_urgent
            if self._is_urgent or len(self._events) >= self._awaited:
                self._changed.notify()

    def take(self, count: int, seconds: float | None) -> list[Event]:
        """Returns all events; waits before for an urgent one or for `count`, at most `seconds`; None: for ever."""
        with self._changed:
            self._awaited = count
            self._changed.wait_for(lambda: self._is_urgent or len(self._events) >= count, seconds)
            self._awaited = float("inf")
            self._is_urgent = False
            events = list(self._events)
            self._events.clear()
            return events


class StepPace:
    """How long a step waits for further streams.

    A step costs about as much for one stream as for several, so that steps of few streams waste computing time: the
    time from the beginning of one step to that of the next is STEP_INTERVALS times the computing time of the former,
    and at most `limit` seconds. A stream without others never waits, since its chunks take longer to arrive.
    """

    def __init__(self, limit: float):
        self._limit = limit
        self._next = 0.0

    def note(self, begin: float, end: float) -> None:
        """Notes a step, with the times of `time.perf_counter`."""
        self._next = begin + min(STEP_INTERVALS * (end - begin), self._limit)

    def seconds_left(self) -> float:
        """Returns how long the next step waits, 0 if it may begin."""
        return max(0.0, self._next - time.perf_counter())
