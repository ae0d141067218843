"""Whole evaluations: real data in a real store, real graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import Bundle
from lepton_jupyter.formats.evaluation import EvaluationRecord
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.evaluate.engine import evaluate
from lepton_jupyter.stages.evaluate.spec import Evaluate
from tests.stages.evaluate.versions import Told, make_bundle, make_dataset, make_stored, table


def judged(home: Home, bundle: Bundle, dataset: Dataset, split: str = "test", **flags: Any) -> EvaluationRecord:
    against = flags.pop("against_bundle", None)
    return evaluate(
        Told(home.run("0123456789ab").root), bundle, dataset, split, spec=Evaluate(model="Linear", **flags),
        version="Linear@1", home=home, against=against, against_version="Linear@0" if against else "",
    )  # fmt: skip


def test_a_binary_version_is_measured_judged_and_written(home: Home, tmp_path: Path) -> None:
    dataset = make_dataset(home, "wdbc")
    bundle = make_bundle(tmp_path / "v1", dataset)
    told = Told(home.run("0123456789ab").root)
    spec = Evaluate(model="Linear", require=("roc_auc >= 0.95", "recall >= 0.75"))
    record = evaluate(told, bundle, dataset, "test", spec=spec, version="Linear@1", home=home)
    assert (record.verdict, record.remark, record.task) == ("PASS", "", "binary")
    assert record.dataset == f"{dataset.ref}:test"
    assert record.n_rows == dataset.record.split_rows["test"]
    assert record.positive == "malignant"  # the rarer class
    assert {"roc", "precision_recall", "confusion", "calibration", "scores", "classes"} == set(record.tables)
    assert sum(record.tables["confusion"]["rows"]) == record.n_rows
    assert max(len(column) for one in record.tables.values() for column in one.values()) <= 200
    written = home.run("0123456789ab").result.read_bytes()
    assert msgspec.json.decode(written, type=EvaluationRecord) == record
    assert b"NaN" not in written and b"null" not in written
    assert told.summary["verdict"] == told.notes["verdict"] == "PASS"
    assert json.loads(json.dumps(told.summary))["n_rows"] == record.n_rows
    assert told.metrics == record.metrics
    assert told.steps == [0, 1, 2, 3]


def test_several_classes_and_a_regression_are_measured(home: Home, tmp_path: Path) -> None:
    iris = make_dataset(home, "iris")
    record = judged(home, make_bundle(tmp_path / "iris", iris), iris, require=("accuracy >= 0.8",))
    assert record.task == "multiclass" and record.metrics["accuracy"] > 0.85
    assert set(record.tables["roc"]["class"]) == set(iris.schema.classes)
    diabetes = make_dataset(home, "diabetes")
    record = judged(home, make_bundle(tmp_path / "diabetes", diabetes), diabetes, require=("rmse <= 40",))
    assert record.verdict == "FAIL"
    actual = diabetes.targets("test")[:, 0]
    shown = record.tables["predicted_vs_actual"]
    assert set(shown["actual"]) <= set(actual.tolist())
    assert record.metrics["r2"] == pytest.approx(1 - record.metrics["mse"] / np.var(actual))


def test_rows_that_it_was_trained_on_are_told(home: Home, tmp_path: Path) -> None:
    dataset = make_dataset(home, "wdbc")
    bundle = make_bundle(tmp_path / "v1", dataset)
    assert judged(home, bundle, dataset, "train").remark == "measured on rows it was trained on"
    assert judged(home, bundle, dataset, "validation").remark == "measured on rows it was trained on"
    copied = make_dataset(home, "copy", table("wdbc")[0], seed=5)  # the same rows under another name, split anew
    remark = judged(home, bundle, copied, "test").remark
    assert remark.endswith("rows it was trained on") and remark.split(" of ")[0].isdigit()
    unknown = make_bundle(tmp_path / "v2", dataset, trained_on=None, trained_splits=())
    assert judged(home, unknown, dataset).remark == "training rows unknown"


def test_a_new_version_of_the_data_keeps_its_test_rows_unseen(home: Home, tmp_path: Path) -> None:
    frame, _ = table("wdbc")
    dataset = make_dataset(home, "wdbc", frame[:400])
    bundle = make_bundle(tmp_path / "v1", dataset)
    grown = make_dataset(home, "wdbc", frame)
    record = judged(home, bundle, grown)
    assert record.remark == ""
    assert record.n_rows > dataset.record.split_rows["test"]


def test_few_rows_have_no_intervals_and_cannot_pass(home: Home, tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1.0, 2, 3, 4, 5], "target": [2.0, 4.0, 6.0, 8.0, 10.5]})
    dataset = make_dataset(home, "line", frame, split="none")
    record = judged(home, make_bundle(tmp_path / "v1", dataset, trained_splits=("train",)), dataset, "train",
                    require=("rmse <= 5",))  # fmt: skip
    assert record.verdict == "INCONCLUSIVE" and record.intervals == {}
    assert record.remark == "measured on rows it was trained on; no intervals under 20 rows"


def test_the_better_version_is_found_better_on_rows_that_neither_saw(home: Home, tmp_path: Path) -> None:
    dataset = make_dataset(home, "wdbc")
    good = make_bundle(tmp_path / "good", dataset)
    weak = make_bundle(tmp_path / "weak", dataset, n_columns=2, C=0.001)
    found = judged(home, good, dataset, against_bundle=weak).comparison
    assert found is not None and found.verdict == "better"
    assert (found.metric, found.method, found.n_rows) == (
        "roc_auc",
        "DeLong, paired",
        dataset.record.split_rows["test"],
    )
    found = judged(home, weak, dataset, against_bundle=good, require=("log_loss <= 9",)).comparison
    assert found is not None and (found.verdict, found.metric, found.method) == (
        "worse",
        "log_loss",
        "bootstrap, paired",
    )
    assert found.difference is not None and found.high is not None and found.difference < found.high < 0


def test_without_rows_that_neither_saw_a_comparison_is_inconclusive_with_the_reason(home: Home, tmp_path: Path) -> None:
    dataset = make_dataset(home, "wdbc")
    ours, theirs = make_bundle(tmp_path / "a", dataset), make_bundle(tmp_path / "b", dataset, C=0.1)
    greedy = make_bundle(tmp_path / "c", dataset, trained_splits=("train", "validation", "test"))
    vague = make_bundle(tmp_path / "d", dataset, trained_on=None, trained_splits=())
    other = make_bundle(tmp_path / "e", make_dataset(home, "iris"))
    for bundle, against, split, reason in (
        (ours, theirs, "train", "has no rows that neither was trained on"),
        (ours, greedy, "test", "has no rows that neither was trained on"),
        (ours, vague, "test", "training rows of Linear@0 unknown"),
        (vague, ours, "test", "training rows of this version unknown"),
        (ours, ours, "test", "it is the same version"),
        (ours, other, "test", "has no column"),
    ):
        found = judged(home, bundle, dataset, split, against_bundle=against).comparison
        assert found is not None and found.verdict == "INCONCLUSIVE" and reason in found.reason


def test_data_that_does_not_fit_is_refused_by_what_is_missing(home: Home, tmp_path: Path) -> None:
    frame, _ = table("iris")
    bundle = make_bundle(tmp_path / "v1", make_dataset(home, "iris"))
    for name, value, says in (
        ("narrow", frame.drop("petal_length"), "narrow@1 does not fit Linear@1: it has no column 'petal_length'"),
        ("words", frame.with_columns(pl.lit("long").alias("petal_length")), "words@1 does not fit Linear@1"),
        ("strange", frame.with_columns(target=pl.col("target").replace("setosa", "rose")), "the class 'rose'"),
    ):
        with pytest.raises(LeptonError) as caught:
            judged(home, bundle, make_dataset(home, name, value))
        assert says in str(caught.value)
    assert not home.run("0123456789ab").result.exists()


def test_columns_in_another_order_and_columns_more_do_not_matter(home: Home, tmp_path: Path) -> None:
    frame, _ = table("iris")
    dataset = make_dataset(home, "iris", frame)
    bundle = make_bundle(tmp_path / "v1", dataset)
    turned = make_dataset(home, "turned", frame.select(reversed(frame.columns)).with_columns(more=pl.int_range(150)))
    assert judged(home, bundle, turned, "train").n_rows == turned.record.split_rows["train"]
    assert judged(home, bundle, turned, "train").metrics["accuracy"] > 0.8


def test_a_metric_of_another_task_is_refused_before_anything_is_scored(home: Home, tmp_path: Path) -> None:
    dataset = make_dataset(home, "iris")
    with pytest.raises(LeptonError, match="No metric of a multiclass model named 'rmse'"):
        judged(home, make_bundle(tmp_path / "v1", dataset), dataset, require=("rmse <= 1",))


def test_a_version_without_a_graph_is_judged_by_its_stored_predictions_on_its_own_data_only(
    home: Home, tmp_path: Path
) -> None:
    dataset = make_dataset(home, "wdbc")
    parts = []
    for split in dataset.splits():
        codes = np.asarray(dataset.targets(split)).astype(int)
        share = np.where(codes == 1, 0.9, 0.2)
        labels = [dataset.schema.classes[code] for code in codes]
        shares = dict(zip((f"probability_{name}" for name in dataset.schema.classes), (1 - share, share), strict=True))
        keys = {"split": [split] * len(codes), "row_key": dataset.row_keys(split)}
        parts.append(pl.DataFrame({**keys, "prediction": labels, **shares}))
    bundle = make_stored(tmp_path / "v1", dataset, pl.concat(parts))
    assert judged(home, bundle, dataset).metrics["roc_auc"] == 1
    other = make_dataset(home, "other", table("wdbc")[0])
    with pytest.raises(LeptonError, match=r"cannot score other@1: it has no graph \(forward depends on data\)"):
        judged(home, bundle, other)


def test_the_same_seed_gives_the_same_record(home: Home, tmp_path: Path) -> None:
    dataset = make_dataset(home, "diabetes")
    bundle = make_bundle(tmp_path / "v1", dataset)
    assert judged(home, bundle, dataset, seed=3) == judged(home, bundle, dataset, seed=3)
