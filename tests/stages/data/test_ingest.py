"""Datasets from files and variables, on the real examples."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.reading import read_table
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Dataset, Store

EXAMPLES = Path(__file__).parents[3] / "example_notebooks"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store in a home without processes."""
    return Store(Home(tmp_path / "home").make())


def _add(store: Store, source: str = "value", value: Any = None, **flags: Any) -> tuple[DatasetRecord, Dataset]:
    record, _ = add(store.home, Data(name="d", source=source, **flags), value)
    return record, store.open("d")


def _checks(record: DatasetRecord) -> set[tuple[str, str | None]]:
    return {(finding.check, finding.column) for finding in record.findings}


def test_breast_cancer_is_binary_with_malignant_positive(store: Store) -> None:
    record, dataset = _add(store, str(EXAMPLES / "breast_cancer.csv"), target=("diagnosis",))
    assert (record.n_rows, record.split_how, record.schema.task) == (569, "stratified", "binary")
    assert (record.schema.classes, record.schema.positive) == (("B", "M"), "M")
    assert record.class_counts == {"B": 357, "M": 212}
    assert sum(record.split_rows.values()) == 569
    for split in dataset.splits():
        assert abs(dataset.targets(split).mean() - 212 / 569) < 0.01
    assert dataset.packed("train").num.shape == (record.split_rows["train"], 30)
    assert not [finding for finding in record.findings if finding.level == "problem"]


def test_penguins_have_strings_holes_and_three_classes(store: Store) -> None:
    record, dataset = _add(store, str(EXAMPLES / "penguins.csv"), target=("species",))
    assert record.schema.task == "multiclass"
    assert record.schema.classes == ("Adelie", "Chinstrap", "Gentoo")
    kinds = {column.name: (column.kind, column.has_missing) for column in record.schema.columns}
    assert kinds["sex"] == ("string", True)
    assert kinds["body_mass_g"] == ("integer", True)
    assert kinds["year"] == ("integer", False)
    assert record.schema.txt[1].categories == ("female", "male")
    assert ("missing", "sex") in _checks(record)
    assert ("leakage", "island") not in _checks(record)
    assert dataset.packed().txt.shape == (344, 2)


def test_diabetes_is_a_regression(store: Store) -> None:
    record, dataset = _add(store, str(EXAMPLES / "diabetes.csv"), target=("progression",))
    assert (record.schema.task, record.split_how) == ("regression", "random")
    assert dataset.targets().shape == (442, 1)
    assert dataset.targets().dtype == np.float64


def test_new_patients_have_the_columns_of_breast_cancer_without_the_diagnosis() -> None:
    new = read_table(EXAMPLES / "new_patients.csv")
    assert [*new.columns, "diagnosis"] == read_table(EXAMPLES / "breast_cancer.csv").columns
    assert new.height == 20
    assert int(new.null_count().sum_horizontal()[0]) == 5


def test_equal_content_and_flags_make_no_new_version(store: Store) -> None:
    spec = Data(name="d", source=str(EXAMPLES / "diabetes.csv"), target=("progression",))
    assert [add(store.home, spec)[1] for _ in range(2)] == [True, False]
    frame = read_table(EXAMPLES / "diabetes.csv")
    assert add(store.home, Data(name="d", source="frame", target=("progression",)), frame)[1] is False
    record, is_new = add(store.home, Data(name="d", source="frame", target=("progression",), seed=1), frame)
    assert (record.version, is_new) == (2, True)
    changed = frame.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(0).otherwise("age").alias("age"))
    assert add(store.home, Data(name="d", source="frame", target=("progression",), seed=1), changed)[0].n_new_rows == 1
    assert [version.version for version in store.versions("d")] == [3, 2, 1]
    assert [version.version for version in store.all()] == [3, 2, 1]


def test_a_deleted_version_gives_its_number_to_no_other(store: Store) -> None:
    frame = pl.DataFrame({"a": range(30), "y": [0.5 * i for i in range(30)]})
    for seed in range(2):
        _add(store, value=frame, target=("y",), seed=seed)
    store.delete("d", 2)
    assert _add(store, value=frame, target=("y",), seed=5)[0].version == 3


