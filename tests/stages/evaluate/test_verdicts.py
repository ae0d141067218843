"""Verdicts."""

from __future__ import annotations

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.evaluation import Interval
from lepton_jupyter.stages.evaluate.gate import judge

VALUES = {"roc_auc": 0.97, "recall": 0.9, "rmse": 3.0}
SPANS = {
    "roc_auc": Interval(low=0.95, high=0.985, method="DeLong"),
    "recall": Interval(low=0.8, high=0.95, method="Wilson"),
    "rmse": Interval(low=2.5, high=3.4, method="bootstrap"),
}


@pytest.mark.parametrize(
    ("texts", "verdict"),
    [
        ([], "NONE"),
        (["roc_auc >= 0.95"], "PASS"),
        (["roc_auc > 0.95"], "INCONCLUSIVE"),
        (["roc_auc >= 0.96"], "INCONCLUSIVE"),
        (["roc_auc >= 0.98"], "FAIL"),
        (["rmse <= 3.4"], "PASS"),
        (["rmse <= 3.1"], "INCONCLUSIVE"),
        (["rmse < 3"], "FAIL"),
        (["roc_auc >= 0.9", "recall >= 0.85"], "INCONCLUSIVE"),
        (["roc_auc >= 0.96", "recall >= 0.95"], "FAIL"),
        (["recall <= 0.2"], "FAIL"),
    ],
)
def test_the_near_end_passes_the_point_fails_between_is_inconclusive(texts: list[str], verdict: str) -> None:
    assert judge(texts, VALUES, SPANS, n_rows=114)[0] == verdict


def test_an_inconclusive_one_says_how_many_rows_would_settle_it() -> None:
    _, (found,) = judge(["recall >= 0.85"], VALUES, SPANS, n_rows=100)
    assert found.rows_needed == 400  # half width 0.10, distance 0.05: twice as narrow needs four times the rows
    _, (met,) = judge(["recall >= 0.8"], VALUES, SPANS, n_rows=100)
    assert met.rows_needed is None
    _, (on_it,) = judge(["recall >= 0.9"], VALUES, SPANS, n_rows=100)
    assert (on_it.verdict, on_it.rows_needed) == ("INCONCLUSIVE", None)


def test_without_an_interval_nothing_passes() -> None:
    verdict, (found,) = judge(["roc_auc >= 0.5"], VALUES, {}, n_rows=12)
    assert (verdict, found.rows_needed) == ("INCONCLUSIVE", None)
    assert judge(["roc_auc >= 0.99"], VALUES, {}, n_rows=12)[0] == "FAIL"


def test_a_metric_without_a_value_cannot_be_required() -> None:
    with pytest.raises(LeptonError, match="precision is not defined on these rows"):
        judge(["precision >= 0.5"], VALUES, SPANS, n_rows=50)
