"""What one process of an endpoint has counted, as a file's content, and what several have counted together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

SUMMED = ("counter", "histogram")
SUMMED_GAUGES = ("lepton_requests_in_flight",)
OF_THE_FOLDER = ("lepton_request_log_removed",)  # which all share: each tells the same number, over all lives
WEIGHTED = {"lepton_shadow_agreement_share": "lepton_shadow_rows"}  # a gauge, and what it is worth
KEPT_ELSEWHERE = ("lepton_shadow", "lepton_canary")  # `figures.json` holds them over a restart
OF_A_PROCESS = "process_"

_Labels = tuple[tuple[str, str], ...]
_Key = tuple[str, _Labels]


class Family(Struct, frozen=True):
    """One metric: its name, type and help, and its samples as name, labels and value."""

    name: str
    kind: str
    told: str
    samples: tuple[tuple[str, _Labels, float], ...]


class Scored(Struct, frozen=True, kw_only=True):
    """What the Open Inference Protocol's statistics ask for.

    Attributes
    ----------
    last_at : float
        When the last batch was scored, seconds since 1970; 0 where none was.
    success, fail : tuple of int and float
        Requests for rows, and the seconds that they took together.
    """

    n_rows: int = 0
    n_batches: int = 0
    last_at: float = 0.0
    success: tuple[int, float] = (0, 0.0)
    fail: tuple[int, float] = (0, 0.0)

    def __add__(self, other: Scored) -> Scored:
        return Scored(
            n_rows=self.n_rows + other.n_rows,
            n_batches=self.n_batches + other.n_batches,
            last_at=max(self.last_at, other.last_at),
            success=(self.success[0] + other.success[0], self.success[1] + other.success[1]),
            fail=(self.fail[0] + other.fail[0], self.fail[1] + other.fail[1]),
        )


class Counts(Struct, frozen=True, kw_only=True):
    """``counts.json``: what a process has counted, over all of its lives."""

    families: tuple[Family, ...] = ()
    scored: Scored = Scored()

    @property
    def of_requests(self) -> Counts:
        """Without what is about the process itself, which is new at every look."""
        kept = [one for one in self.families if not one.name.startswith(OF_A_PROCESS)]
        return Counts(families=tuple(kept), scored=self.scored)

    @property
    def past(self) -> Counts:
        """What is still true of it when the process is gone."""
        kept = [one for one in self.of_requests.families if one.kind in SUMMED]
        return Counts(families=tuple(kept), scored=self.scored)


def of(found: Iterable[Metric], scored: Scored, *, number: int) -> Counts:
    """Return the counts of a process; what is about the process itself is labelled with its number."""
    families = []
    for metric in found:
        own = (("replica", str(number)),) if metric.name.startswith(OF_A_PROCESS) else ()
        samples = tuple(
            (sample.name, (*sorted(sample.labels.items()), *own), float(sample.value))
            for sample in metric.samples
            if not math.isnan(sample.value)  # nothing is known yet; JSON has no word for it
        )
        families.append(Family(metric.name, metric.type, metric.documentation, samples))
    return Counts(families=tuple(families), scored=scored)


def with_past(counts: Counts, past: Counts | None) -> Counts:
    """Return the counts of a process and of its earlier lives."""
    if past is None:
        return counts
    kept = [one for one in past.past.families if not one.name.startswith(KEPT_ELSEWHERE)]
    return together([counts, Counts(families=tuple(kept), scored=past.scored)])


def together(found: Sequence[Counts]) -> Counts:
    """Return the counts of several processes as those of one: counters are added, gauges as their meaning is."""
    values: dict[str, dict[_Key, float]] = {}
    about: dict[str, Family] = {}
    for counts in found:
        for family in counts.families:
            about.setdefault(family.name, family)
            known = values.setdefault(family.name, {})
            is_summed = family.name not in OF_THE_FOLDER and (family.kind in SUMMED or family.name in SUMMED_GAUGES)
            for name, labels, value in family.samples:
                before = known.get((name, labels))
                known[name, labels] = value if before is None else before + value if is_summed else max(before, value)
    for name in values.keys() & WEIGHTED.keys():
        values[name] = _weighted(found, name)
    families = [
        Family(name, one.kind, one.told, tuple((*key, value) for key, value in values[name].items()))
        for name, one in about.items()
    ]
    return Counts(families=tuple(families), scored=sum((counts.scored for counts in found), Scored()))


def _weighted(found: Sequence[Counts], name: str) -> dict[_Key, float]:
    """Return the mean of a gauge over processes, each worth as much as its counter says."""
    sums: dict[_Key, float] = {}
    worth: dict[_Key, float] = {}
    for counts in found:
        weights = {labels: value for _, labels, value in _samples(counts, WEIGHTED[name])}
        for sample, labels, value in _samples(counts, name):
            key, weight = (sample, labels), weights.get(labels, 0.0)
            worth[key] = worth.get(key, 0.0) + weight
            sums[key] = sums.get(key, 0.0) + (weight * value if weight else 0.0)
    return {key: sums[key] / worth[key] if worth[key] else float("nan") for key in sums}


def _samples(counts: Counts, name: str) -> tuple[tuple[str, _Labels, float], ...]:
    return next((family.samples for family in counts.families if family.name == name), ())


class AsCollector(Collector):
    """Counts as prometheus_client writes them."""

    def __init__(self, counts: Counts, *more: Metric) -> None:
        self._counts, self._more = counts, more

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        for family in self._counts.families:
            metric = Metric(family.name, family.told, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric
        yield from self._more