@pytest.mark.parametrize(
    ("values", "task", "classes", "positive"),
    [
        (["yes", "no", "no"], "binary", ("no", "yes"), "yes"),
        ([True, False, True], "binary", ("False", "True"), "True"),
        ([0, 1, 1], "binary", ("0", "1"), "1"),
        (["a", "b", "b"], "binary", ("a", "b"), "a"),
        ([2, 10, 1], "multiclass", ("1", "2", "10"), None),
        ([2.0, 10.0, 1.0], "regression", (), None),
        (list(range(21)), "regression", (), None),
        (list(range(20)), "multiclass", tuple(map(str, range(20))), None),
    ],
)
def test_the_task_follows_from_the_target(
    values: list[Any], task: str, classes: tuple[str, ...], positive: str | None, store: Store
) -> None:
    target = values * (60 // len(values) + 1)
    record, dataset = _add(store, value=pl.DataFrame({"x": np.arange(len(target)) % 9, "y": target}), target=("y",))
    assert (record.schema.task, record.schema.classes, record.schema.positive) == (task, classes, positive)
    if task == "multiclass":
        assert dataset.as_task("regression").targets().shape == (len(target), 1)
        assert [classes[code] for code in dataset.targets()[: len(values)]] == [str(value) for value in values]


def test_rows_without_a_target_are_in_no_split(store: Store) -> None:
    frame = pl.DataFrame({"x": range(40), "y": [None, "p", "q", "p"] * 10})
    record, dataset = _add(store, value=frame, target=("y",))
    assert sum(record.split_rows.values()) == 30
    assert ("missing_target", "y") in _checks(record)
    assert dataset.table().height == 40
    assert (dataset.targets() == -1).sum() == 10
    assert all((dataset.targets(split) >= 0).all() for split in dataset.splits())


def test_awkward_columns_become_what_they_are(store: Store) -> None:
    n = 60
    frame = pl.DataFrame(
        {
            "id": [f"row{i}" for i in range(n)],
            "nothing": pl.Series([None] * n, dtype=pl.Float64),
            "void": [None] * n,
            "count": [None if i % 7 == 0 else i * 10**6 + i % 5 for i in range(n)],
            "flag": [None if i % 9 == 0 else i % 2 == 0 for i in range(n)],
            "at": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=i) for i in range(n)],
            "day": [dt.date(2026, 1, 1) + dt.timedelta(days=i) for i in range(n)],
            "day_text": [f"2026-01-{i % 28 + 1:02d}" for i in range(n)],
            "colour": [None if i % 5 == 0 else "red" if i % 2 else "blue" for i in range(n)],
            "prose": [f"the patient said that it was {i} days and then some more" for i in range(n)],
            "code": [f"c{i}" for i in range(n)],
            "mostly": [str(i) if i else "unknown" for i in range(n)],
            "nested": [[i] for i in range(n)],
            "big": [2**53 + 1 + i for i in range(n)],
            "y": [i % 2 for i in range(n)],
        }
    )
    record, dataset = _add(store, value=frame, target=("y",), id="id")
    kinds = {column.name: column.kind for column in record.schema.columns}
    assert kinds == {
        "count": "integer", "flag": "boolean", "at": "datetime", "day": "datetime", "colour": "string", "big": "integer"
    }  # fmt: skip
    checks = _checks(record)
    wanted = {"nothing": "all_missing", "void": "all_missing", "day_text": "date_text", "prose": "free_text"}
    wanted |= {"code": "id_like", "mostly": "mixed_types", "nested": "unsupported", "big": "inexact"}
    assert {(check, name) for name, check in wanted.items()} <= checks
    assert dataset.table()["big"].to_list() == [2**53 + 1 + i for i in range(n)]
    assert dataset.ids("test") == dataset.table("test")["id"].to_list()
    packed = dataset.packed()
    assert packed.num[0, 2] == dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
    assert packed.num[1, 3] == dt.datetime(2026, 1, 2, tzinfo=dt.UTC).timestamp()
    assert np.isnan(packed.num[0, :2]).all()
    assert record.schema.example["at"] is not None


