"""When the audio of a stream was received, to measure the delay of its results."""

from collections import deque

STEP = 0.02  # seconds of audio: times are kept no finer, so that tiny messages take no memory


class ArrivalTimes:
    """The times of arrival of the audio that has no result yet, up to three times `max_backlog_seconds`."""

    def __init__(self, max_backlog_seconds: float):
        maxlen = 1 + round(3 * max_backlog_seconds / STEP)
        self._times: deque[tuple[float, float]] = deque(maxlen=maxlen)  # (end in the stream, time of arrival)

    def add(self, audio_seconds: float, time: float) -> None:
        """Notes that the stream had `audio_seconds` of audio at `time`."""
        if self._times and audio_seconds - self._times[-1][0] < STEP:
            return
        self._times.append((audio_seconds, time))

    def take(self, audio_seconds: float) -> float | None:
        """Returns when the audio until `audio_seconds` had arrived; None if it is unknown. Forgets what is older."""
        while self._times and self._times[0][0] < audio_seconds - STEP:
            self._times.popleft()
        return self._times[0][1] if self._times else None
