"""``GET /metrics``: counts, durations and the version served, in Prometheus' text format."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.serving.answers import Answer
from lepton_jupyter.serving.counts import Counts, Scored, of
from lepton_jupyter.serving.peers import Peers
from lepton_jupyter.serving.tally import Comparison

SCORES = ("/predict", "/invocations", "/v2/models/NAME/infer")
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BUCKETS_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 8192)


class RequestCounts(Protocol):
    """What there is to count of a request log: a `Journal` has it."""

    n_left_out: int
    n_removed: int

    @property
    def n_lost(self) -> int:
        """Requests that could not be written."""


class _Histogram:
    """Counts of values between edges: the client library's own takes ten times as long for one of them."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._edges, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        names = [*(str(float(edge)) for edge in self._edges), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class Metrics:
    """The endpoint's counters. Only the event loop's thread writes and reads them.

    Parameters
    ----------
    log : RequestCounts
        How many requests are not in the request log, and why.
    in_flight : callable
        Returns how many predictions are under way or wait.

    Attributes
    ----------
    comparison : Comparison or None
        Of the version that is served and the one beside it.
    peers : Peers or None
        Where several processes serve the endpoint: then the answers are about all of them.
    """

    def __init__(self, log: RequestCounts, in_flight: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._log, self._in_flight = log, in_flight
        self._n_requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._seconds: defaultdict[str, _Histogram] = defaultdict(lambda: _Histogram(BUCKETS_S))
        self._batch_rows, self._batch_seconds = _Histogram(BUCKETS_ROWS), _Histogram(BUCKETS_S)
        self._n_batches = 0
        self._n_rows: defaultdict[str, int] = defaultdict(int)  # by version
        self._n_failures: defaultdict[str, int] = defaultdict(int)
        self.comparison: Comparison | None = None
        self.peers: Peers | None = None
        self._outcomes = {"success": [0, 0.0], "fail": [0, 0.0]}  # of requests for rows: how many, seconds
        self._last_at = 0.0
        ProcessCollector(registry=self.registry)
        self.registry.register(self)
        self.version = Gauge(
            "lepton_version_info",
            "1 for the version that is served.",
            ("endpoint", "model", "version"),
            registry=self.registry,
        )

    def served(self, config: EndpointConfig) -> None:
        """Name the version that is served from now on."""
        self.version.clear()
        self.version.labels(config.name, config.model, config.version).set(1)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count one answer."""
        self._n_requests[route, code] += 1
        self._seconds[route].observe(seconds)
        if route in SCORES:
            outcome = self._outcomes["success" if code < 400 else "fail"]
            outcome[0] += 1
            outcome[1] += seconds

    def failed(self, version: str) -> None:
        """Count a request that a version could not answer."""
        self._n_failures[version] += 1

    def batched(self, version: str, n_requests: int, n_rows: int, seconds: float) -> None:
        """Count one batch of a version."""
        self._n_rows[version] += n_rows
        self._n_batches += 1
        self._last_at = time.time()
        self._batch_rows.observe(n_rows)
        self._batch_seconds.observe(seconds)

    def statistics(self, name: str, version: str) -> dict[str, Any]:
        """Return what the Open Inference Protocol's statistics extension tells of a model."""
        scored = self._scored() if self.peers is None else self.peers.scored()
        outcomes = {
            word: {"count": count, "ns": int(seconds * 1e9)}
            for word, (count, seconds) in (("success", scored.success), ("fail", scored.fail))
        }
        return {
            "model_stats": [
                {
                    "name": name,
                    "version": version,
                    "last_inference": int(scored.last_at * 1000),
                    "inference_count": scored.n_rows,
                    "execution_count": scored.n_batches,
                    "inference_stats": outcomes,
                    "batch_stats": [],
                }
            ]
        }

    def collect(self) -> Iterator[Metric]:
        """Yield what is counted here (prometheus_client's protocol of a collector)."""
        requests = CounterMetricFamily(
            "lepton_requests", "Requests answered, by route and status code.", labels=("route", "code")
        )
        for (route, code), count in self._n_requests.items():
            requests.add_metric((route, str(code)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "lepton_request_seconds", "From the request's head to its answer, by route.", labels=("route",)
        )
        for route, histogram in self._seconds.items():
            histogram.add_to(seconds, (route,))
        yield seconds
        yield _by_version("lepton_rows", "Rows scored, by version.", self._n_rows)
        yield _by_version("lepton_failures", "Requests answered 5xx by a version.", self._n_failures)
        if self.comparison is not None:
            yield from _beside(self.comparison)
        for name, told, histogram in (
            ("lepton_batch_rows", "Rows that were scored together.", self._batch_rows),
            ("lepton_batch_seconds", "From a batch's first request to its outputs.", self._batch_seconds),
        ):
            family = HistogramMetricFamily(name, told)
            histogram.add_to(family, ())
            yield family
        yield GaugeMetricFamily(
            "lepton_requests_in_flight", "Predictions under way or waiting.", value=self._in_flight()
        )
        for word, told, count in (
            ("lost", "Answered requests that are not in the request log.", self._log.n_lost),
            ("left_out", "Answered requests that are not logged: a share of all is.", self._log.n_left_out),
            ("removed", "Requests that were logged once and are kept no more.", self._log.n_removed),
        ):
            yield CounterMetricFamily(f"lepton_request_log_{word}", told, value=count)

    def answer(self) -> Answer:
        """Return all of them as text."""
        text = generate_latest(self.registry) if self.peers is None else self.peers.metrics()
        return Answer(200, text, [(b"content-type", CONTENT_TYPE)])

    def counts(self, number: int) -> Counts:
        """Return what this process has counted, as the one of this number."""
        return of(self.registry.collect(), self._scored(), number=number)

    def _scored(self) -> Scored:
        (n_well, well_s), (n_badly, badly_s) = self._outcomes["success"], self._outcomes["fail"]
        return Scored(
            n_rows=sum(self._n_rows.values()),
            n_batches=self._n_batches,
            last_at=self._last_at,
            success=(int(n_well), well_s),
            fail=(int(n_badly), badly_s),
        )


def _by_version(name: str, told: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, told, labels=("version",))
    for version, count in counts.items():
        family.add_metric((version,), count)
    return family


def _beside(comparison: Comparison) -> Iterator[Metric]:
    """Yield what there is to say of a canary or a shadow."""
    about = comparison.about
    if about.kind == "canary":
        share = GaugeMetricFamily("lepton_canary_share", "Share of the requests that it answers.", labels=("version",))
        share.add_metric((about.version,), about.share)
        yield share
        return
    yield _by_version("lepton_shadow_rows", "Rows that a shadow scored too.", {about.version: comparison.n_compared})
    told = "Requests that a shadow could not take: too many waited."
    yield _by_version("lepton_shadow_dropped", told, {about.version: comparison.n_dropped})
    agreed = GaugeMetricFamily("lepton_shadow_agreement_share", "Rows in which both say the same.", labels=("version",))
    agreed.add_metric((about.version,), comparison.agreement_share)
    yield agreed
