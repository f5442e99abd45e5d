"""The state that all routes share: the model, the engine of live streams, the processes of uploads, what is running."""

import logging
import secrets
import threading
from typing import Any, Protocol

import numpy as np
from starlette.requests import HTTPConnection

from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.inference.model import Model
from asrtool.live.stream_engine import EngineStatistics, StreamEngine
from asrtool.serve.errors import RequestError
from asrtool.serve.kept_audio import AudioKeeper
from asrtool.serve.messages import StreamTiming
from asrtool.serve.metrics import Metrics
from asrtool.serve.settings import ServerSettings
from asrtool.serve.upload_pool import UploadPool
from asrtool.streaming.latency import algorithmic_latency, default_chunk_seconds

logger = logging.getLogger(__name__)

WARM_UP_SECONDS = 3.0  # of noise: some chunks of every model
WARM_UP_WAIT = 60.0


class RunningStream(Protocol):
    """A connection of /v1/stream."""

    def end(self, error: RequestError) -> None:
        """Ends the stream with an error, after the results of the audio so far."""

    def abort(self, error: RequestError) -> None:
        """Ends the stream with an error at once."""


class Service:
    """A server's model and everything that uses it.

    engine: None for a model that cannot stream; `no_streams` then says why. max_backlog_seconds: the limit of the
    server, or what the steps of this model need, if that is more.
    """

    def __init__(self, model: Model, settings: ServerSettings, pool: UploadPool):
        self.model = model
        self.settings = settings
        self.limits = settings.limits
        self.pool = pool
        self.metrics = Metrics()
        self.keeper = AudioKeeper(settings.keep_audio, settings.limits.max_kept_bytes)
        self.no_streams = ""
        self.engine = self._open_engine()
        usual_backlog = self.engine.usual_backlog if self.engine else 0.0
        self.max_backlog_seconds = max(self.limits.max_backlog_seconds, usual_backlog)
        self.timing = stream_timing(model.experiment) if self.engine else None
        self.streams: set[RunningStream] = set()
        self.is_draining = False
        self.connections: set[Any] = set()  # all of the server, which are set when it listens
        self.metrics.watch(self._gauges, self._statistics)

    def _open_engine(self) -> StreamEngine | None:
        try:
            return StreamEngine(self.model, max_batch=self.limits.max_batch, gather_chunks=self.limits.gather_chunks)
        except UserError as error:
            self.no_streams = str(error)
            logger.warning(f"no live streams, uploads only: {error}")
            return None

    def warm_up(self) -> None:
        """Recognises a little noise as a stream, so that the first client does not wait for what is created late."""
        if self.engine is None:
            return
        has_ended = threading.Event()
        stream = self.engine.open(on_results=lambda _: None, on_end=lambda _: has_ended.set())
        noise = np.random.default_rng(0).normal(0, 0.01, round(WARM_UP_SECONDS * self.model.sampling_rate))
        stream.accept(noise.astype(np.float32))
        stream.finish()
        has_ended.wait(WARM_UP_WAIT)

    @property
    def name(self) -> str:
        """The name of the model, which is the name of its folder."""
        return self.model.experiment.folder.resolve().name

    def require_ready(self) -> None:
        """Raises RequestError while the server starts or drains."""
        self._require_not_draining()
        if not self.pool.is_ready:
            raise RequestError("starting", "the server is starting", self.limits.retry_seconds)

    def _require_not_draining(self) -> None:
        if self.is_draining:
            raise RequestError("draining", "the server is shutting down; connect again", self.limits.retry_seconds)

    def admit_stream(self, stream: RunningStream) -> StreamEngine:
        """Counts a new stream, and returns the engine. Raises RequestError if it cannot be served now."""
        self._require_not_draining()
        if self.engine is None:
            raise RequestError("cannot_stream", f"this model recognises uploads only: {self.no_streams}")
        if len(self.streams) >= self.limits.max_streams:
            number = self.limits.max_streams
            text = f"the server takes {number} stream{'s' if number != 1 else ''} at a time; all places are taken"
            raise RequestError("limit", text, self.limits.retry_seconds)
        self.streams.add(stream)
        return self.engine

    def end(self) -> None:
        """Ends all streams, after the results of their audio so far, and uploads with an error."""
        self.pool.abort(self._draining_error)
        for stream in list(self.streams):
            stream.end(self._draining_error)

    def abort(self) -> None:
        """Ends all streams with an error at once."""
        for stream in list(self.streams):
            stream.abort(self._draining_error)

    @property
    def _draining_error(self) -> RequestError:
        return RequestError("draining", "the server is shutting down", self.limits.retry_seconds)

    @property
    def is_idle(self) -> bool:
        """True if nothing runs that a graceful end would wait for."""
        return not self.streams and not self.pool.num_requests

    def close(self) -> None:
        """Ends the engine, and the processes of uploads."""
        if self.engine:
            self.engine.close()
        self.pool.close()

    def _statistics(self) -> EngineStatistics | None:
        return self.engine.statistics() if self.engine else None

    def _gauges(self) -> dict[str, float]:
        return {
            "asrtool_streams_active": len(self.streams),
            "asrtool_uploads_active": self.pool.num_active,
            "asrtool_uploads_waiting": self.pool.num_waiting,
            "asrtool_connections": len(self.connections),
            "asrtool_ready": float(self.pool.is_ready and not self.is_draining),
            "asrtool_upload_process_memory_bytes": self.pool.memory_bytes(),
        }


def stream_timing(experiment: Experiment) -> StreamTiming:
    """Returns the timing of streams of a model."""
    latency = algorithmic_latency(experiment)["max"] / 1000
    return StreamTiming(round(default_chunk_seconds(experiment), 3), round(latency, 4))


def service_of(connection: HTTPConnection) -> Service:
    """Returns the service that answers a request."""
    service: Service = connection.app.state.service
    return service


def new_id() -> str:
    """Returns a name for a stream or upload, which nobody can guess."""
    return secrets.token_hex(8)
