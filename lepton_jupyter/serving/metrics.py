"""``GET /metrics``: counts, durations and the version served, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric

from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.serving.answers import Answer

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The endpoint's counters. Only the event loop's thread writes them.

    Parameters
    ----------
    lost : callable
        Returns how many answered requests are in no segment of the request log.
    """

    def __init__(self, lost: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "lepton_requests", "Requests answered, by route and status code.", ("route", "code"), registry=self.registry
        )
        self.rows = Counter("lepton_rows", "Rows scored.", registry=self.registry)
        self.seconds = Histogram(
            "lepton_request_seconds",
            "From the request's head to its answer, by route.",
            ("route",),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge("lepton_requests_in_flight", "Predictions under way or waiting.", registry=self.registry)
        self.version = Gauge(
            "lepton_version_info",
            "1 for the version that is served.",
            ("endpoint", "model", "version"),
            registry=self.registry,
        )
        self.registry.register(_Lost(lost))

    def served(self, config: EndpointConfig) -> None:
        """Name the version that is served from now on."""
        self.version.clear()
        self.version.labels(config.name, config.model, config.version).set(1)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count one answer."""
        self.requests.labels(route, code).inc()
        self.seconds.labels(route).observe(seconds)

    def answer(self) -> Answer:
        """Return all of them as text."""
        return Answer(200, generate_latest(self.registry), [(b"content-type", CONTENT_TYPE)])


class _Lost:
    """The one count that is kept elsewhere, by the request log."""

    def __init__(self, lost: Callable[[], int]) -> None:
        self._lost = lost

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "lepton_request_log_lost", "Answered requests that are not in the request log.", value=self._lost()
        )
