"""Counts of several processes, added up."""

from __future__ import annotations

import math
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.serving.counts import Counts, Family, Scored, of, together, with_past
from lepton_jupyter.serving.peers import _read

REMOVED = "lepton_request_log_removed_total"


def counts(
    n: float, *, in_flight: float = 0.0, agreement: float | None = None, version: str = "Net@1", removed: float = 0.0
) -> Counts:
    shadow = [] if agreement is None else [
        Family("lepton_shadow_rows", "counter", "", (("lepton_shadow_rows_total", (("version", "Net@2"),), n),)),
        Family("lepton_shadow_agreement_share", "gauge", "",
               (("lepton_shadow_agreement_share", (("version", "Net@2"),), agreement),)),
    ]  # fmt: skip
    return Counts(
        families=(
            Family("lepton_rows", "counter", "Rows.", (("lepton_rows_total", (("version", version),), n),)),
            Family("lepton_requests_in_flight", "gauge", "", (("lepton_requests_in_flight", (), in_flight),)),
            Family("process_cpu_seconds", "counter", "", (("process_cpu_seconds_total", (("replica", "1"),), n),)),
            Family("lepton_request_log_removed", "counter", "", ((REMOVED, (), removed),)),
            *shadow,
        ),
        scored=Scored(n_rows=int(n), n_batches=1, last_at=n, success=(int(n), 0.5)),
    )


def values(found: Counts) -> dict[str, float]:
    return {name: value for family in found.families for name, _, value in family.samples}


def test_counters_are_added_and_gauges_as_they_mean() -> None:
    both = together([counts(3, in_flight=2), counts(5, in_flight=1)])
    assert values(both)["lepton_rows_total"] == 8 and values(both)["lepton_requests_in_flight"] == 3
    assert both.scored == Scored(n_rows=8, n_batches=2, last_at=5, success=(8, 1.0))
    of_two = together([counts(3), counts(5, version="Net@2")])
    (rows,) = [family for family in of_two.families if family.name == "lepton_rows"]
    assert [(dict(labels)["version"], value) for _, labels, value in rows.samples] == [("Net@1", 3), ("Net@2", 5)]


def test_an_agreement_is_worth_the_rows_that_it_was_found_in() -> None:
    both = together([counts(30, agreement=1.0), counts(10, agreement=0.6), counts(0, agreement=math.nan)])
    assert values(both)["lepton_shadow_agreement_share"] == 0.9
    nothing = together([counts(0, agreement=math.nan), counts(0, agreement=math.nan)])
    assert math.isnan(values(nothing)["lepton_shadow_agreement_share"])


def test_what_is_not_known_yet_does_not_keep_the_rest_from_being_read(tmp_path: Path) -> None:
    agreement = GaugeMetricFamily("lepton_shadow_agreement_share", "Of rows.", value=math.nan)
    told = of([agreement, CounterMetricFamily("lepton_rows", "Rows.", value=3)], Scored(), number=1)
    (tmp_path / "counts.json").write_bytes(encode(told))
    assert _read(tmp_path / "counts.json") == told and values(told) == {"lepton_rows_total": 3}


def test_what_all_processes_tell_of_one_folder_is_told_once() -> None:
    of_one = counts(1, removed=40)
    assert values(together([of_one, counts(2, removed=40)]))[REMOVED] == 40
    assert values(with_past(counts(1, removed=41), of_one))[REMOVED] == 41


def test_an_earlier_life_is_added_but_for_what_was_about_the_process() -> None:
    now = with_past(counts(1, in_flight=1, agreement=1.0), counts(100, in_flight=7, agreement=0.5))
    found = values(now)
    assert (found["lepton_rows_total"], found["lepton_requests_in_flight"]) == (101, 1)
    assert (found["process_cpu_seconds_total"], found["lepton_shadow_rows_total"]) == (1, 1), "these live elsewhere"
    assert now.scored.n_rows == 101
    assert with_past(counts(1), None) == counts(1)
