"""The metrics of the server, in Prometheus' text format."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asrtool.live.stream_engine import EngineStatistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DELAY_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)  # seconds

Gauges = Callable[[], dict[str, float]]


class Metrics:
    """Counters of one server, in a registry of its own: several servers may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.streams = self._counter("asrtool_streams", "Live streams that have ended, by outcome.", "outcome")
        self.uploads = self._counter("asrtool_uploads", "Uploads that have ended, by outcome.", "outcome")
        self.requests = self._counter("asrtool_http_requests", "Answers of HTTP, by status.", "status")
        self.audio_seconds = self._counter("asrtool_audio_seconds", "Audio that was received, in seconds.", "kind")
        self.compute_seconds = self._counter("asrtool_compute_seconds", "Computing time, in seconds.", "kind")
        self.delay = Histogram(
            "asrtool_result_delay_seconds",
            "Time from the arrival of the audio at the end of a result until the result is sent, by type of result.",
            ["type"],
            buckets=DELAY_BUCKETS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(name, text, [label], registry=self.registry)

    def watch(self, gauges: Gauges, statistics: Callable[[], EngineStatistics | None]) -> None:
        """Adds values that are read when the metrics are."""
        self.registry.register(_Watched(gauges, statistics))

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


GAUGES = {
    "asrtool_streams_active": "Live streams that are open.",
    "asrtool_uploads_active": "Uploads that are recognised.",
    "asrtool_uploads_waiting": "Uploads that are received or wait for a process.",
    "asrtool_connections": "Open connections.",
    "asrtool_ready": "1 if the server accepts streams and uploads, else 0.",
    "asrtool_upload_process_memory_bytes": "Resident memory of the processes that recognise uploads.",
}


class _Watched(Collector):
    """Values of the service and of its engine at the time they are read."""

    def __init__(self, gauges: Gauges, statistics: Callable[[], EngineStatistics | None]):
        self._gauges = gauges
        self._statistics = statistics

    def describe(self) -> Iterable[Metric]:
        return []  # registration must not read values

    def collect(self) -> Iterable[Metric]:
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(name, GAUGES[name], value)
        statistics = self._statistics()
        if statistics is None:
            return
        yield GaugeMetricFamily(
            "asrtool_backlog_seconds", "Audio of live streams that waits for recognition.", statistics.backlog_seconds
        )
        yield CounterMetricFamily("asrtool_steps", "Steps of the model for live streams.", statistics.steps)
        yield CounterMetricFamily(
            "asrtool_step_streams", "Streams in each step, summed: divide by the steps.", statistics.step_streams
        )
        yield CounterMetricFamily(
            "asrtool_step_seconds", "Computing time of the steps, in seconds.", statistics.step_seconds
        )
