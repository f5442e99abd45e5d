"""A process that recognises uploads, one at a time. It reads jobs from a pipe, and writes events to it, all as JSON.

A process of its own has two reasons: decoders of audio read what strangers send, so that a crash must harm no stream;
and live streams come first, so that it runs at a lower priority.

    job:     {"path", "name", "format", "channel", "has_segments", "id"}; {} cancels the current one
    events:  {"event": "taken"}, {"event": "recording", "seconds"}, {"event": "segment", "segment"} ...,
             then {"event": "done", "content", "seconds", "compute_seconds"} or {"event": "error", "code", "message"};
             at any time {"event": "log", "level", "message", "upload"}, a line for the log of the server
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from asrtool.data.audio_blocks import Channel, open_recording
from asrtool.data.sources import InvalidEntry
from asrtool.errors import AsrtoolError
from asrtool.inference.model import Model, load
from asrtool.inference.outputs import FORMATS
from asrtool.inference.results import Segment
from asrtool.inference.segment_search import SearchProcessEnded
from asrtool.interrupts import init_worker

logger = logging.getLogger(__name__)

NICENESS = 10  # of 19: live streams come first
OOM_SCORE = 500  # of 1000: if memory runs out, Linux ends this process and not the server
Send = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """One upload. path: its file. name: what the client calls it. format: of FORMATS. id: in the log."""

    path: str
    name: str
    format: str = "json"
    channel: Channel = "mix"
    has_segments: bool = False  # segments are wanted as soon as they are recognised
    id: str = ""


class JobCancelled(Exception):
    """The client has left."""


class LogSender(logging.Handler):
    """Sends warnings and errors to the server, which has the log. job: the upload that they are about."""

    def __init__(self, send: Send):
        super().__init__(logging.WARNING)
        self._send = send
        self.job: Job | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one record, with the name of the upload instead of the path of its file."""
        message = self.format(record)
        if self.job:
            message = message.replace(self.job.path, self.job.name)
        upload = self.job.id if self.job else ""
        self._send({"event": "log", "level": record.levelno, "message": message, "upload": upload})


class JobRefused(Exception):
    """The recording is longer than the server allows."""


def run_worker(pipe: Connection, model: dict[str, Any], threads: int, max_seconds: float) -> None:
    """Opens the model and recognises jobs until the pipe is closed. The first event is "ready" or "error"."""
    import torch

    init_worker(ends_on_sigterm=False)
    os.nice(NICENESS)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE))
    torch.set_num_threads(threads)

    def send(event: dict[str, Any]) -> None:
        pipe.send_bytes(json.dumps(event).encode())

    log = LogSender(send)
    logging.getLogger("asrtool").addHandler(log)
    try:
        system = load(**model)
        system.open_transcriber()
    except AsrtoolError as error:
        send({"event": "error", "code": "failed", "message": str(error)})
        return
    send({"event": "ready"})
    while True:
        try:
            tree = json.loads(pipe.recv_bytes())
            if tree:
                log.job = Job(**tree)
                send({"event": "taken"})
                _recognise(system, log.job, pipe, send, max_seconds)
        except (EOFError, OSError):  # the server has ended, or does not want this process any more
            os._exit(0)  # at once: the end of Python and torch takes a second of computing, at a low priority


def _recognise(system: Model, job: Job, pipe: Connection, send: Send, max_seconds: float) -> None:
    """Recognises one job; sends its events."""
    try:
        send(_transcribe(system, job, pipe, send, max_seconds))
    except JobRefused as error:
        send({"event": "error", "code": "too_long", "message": str(error)})
    except JobCancelled:
        send({"event": "error", "code": "cancelled", "message": "the client has left"})
    except SearchProcessEnded as error:
        logger.error(str(error))
        send({"event": "error", "code": "failed", "message": str(error)})
    except (AsrtoolError, InvalidEntry) as error:
        message = str(error).replace(job.path, job.name)
        send({"event": "error", "code": "unsupported_audio", "message": message})
    except MemoryError:
        send({"event": "error", "code": "failed", "message": "the recording needs more memory than there is"})
    except (EOFError, OSError):  # of the pipe: the server has ended
        raise
    except Exception:  # concerns this recording only; another process would take seconds to open the model
        logger.exception("an upload failed")
        send({"event": "error", "code": "failed", "message": "the recognition of this upload failed"})


def _transcribe(system: Model, job: Job, pipe: Connection, send: Send, max_seconds: float) -> dict[str, Any]:
    """Returns the last event of a job."""
    start = time.process_time()
    recording = open_recording(job.path, name=job.name)
    _require_length(recording.seconds or 0.0, max_seconds)
    send({"event": "recording", "seconds": recording.seconds})

    def on_progress(seconds: float) -> None:
        _require_length(seconds, max_seconds)
        if pipe.poll():  # {} cancels, and nothing else comes before the last event
            pipe.recv_bytes()
            raise JobCancelled

    def on_segment(segment: Segment) -> None:
        if job.has_segments:
            send({"event": "segment", "segment": segment_message(segment)})

    transcriber = system.open_transcriber()
    transcript = transcriber.transcribe(job.path, job.channel, on_progress=on_progress, on_segment=on_segment)
    content = FORMATS[job.format](replace(transcript, source=job.name), job.name)
    seconds = time.process_time() - start
    return {"event": "done", "content": content, "seconds": transcript.seconds, "compute_seconds": round(seconds, 3)}


def segment_message(segment: Segment) -> dict[str, Any]:
    """Returns a segment as plain types."""
    return {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "confidence": segment.confidence,
        "words": [asdict(word) for word in segment.words],
    }


def _require_length(seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise JobRefused(f"the recording has more than {max_seconds / 60:g} minutes of audio, the most that is taken")
