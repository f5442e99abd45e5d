"""The time that a training takes, over all its runs, and the age of its last checkpoint."""

import time


class TrainingClock:
    """The device hours of a training so far, and when it wrote its last checkpoint.

    `device_hours` is the time of the runs before, summed over their ranks; this run has `world_size` ranks.
    """

    def __init__(self, world_size: int, device_hours: float = 0.0):
        self._world_size = world_size
        self._earlier_hours = device_hours
        self._start = self._last_save = time.monotonic()

    @property
    def device_hours(self) -> float:
        """The time of all runs so far, multiplied by their numbers of ranks."""
        return self._earlier_hours + (time.monotonic() - self._start) * self._world_size / 3600

    def note_save(self) -> None:
        """Notes that a checkpoint is written now."""
        self._last_save = time.monotonic()

    def save_is_late(self, minutes: float | None) -> bool:
        """Returns True if the last checkpoint, or the start, is more than `minutes` ago; with None, never."""
        return minutes is not None and time.monotonic() - self._last_save > 60 * minutes
