"""A report's verdict, checks and sentences on windows whose truth is known."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import Column, Schema
from lepton_jupyter.stages.monitor.charts import figures
from lepton_jupyter.stages.monitor.engine import report
from lepton_jupyter.stages.monitor.picture import draw
from lepton_jupyter.stages.monitor.rules import KNOWN_CHECKS
from lepton_jupyter.stages.monitor.summary import as_html, as_text
from tests.benchmarks.drift import (
    SETTINGS,
    Setting,
    autocorrelated,
    bursts,
    doubled,
    measure,
    missing,
    normal_columns,
    one_sd,
    users,
)
from tests.stages.monitor.traffic import Rows, requests

N_NULL = 60
N_SHIFTED = 20


@pytest.fixture(scope="module", params=["wdbc", "penguins"])
def rows(request: pytest.FixtureRequest) -> Rows:
    return Rows.of(request.param)


@pytest.mark.parametrize("setting", [one for one in SETTINGS if one.is_null], ids=lambda one: one.name)
def test_where_nothing_changed_no_column_is_called_drifted(rows: Rows, setting: Setting) -> None:
    line = measure(rows, setting, n=N_NULL, seed=1)
    assert (line.drifted, line.verdict) == (0.0, 0.0)


@pytest.mark.parametrize("shift", [one_sd, missing, doubled], ids=lambda shift: str(shift.__name__))
def test_a_change_that_matters_is_caught_in_its_column(rows: Rows, shift: Any) -> None:
    if shift is doubled and not rows.schema.txt:
        pytest.skip("wdbc has no categories")
    line = measure(rows, Setting("", shift, is_null=False), n=N_SHIFTED, seed=1)
    assert line.caught >= 0.95


def test_dependent_rows_count_for_what_they_are_worth() -> None:
    rng = np.random.default_rng(0)
    rows = normal_columns(rng)
    reference = rows.draw(rng, 1_000)

    def effective(drawn: Any) -> float:
        return report(drawn.rows.window(reference, ids=drawn.ids)).window.n_effective

    assert effective(bursts(rows, rng, size=3, n=3_000)) == pytest.approx(1_000, rel=0.05)
    assert effective(bursts(rows, rng, size=10, n=3_000)) == pytest.approx(300, rel=0.1)
    assert effective(users(rows, rng, n=3_000)) == 300
    # (1 - 0.9) / (1 + 0.9) of the rows, as for the mean of a first-order autoregression
    assert effective(autocorrelated(rows, rng, n=10_000)) == pytest.approx(10_000 / 19, rel=0.3)


def test_a_change_in_dependent_rows_is_caught_once_they_are_enough() -> None:
    rng = np.random.default_rng(0)
    rows = Rows.of("wdbc")
    reference = rows.draw(rng, 1_000)
    window = bursts(rows, rng, size=3, n=3_000).rows
    window.packed.num[:, 4] += np.std(rows.packed.num[:, 4])
    record = report(window.window(reference))
    assert record.verdict == "DRIFT"
    assert [column.name for column in record.columns if column.has_drifted] == [rows.schema.num[4].name]
    assert "worth" in " ".join(record.sentences)


def test_too_few_rows_are_not_called_no_drift() -> None:
    rng = np.random.default_rng(0)
    rows = Rows.of("wdbc")
    reference = rows.draw(rng, 1_000)
    record = report(rows.draw(rng, 299).window(reference))
    assert record.verdict == "NOT ENOUGH DATA"
    assert record.sentences[0] == "299 effective rows of 300. This is not 'no drift'."
    measured = ("psi", "drifted_columns", "prediction_drift", "psi(mean_radius)")
    assert [record.checks[name] for name in measured] == [None] * 4
    assert report(rows.draw(rng, 301).window(reference)).verdict == "OK"


def test_no_rows_are_no_traffic_even_where_requests_were_refused() -> None:
    rows = Rows.of("wdbc")
    empty = rows.at(np.empty(0, dtype=int))
    record = report(empty.window(rows))
    assert (record.verdict, record.headline) == ("NO TRAFFIC", "no row was scored in 5 minutes")
    assert record.checks["error_rate"] is None and record.checks["p95_latency_ms"] is None
    assert draw(record) is None and figures(record) == []
    refused = report(empty.window(rows, requests=requests(0, failed=7)))
    assert refused.headline == "no row was scored in 5 minutes; 7 requests refused or failed"
    assert refused.checks["error_rate"] == 1.0
    assert refused.tables["errors"]["requests"] == [7]
    assert draw(refused) is not None


def test_one_row_and_constant_columns_have_a_report() -> None:
    schema = Schema(columns=(Column(name="one", kind="number"), Column(name="text", kind="string")), classes=("a", "b"))
    n = 1_000
    values = Packed(np.ones((n, 1)), np.full((n, 1), "same", dtype=object))
    rows = Rows(schema, values, np.full(n, "a", dtype=object))
    assert report(rows.at(np.array([0])).window(rows)).verdict == "NOT ENOUGH DATA"
    same = report(rows.window(rows))
    assert (same.verdict, same.checks["psi"], same.window.n_effective) == ("OK", 0.0, n)
    moved = rows.at(np.arange(n))
    moved.packed.num[::2] = 2.0
    record = report(moved.window(rows))
    assert record.headline == "one drifted"
    assert record.columns[0].n_outside == 500


def test_known_checks_are_filled_and_nothing_else_is_invented() -> None:
    rng = np.random.default_rng(0)
    rows = Rows.of("penguins")
    record = report(rows.draw(rng, 500).window(rows.draw(rng, 1_000)))
    assert {name.partition("(")[0] for name in record.checks} == {check.name for check in KNOWN_CHECKS}
    assert all(value is not None for value in record.checks.values())
    for check in KNOWN_CHECKS:
        if check.is_share:
            assert 0 <= (record.checks[check.name] or 0) <= 1


def test_missing_unseen_and_outside_are_told_with_their_figures() -> None:
    rng = np.random.default_rng(0)
    rows = Rows.of("penguins")
    window = rows.draw(rng, 500)
    names = [column.name for column in rows.schema.num]
    window.packed.num[:50, names.index("body_mass_g")] = np.nan
    window.packed.num[50:100, names.index("bill_length_mm")] = 500.0
    window.packed.txt[:25, 0] = "Atlantis"
    record = report(window.window(rows.draw(rng, 1_000)))
    said = " ".join(record.sentences)
    assert "body_mass_g is missing in 11 % of rows" in said or "body_mass_g is missing in 10 % of rows" in said
    assert "island: 5.0 % of rows have a category that training had not." in said
    assert record.verdict == "DRIFT"  # more values are missing
    assert record.checks["unseen"] == record.checks["unseen(island)"] == 0.05
    assert record.checks["missing"] == record.checks["missing(body_mass_g)"]
    assert record.checks["outside"] is not None and record.checks["outside"] >= 50


def test_rows_of_another_version_are_compared_but_its_predictions_are_not() -> None:
    rng = np.random.default_rng(0)
    rows = Rows.of("wdbc")
    window, reference = rows.draw(rng, 800), rows.draw(rng, 1_000)
    asked = requests(800).with_columns(version=np.where(np.arange(800) < 400, "Net@1", "Net@2"))
    window.predictions[:400] = "M"  # what the old version said
    record = report(window.window(reference, requests=asked, version="Net@2"))
    assert record.verdict == "OK" and record.versions == {"Net@1": 400, "Net@2": 400}
    assert record.checks["prediction_drift"] == 0.0
    window.predictions[:] = "M"
    moved = report(window.window(reference, requests=asked, version="Net@2"))
    assert moved.headline == "the predictions changed"
    assert moved.sentences[0].startswith("Predicted M 100 %, 3")


def test_without_a_profile_of_training_nothing_is_called_no_drift() -> None:
    rng = np.random.default_rng(0)
    rows = Rows.of("wdbc")
    record = report(rows.draw(rng, 500).window(None))
    assert record.verdict == "NOT ENOUGH DATA"
    assert "keeps no profile of its predictions" in " ".join(record.sentences)


def test_a_report_reads_well_and_survives_json() -> None:
    rng = np.random.default_rng(0)
    rows = Rows.of("wdbc")
    window = rows.draw(rng, 500)
    window.packed.num[:, 0] += 4
    record = report(window.window(rows.draw(rng, 1_000)))
    assert msgspec.json.decode(msgspec.json.encode(record), type=MonitorRecord) == record
    assert as_text(record).startswith("✗ DRIFT: mean_radius drifted\n")
    assert "PSI" in record.sentences[0] and "where chance gives 0.03; its mean is" in record.sentences[0]
    named = msgspec.structs.replace(record, endpoint="<script>alert(1)</script>")
    assert "<script" not in as_html(named)
    drawn = figures(record)
    assert [figure.layout.title.text for figure in drawn][:2] == [
        "PSI of each column, beside what chance gives (the largest 20)",
        "mean_radius: drifted",
    ]
    assert sum(len(figure.to_json()) for figure in drawn) < 200_000
    picture = draw(record)
    assert picture is not None and len(picture) < 200_000
