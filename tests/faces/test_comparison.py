"""Runs side by side: what differs, what came out, curves over each other; as text and without a script."""

from __future__ import annotations

import math

from lepton_jupyter.faces.objects.comparison import Comparison, Side

FALLING = [(float(step), 1 / step) for step in range(1, 101)]
RISING = [(float(step), step / 100) for step in range(1, 51)]


def sides() -> list[Side]:
    return [
        Side(
            "Net@1",
            "first",
            {"lr": 0.1, "epochs": 20, "ignore": ["a", "b"], "torch": "2.12"},
            {"val_loss": 0.2},
            {"val_loss": FALLING, "lr": FALLING, "roc_auc": RISING},
        ),
        Side(
            "Net@2",
            "second",
            {"lr": 0.01, "epochs": 20, "torch": "2.13"},
            {"val_loss": 0.1, "seconds": 3.0},
            {"val_loss": [(1.0, math.nan), *FALLING[:40]], "train_loss": FALLING[:1]},
        ),
    ]


def test_only_what_differs_is_shown_and_every_metric() -> None:
    text = repr(Comparison(sides()))
    rows = {line.split("  ")[0]: line for line in text.partition("\n\n")[0].splitlines()}
    assert "0.1" in rows["lr"] and "0.01" in rows["lr"]
    assert rows["torch"].split() == ["torch", "2.12", "2.13"]
    assert "epochs" not in rows
    assert "a, b" in rows["ignore"]
    assert "0.2" in rows["val_loss"] and "seconds" in rows


def test_curves_lie_over_each_other_losses_first_and_none_of_one_point() -> None:
    compared = Comparison(sides())
    assert list(compared.curves) == ["val_loss", "roc_auc"]
    assert list(compared.curves["val_loss"]) == ["Net@1", "Net@2"]
    page = compared._repr_html_()
    assert page.count("<polyline") == 3
    assert "nan" not in page
    assert "<script" not in page
    text = repr(compared)
    assert "█" in text and "1 → 0.01" in text


def test_the_same_run_twice_has_two_columns_and_names_are_escaped() -> None:
    evil = Side("<b>x</b>", None, {"lr": 1}, {"loss": 1.0}, {"loss": FALLING})
    compared = Comparison([evil, evil])
    assert list(compared.curves["loss"]) == ["<b>x</b> (1)", "<b>x</b> (2)"]
    assert "<b>x" not in compared._repr_html_()
    assert len(compared) == 2
