"""The time of a program by its parts: a clock that functions of the program switch, without a change of the program."""

import resource
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch

REST = "rest"
END = object()  # of an iteration


@dataclass
class PartTime:
    """The time of one part, without the time of the parts inside it."""

    calls: int = 0
    wall: float = 0.0  # seconds
    cpu: float = 0.0  # seconds of all threads of this process
    children: float = 0.0  # CPU seconds, over their whole life, of the processes that ended in this part

    def add(self, wall: float, cpu: float, children: float) -> None:
        """Adds seconds."""
        self.wall += wall
        self.cpu += cpu
        self.children += children


@dataclass
class PartClock:
    """Counts every moment of the main thread for one part, the innermost one that is open: the parts add up to the
    wall time. What is outside all parts counts as the rest.

    Parts inside a part of `whole` count for that one. A GPU is waited for at each change of the part, so that its work
    counts for the part that started it; this waiting makes a training on a GPU slower.
    """

    device: torch.device
    whole: Collection[str] = ()
    parts: dict[str, PartTime] = field(default_factory=dict)
    _open: list[str] = field(default_factory=lambda: [REST])
    _last: tuple[float, ...] = ()  # the clocks at the last change

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time in the context for the part `name`."""
        if self._open[-1] in (name, *self.whole):
            yield
            return
        self._change()
        self._open.append(name)
        self.parts.setdefault(name, PartTime()).calls += 1
        try:
            yield
        finally:
            self._change()
            self._open.pop()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the clock in the context; what is outside all parts counts as the rest."""
        self.parts.setdefault(REST, PartTime()).calls += 1
        self._last = self._now()
        yield
        self._change()

    def _change(self) -> None:
        """Counts the time since the last change for the part that is open."""
        now = self._now()
        passed = [new - old for new, old in zip(now, self._last, strict=True)]
        self.parts[self._open[-1]].add(*passed)
        self._last = now

    def _now(self) -> tuple[float, float, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.perf_counter(), time.process_time(), children.ru_utime + children.ru_stime

    def timed(self, name: str, function: Callable) -> Callable:
        """Returns `function`, with the time of its calls counted for the part `name`."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*arguments, **options)

        return call

    def timed_items(self, name: str, items: Iterable) -> Iterator:
        """Yields `items`, with the time until each of them, and the time of their end, counted for the part `name`."""
        iterator = iter(items)
        try:
            while True:
                with self.part(name):
                    item = next(iterator, END)
                if item is END:
                    return
                yield item
        finally:
            with self.part(name):  # a loader ends its processes here
                del items, iterator

    def patch(self, stack: ExitStack, owner: Any, attribute: str, name: str) -> None:
        """Counts calls of a function of a module, a class or an object for the part `name`, until `stack` closes."""
        stack.enter_context(patch.object(owner, attribute, self.timed(name, getattr(owner, attribute))))

    def wall(self, prefix: str = "") -> float:
        """Returns the seconds of all parts whose names begin with `prefix`."""
        return sum(part.wall for name, part in self.parts.items() if name.startswith(prefix))
