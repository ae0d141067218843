"""Who becomes champion."""

from __future__ import annotations

from typing import Any

import pytest

from lepton_jupyter.formats.evaluation import Comparison, EvaluationRecord, Requirement
from lepton_jupyter.stages.maintain.decide import decide


def _compared(verdict: str, **more: Any) -> Comparison:
    about: dict[str, Any] = {"difference": 0.031, "low": 0.012, "high": 0.05} if verdict != "INCONCLUSIVE" else {}
    return Comparison(against="Net@1", metric="roc_auc", n_rows=1240, verdict=verdict, **about, **more)


def _found(verdict: str = "PASS", comparison: Comparison | None = None) -> EvaluationRecord:
    rows_needed = 400 if verdict == "INCONCLUSIVE" else None
    one = Requirement(
        text="roc_auc >= 0.9", metric="roc_auc", operator=">=", bound=0.9, value=0.93 if verdict != "FAIL" else 0.81,
        verdict=verdict, rows_needed=rows_needed,
    )  # fmt: skip
    return EvaluationRecord(
        model="Net", version="Net@2", run_id="ab12", dataset="d@2:test", task="binary", n_rows=1240,
        verdict=verdict, metrics={"roc_auc": one.value}, intervals={}, requirements=(one,), comparison=comparison,
    )  # fmt: skip


def test_only_what_passes_and_is_better_is_promoted() -> None:
    for verdict in ("PASS", "FAIL", "INCONCLUSIVE"):
        for compared in ("better", "worse", "no difference shown", "INCONCLUSIVE"):
            found = decide(_found(verdict, _compared(compared, reason="few rows")), champion="Net@1")
            assert (found.what == "promote") == (verdict == "PASS" and compared == "better"), (verdict, compared)


@pytest.mark.parametrize(
    ("found", "champion", "what", "reason"),
    [
        (
            _found(comparison=_compared("better")),
            "Net@1",
            "promote",
            "Net@2 is better than Net@1: roc_auc differs by +0.031 (+0.012 to +0.05) on 1,240 rows that neither was "
            "trained on; and it meets roc_auc >= 0.9.",
        ),
        (
            _found(comparison=_compared("INCONCLUSIVE", reason="there are no such rows")),
            "Net@1",
            "keep",
            "Net@2 is not shown to be better than Net@1: INCONCLUSIVE, there are no such rows.",
        ),
        (
            _found("FAIL", _compared("better")),
            "Net@1",
            "keep",
            "Net@2 misses what is required: roc_auc >= 0.9: FAIL, measured 0.8100.",
        ),
        (
            _found("INCONCLUSIVE", _compared("better")),
            "Net@1",
            "keep",
            "Net@2 has too few rows to say whether it is good enough: roc_auc >= 0.9: INCONCLUSIVE, measured 0.9300; "
            "about 400 rows would settle it.",
        ),
        (_found(), None, "promote", "Net@2 has no champion to beat, and it meets roc_auc >= 0.9."),
        (_found(), "Net@1", "keep", "Net@2 was not compared with Net@1."),
    ],
)
def test_the_reason_has_the_figures(found: EvaluationRecord, champion: str | None, what: str, reason: str) -> None:
    assert decide(found, champion=champion).__dict__ == {"what": what, "reason": reason}


def test_with_approval_a_better_one_waits_and_a_worse_one_does_not() -> None:
    assert decide(_found(comparison=_compared("better")), champion="Net@1", approve=True).what == "ask"
    assert decide(_found(comparison=_compared("worse")), champion="Net@1", approve=True).what == "keep"


def test_what_cannot_be_served_is_not_promoted() -> None:
    found = decide(_found(comparison=_compared("better")), champion="Net@1", why_not="its forward mixes rows")
    assert (found.what, found.reason) == ("keep", "Net@2 is not deployable: its forward mixes rows.")
