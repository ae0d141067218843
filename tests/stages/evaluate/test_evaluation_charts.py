"""What a person sees: charts from tables, words, HTML."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.states import Task
from lepton_jupyter.formats.evaluation import Comparison, EvaluationRecord
from lepton_jupyter.stages.evaluate.charts import CLEAR, Drawn, figures
from lepton_jupyter.stages.evaluate.gate import judge
from lepton_jupyter.stages.evaluate.intervals import intervals
from lepton_jupyter.stages.evaluate.sample import Sample, classified, regressed
from lepton_jupyter.stages.evaluate.scores import values
from lepton_jupyter.stages.evaluate.summary import Summary, as_html, as_text
from lepton_jupyter.stages.evaluate.tables import MOST_POINTS, calibration, confusion, tables, thin


def scored(task: Task, n_rows: int = 600, n_classes: int = 2) -> Sample:
    rng = np.random.default_rng(0)
    if task == "regression":
        y = rng.normal(0, 1, (n_rows, 2))
        return regressed(actual=y, predicted=y + rng.normal(0, 0.2, y.shape), targets=("price", "rent"))
    actual = rng.integers(0, n_classes, n_rows)
    probability = rng.dirichlet(np.ones(n_classes), n_rows)
    probability[np.arange(n_rows), actual] += 0.3
    probability /= probability.sum(axis=1, keepdims=True)
    names = tuple(f"<class {code}>" for code in range(n_classes))
    return classified(actual=actual, probability=probability, classes=names, positive=1, task=task)


def record_of(sample: Sample, require: tuple[str, ...] = (), **fields: object) -> EvaluationRecord:
    found = values(sample)
    spans = intervals(sample, found, seed=0)
    verdict, requirements = judge(require, found, spans, n_rows=sample.n_rows)
    record = EvaluationRecord(
        model="<b>Net", version="<b>Net@1", run_id="0123", dataset="d@1:test", task=sample.task, n_rows=sample.n_rows,
        verdict=verdict, metrics=found, intervals=spans, classes=sample.classes, requirements=requirements,
        positive=sample.classes[sample.positive] if sample.task == "binary" else None,
        tables=tables(sample, seed=0),
    )  # fmt: skip
    return msgspec.structs.replace(record, **fields)


@pytest.mark.parametrize(
    ("task", "n_classes", "n_charts"),
    [("binary", 2, 5), ("multiclass", 4, 2), ("multiclass", 30, 2), ("regression", 0, 3)],
)
def test_charts_are_drawn_from_the_record_as_it_lies_on_disk(task: Task, n_classes: int, n_charts: int) -> None:
    record = record_of(scored(task, n_classes=n_classes))
    read = msgspec.json.decode(msgspec.json.encode(record), type=EvaluationRecord)
    drawn = figures(read)
    assert len(drawn) == n_charts
    for figure in drawn:
        assert len(figure.to_json()) < 60_000
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == CLEAR
    assert "90 %" in drawn[0].layout.title.text


def test_a_chart_without_plotly_is_its_title() -> None:
    bundle = Drawn(figures(record_of(scored("binary")))[0])._repr_mimebundle_()
    assert bundle["text/plain"].startswith("[chart: ROC AUC 0.")
    assert json.loads(json.dumps(bundle["application/vnd.plotly.v1+json"]))["data"]


def test_tables_stay_small_and_whole() -> None:
    found = tables(scored("binary", 20_000), seed=0)
    assert max(len(column) for table in found.values() for column in table.values()) <= MOST_POINTS
    assert found["roc"]["fpr"][0] == 0 and found["roc"]["tpr"][-1] == 1
    assert sum(found["scores"]["positive"]) + sum(found["scores"]["negative"]) == 20_000
    assert tables(scored("regression"), seed=1) == tables(scored("regression"), seed=1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_thinned_curve_keeps_its_area() -> None:
    xs = np.sort(np.random.default_rng(0).random(5_000))
    ys = np.sqrt(xs)
    keep = thin(xs, ys, 200)
    assert len(keep) <= 201
    assert np.trapezoid(ys[keep], xs[keep]) == pytest.approx(np.trapezoid(ys, xs), abs=1e-3)


def test_confusion_and_calibration_worked_by_hand() -> None:
    score = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    sample = classified(actual=np.array([0, 1, 1, 1, 0]), probability=np.c_[1 - score, score], classes=("no", "yes"),
                        positive=1, task="binary")  # fmt: skip
    assert confusion(sample) == {
        "actual": ["no", "no", "yes", "yes"], "predicted": ["no", "yes", "no", "yes"], "rows": [1, 1, 1, 2],
    }  # fmt: skip
    found = calibration(sample)
    assert found["rows"] == [2, 3]
    assert found["observed"] == pytest.approx([0.5, 2 / 3])
    assert found["predicted"] == pytest.approx([0.05, 2.9 / 3])


def test_words_say_verdict_requirement_and_every_metric_with_its_interval() -> None:
    record = record_of(scored("binary"), ("roc_auc >= 0.5", "recall >= 0.999"), remark="training rows unknown")
    text = as_text(record)
    assert text.startswith("✗ FAIL")
    assert "Mind: training rows unknown." in text
    assert "recall >= 0.999: FAIL, measured" in text
    assert all(method in text for method in ("DeLong", "Wilson", "bootstrap"))
    assert repr(Summary(record)) == text


def test_an_open_requirement_says_how_many_rows_would_settle_it() -> None:
    sample = scored("binary", 60)
    value = values(sample)["accuracy"]
    record = record_of(sample, (f"accuracy >= {value - 0.01}",))
    assert record.verdict == "INCONCLUSIVE"
    assert "rows would settle it" in as_text(record)


def test_html_has_no_script_and_escapes_what_users_named() -> None:
    other = Comparison(against="<i>Net@0", metric="roc_auc", n_rows=9, verdict="better", difference=0.1, low=0.05,
                       high=0.15, method="DeLong, paired")  # fmt: skip
    page = as_html(
        record_of(scored("binary"), ("roc_auc >= 0.5",), comparison=other, remark="<script>alert(1)</script>")
    )
    assert "<script" not in page and "<b>Net" not in page and "<i>Net" not in page
    assert "&lt;b&gt;Net@1" in page
    assert "better by +0.1 (+0.05 to +0.15, DeLong, paired) on 9 rows" in page


@pytest.mark.slow
def test_the_runs_notebook_leaves_verdict_and_charts(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    from lepton_jupyter.formats.records import RunRecord
    from lepton_jupyter.runner.request import prepare_run, stage_notebook
    from tests.stages.evaluate.versions import make_bundle, make_dataset

    dataset = make_dataset(home, "wdbc")
    make_bundle(home.bundles / "aaaaaaaaaaaa", dataset)
    make_bundle(home.bundles / "bbbbbbbbbbbb", dataset, C=0.01)
    record = RunRecord(
        run_id="0123456789ab", kind="evaluate", title="Linear@1", created_at=0.0, python=sys.executable,
        cwd=str(tmp_path),
        spec={"model": "Linear@1", "require": ["roc_auc >= 0.9"], "against": "Linear@2"}, model_version="aaaaaaaaaaaa",
        against="bbbbbbbbbbbb", dataset=f"{dataset.ref}:test",
    )  # fmt: skip
    notebook = stage_notebook("evaluate", title="Linear@1", source="%lepton evaluate Linear@1")
    folder = prepare_run(home, record, notebook=notebook, captured=None, environment={})
    monkeypatch.setenv("LEPTON_RUN", str(folder.root))
    executed = nbformat.reads(folder.source.read_text(), as_version=4)
    NotebookClient(executed, timeout=120).execute()
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert all(output.output_type != "error" for output in outputs)
    shown = [output["data"] for output in outputs if "data" in output]
    assert "PASS" in shown[0]["text/html"] and "Against Linear@2" in shown[0]["text/plain"]
    assert sum("application/vnd.plotly.v1+json" in data for data in shown) == 5
    assert '"verdict":"PASS"' in folder.kernel_events.read_text().replace(" ", "")
    assert folder.result.exists()
