"""What the checks find, and what they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.charts import figures
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.leakage import rank_auc
from lepton_jupyter.stages.data.personal import is_card, is_email, is_iban, is_phone
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Store

N = 400
RNG = np.random.default_rng(0)
Y = RNG.random(N) < 0.3
X = RNG.normal(size=N)


def _checks(tmp_path: Path, columns: dict[str, Any], **flags: Any) -> dict[tuple[str, str | None], str]:
    frame = pl.DataFrame({"x": X, "y": Y, **columns})
    spec = Data(name="d", source="frame", **{"target": ("y",), **flags})
    record, _ = add(Home(tmp_path / "home").make(), spec, frame)
    return {(finding.check, finding.column): finding.text for finding in record.findings}


def test_clean_data_has_no_finding(tmp_path: Path) -> None:
    assert _checks(tmp_path, {"z": RNG.normal(size=N)}) == {}


@pytest.mark.parametrize(
    ("name", "values", "check", "said"),
    [
        ("z", [None if i % 10 == 0 else float(i % 17) for i in range(N)], "missing", "missing in 40 rows (10.0 %)"),
        ("z", [1.0] * N, "constant", "is 1.0 in every row"),
        ("z", np.where(Y, 2.0, 1.0) + RNG.random(N) / 2, "leakage", "rank AUC 1.000"),
        ("z", np.where(Y, "left", "stayed"), "leakage", "names the class in 100.0 % of rows"),
        ("z", [1e6 if i == 7 else float(i % 13) for i in range(N)], "outliers", "1 row, such as 1e+06"),
        ("z", list(range(1000, 1000 + N)), "id_like", "Say --id z"),
        ("customer_id", (np.arange(N) * 7919 % 100_003).tolist(), "id_like", "Say --id customer_id"),
        (
            "z",
            ["unknown" if i == 3 else str(i % 9) for i in range(N)],
            "mixed_types",
            "all values except 1 are numbers",
        ),
        ("z", [f"person{i % 150}@example.org" for i in range(N)], "personal", "e-mail"),
        ("z", ["4539 1488 0343 6467", "5500 0000 0000 0004"] * (N // 2), "personal", "payment cards"),
        ("z", ["+41 44 668 18 00", "(030) 1234 5678"] * (N // 2), "personal", "telephone"),
        ("surname", ["Weber", "Rossi", "Novak", "Silva"] * (N // 4), "personal", "names"),
    ],
)
def test_each_check_finds_its_fault(name: str, values: Any, check: str, said: str, tmp_path: Path) -> None:
    found = _checks(tmp_path, {name: values})
    assert said in found[(check, name)]


def test_rare_classes_and_few_rows_are_said(tmp_path: Path) -> None:
    found = _checks(tmp_path, {"y": ["rare" if i % 80 == 0 else "often" for i in range(N)]})
    assert "'rare' is rare: 5 rows of 400 (1.2 %)" in found[("imbalance", "y")]
    assert "too few to learn" in found[("few_in_class", "y")]
    home = Home(tmp_path / "other").make()
    record, _ = add(
        home, Data(name="d", source="v", target=("y",)), pl.DataFrame({"x": range(30), "y": ["p", "q"] * 15})
    )
    assert "30 rows only" in {finding.check: finding.text for finding in record.findings}["few_rows"]


def test_repeated_rows_and_ids_are_counted(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "who": [f"u{i % 100}" for i in range(N)],
            "x": [float(i % 100) for i in range(N)],
            "y": [i % 2 for i in range(N)],
        }
    )
    home = Home(tmp_path / "home").make()
    record, _ = add(home, Data(name="d", source="v", target=("y",), id="who"), frame)
    found = {finding.check: finding.text for finding in record.findings}
    assert "300 rows repeat an earlier row." in found["duplicates"]
    assert "of these rows lie in more than one split" in found["duplicates"]
    assert "--group who keeps them together" in found["repeated_ids"]


def test_a_copy_of_a_numeric_target_is_leakage(tmp_path: Path) -> None:
    y = RNG.normal(size=N)
    found = _checks(tmp_path, {"y": y, "later": np.exp(y)})
    assert "rank correlation 1.0000" in found[("leakage", "later")]
    assert ("leakage", "x") not in found


def test_rank_auc_counts_ties_half() -> None:
    from sklearn.metrics import roc_auc_score

    values = RNG.integers(0, 5, N).astype(float)
    assert rank_auc(values, Y) == pytest.approx(roc_auc_score(Y, values), abs=1e-12)


def test_check_digits_tell_numbers_from_accounts_and_cards() -> None:
    assert is_iban("DE89 3704 0044 0532 0130 00") and not is_iban("DE88 3704 0044 0532 0130 00")
    assert is_card("4539148803436467") and not is_card("4539148803436468")
    assert is_email("a.b@example.org") and not is_email("a@b")
    assert is_phone("+49 30 901820") and not any(
        map(is_phone, ("2026-01-31", "192.168.10.24", "12345.678", "12345678"))
    )


def test_the_charts_follow_from_record_and_profile(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    frame = pl.DataFrame({"x": X, "k": RNG.integers(0, 3, N), "s": ["u", None] * (N // 2), "y": Y})
    record, _ = add(home, Data(name="d", source="v", target=("y",)), frame)
    titles = [figure.layout.title.text for figure in figures(record, Store(home).open("d").profile())]
    assert titles == ["Rows of each y", "Missing values in the training rows", "x", "k", "s"]
