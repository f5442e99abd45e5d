"""How long a live stream may last, and how long it may be without audio."""

from asrtool.serve.errors import RequestError
from asrtool.serve.limits import Limits


class StreamLimit(RequestError):
    """A limit ends the stream. The results of its audio still follow."""


TIMER_SHARE = 0.05  # of the time without audio, by which its limit may be exceeded


class StreamClock:
    """The limits of time of one stream; `now` is the clock of asyncio's loop, in seconds.

    end: when the stream ends whatever comes. timer: when it ends without further messages; it changes seldom, since a
    timer costs more than a message.
    """

    def __init__(self, limits: Limits, now: float):
        self._limits = limits
        self.end = now + limits.max_stream_seconds  # also without audio: messages of one byte keep no stream open
        self._idle_end = now + limits.idle_seconds
        self._audio_seconds = 0.0
        self.timer = self._new_timer()

    def _new_timer(self) -> float:
        return min(self.end, self._idle_end + TIMER_SHARE * self._limits.idle_seconds)

    def note_audio(self, audio_seconds: float, now: float) -> None:
        """Notes the audio of the stream so far. Raises StreamLimit if it is too long."""
        if audio_seconds > self._audio_seconds:
            self._audio_seconds = audio_seconds
            self._idle_end = now + self._limits.idle_seconds
            if self._idle_end > self.timer:
                self.timer = self._new_timer()
        if audio_seconds >= self._limits.max_stream_seconds or now >= self.end:
            raise self.limit(now=self.end)

    def limit(self, now: float) -> StreamLimit:
        """Returns the reason why no message can be waited for any longer."""
        if now >= self.end:
            minutes = self._limits.max_stream_seconds / 60
            return StreamLimit("too_long", f"a stream has at most {minutes:g} minutes")
        return StreamLimit("idle", f"no audio came within {self._limits.idle_seconds:g} s")
