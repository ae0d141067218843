"""Requirements as they are typed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.evaluate.requirements import Bound, parse_requirement


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("roc_auc >= 0.95", Bound("roc_auc", ">=", 0.95)),
        (" roc_auc>=.95 ", Bound("roc_auc", ">=", 0.95)),
        ("brier < 1e-1", Bound("brier", "<", 0.1)),
        ("recall > 0", Bound("recall", ">", 0.0)),
    ],
)
def test_a_requirement_is_a_metric_an_operator_and_a_number(text: str, bound: Bound) -> None:
    assert parse_requirement(text, "binary") == bound


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("roc_acu >= 0.9", "Did you mean 'roc_auc'?"),
        ("ROC_AUC >= 0.9", "Did you mean 'roc_auc'?"),
        ("rmse <= 3", "No metric of a binary model named 'rmse'"),
        ("roc_auc", "is not a requirement"),
        ("roc_auc >=", "is not a requirement"),
        ("", "is not a requirement"),
        ("roc_auc == 0.9", "'==' in 'roc_auc == 0.9' is no operator. Known: >=, >, <=, <."),
        ("roc_auc => 0.9", "no operator"),
        ("roc_auc >= high", "'high' in 'roc_auc >= high' is not a number"),
        ("roc_auc >= nan", "not a finite number"),
        ("log_loss <= inf", "not a finite number"),
        ("accuracy >= 95", "accuracy lies between 0 and 1; 'accuracy >= 95' asks for 95.\nFor 95 % write 0.95."),
        ("recall >= -0.1", "lies between 0 and 1"),
    ],
)
def test_what_is_no_requirement_is_refused_with_the_way_to_write_it(text: str, says: str) -> None:
    with pytest.raises(LeptonError) as caught:
        parse_requirement(text, "binary")
    assert says in str(caught.value)


def test_without_a_task_every_metric_is_known() -> None:
    assert parse_requirement("rmse <= 3").metric == "rmse"
    assert parse_requirement("roc_auc >= 0.9").metric == "roc_auc"


def test_reading_a_requirement_loads_neither_numpy_nor_sklearn() -> None:
    code = (
        "import sys; from lepton_jupyter.stages.evaluate.requirements import parse_requirement;"
        "parse_requirement('roc_auc >= 0.9');"
        "print([name for name in ('numpy', 'sklearn', 'scipy', 'polars') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