def test_arrays_become_columns_and_a_target(store: Store) -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(1.0, 6.0).reshape(5, 1)
    record, dataset = _add(store, value=(x, 2 * x), split="none")
    assert (record.schema.task, record.schema.targets, record.split_how) == ("regression", ("y",), "none")
    assert dataset.splits() == ("train",)
    assert dataset.table("train").columns == ["x0", "y"]
    assert dataset.targets("train")[:, 0].tolist() == [2, 4, 6, 8, 10]
    record, _ = _add(
        store, value=(np.zeros((40, 2)) + np.arange(40)[:, None], np.random.default_rng(0).random((40, 3)))
    )
    assert (record.schema.targets, record.schema.task) == (("y0", "y1", "y2"), "regression")


def test_images_are_kept_as_tensors(store: Store) -> None:
    images = np.random.default_rng(0).random((30, 1, 4, 4), dtype=np.float32)
    record, dataset = _add(store, value=(images, np.arange(30) % 3))
    assert record.schema.tensor_shape == (1, 4, 4)
    assert record.schema.columns == ()
    assert dataset.tensors("test").shape == (record.split_rows["test"], 1, 4, 4)
    assert (dataset.tensors()[dataset.places() == 2] == dataset.tensors("test")).all()
    assert record.schema.task == "multiclass"
    assert add(store.home, Data(name="d", source="value"), (images, np.arange(30) % 3))[1] is False


def test_a_pandas_frame_is_read_with_its_holes_and_mixed_objects(store: Store) -> None:
    frame = pd.DataFrame(
        {
            "a": [1.0, None] * 20,
            "b": pd.Categorical(["u", "v"] * 20),
            "c": pd.array([1, None] * 20, dtype="Int64"),
            "d": pd.Series([1, "x"] * 20, dtype=object),
            "e": [pd.Timestamp("2026-01-01T01:00", tz="Europe/Zurich"), pd.NaT] * 20,
            "y": ["p", "q"] * 20,
        }
    )
    record, dataset = _add(store, value=frame, target=("y",))
    kinds = {column.name: column.kind for column in record.schema.columns}
    assert kinds == {"a": "number", "b": "string", "c": "integer", "d": "string", "e": "datetime"}
    assert dataset.table()["d"].head(2).to_list() == ["1", "x"]
    assert dataset.packed().num[0, 2] == dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
    assert np.isnan(dataset.packed().num[1, 2])
    assert ("mixed_types", "d") in _checks(record)


def test_several_files_and_formats_are_one_table(store: Store, tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": range(20), "b": ["x", None] * 10, "y": [1.5 * i for i in range(20)]})
    frame.head(10).write_parquet(tmp_path / "1.parquet")
    frame.tail(10).write_parquet(tmp_path / "2.parquet")
    record, dataset = _add(store, str(tmp_path / "*.parquet"), target=("y",))
    assert dataset.table().equals(frame)
    frame.write_ipc(tmp_path / "t.arrow")
    frame.write_ndjson(tmp_path / "t.jsonl")
    frame.write_csv(tmp_path / "t.csv", separator=";")
    for name in ("t.arrow", "t.jsonl", "t.csv"):
        assert read_table(tmp_path / name).equals(frame), name
        assert add(store.home, Data(name="d", source=str(tmp_path / name), target=("y",)))[0].version == record.version


def test_text_columns_of_a_schema_stay_text_where_a_file_has_digits_only(store: Store, tmp_path: Path) -> None:
    record, _ = _add(store, value=pl.DataFrame({"k": ["1", "b"] * 20, "y": ["p", "q"] * 20}), target=("y",))
    (tmp_path / "rows.csv").write_text("k\n01\n2\n")
    assert read_table(tmp_path / "rows.csv", schema=record.schema)["k"].to_list() == ["01", "2"]
