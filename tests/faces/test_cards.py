"""Cards: script-free, escaped, with the same facts as text; and the folding of events."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lepton_jupyter import __version__
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.asking import lines_for
from lepton_jupyter.faces.objects.curve import curve
from lepton_jupyter.faces.objects.dataset import DatasetCard
from lepton_jupyter.faces.objects.evaluation import Evaluation
from lepton_jupyter.faces.objects.export import Export
from lepton_jupyter.faces.objects.history import History
from lepton_jupyter.faces.objects.run import run_html, run_text, snapshot
from lepton_jupyter.faces.objects.table import Table
from lepton_jupyter.faces.objects.text import Text
from lepton_jupyter.faces.objects.version import Endpoint, Version
from lepton_jupyter.faces.objects.when import span
from lepton_jupyter.formats.endpoint import Tls
from lepton_jupyter.formats.evaluation import Comparison, EvaluationRecord, Interval, Requirement
from lepton_jupyter.formats.records import DatasetRecord, Finding
from lepton_jupyter.formats.schema import Column, ImageInput, Schema
from lepton_jupyter.formats.views import BesideView, EndpointView, Failure, Release, RunView, VersionView
from lepton_jupyter.stages.deploy.export.place import Exported

EVIL = "<script>alert('x')</script>"
EVENTS = [
    {"at": 100.0, "kind": "state", "state": "running"},
    *(
        event
        for epoch in range(1, 5)
        for event in (
            {"at": 100.0 + epoch, "kind": "metric", "step": epoch, "values": {"train_loss": 1 / epoch, "lr": 0.1}},
            {"at": 100.0 + epoch, "kind": "progress", "done": epoch, "total": 10, "unit": "epoch"},
        )
    ),
    {"at": 104.5, "kind": "note", "key": "threads", "value": 2},
]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("br", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)


def _check(text: str) -> None:
    tags = _Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert not tags.found & {"script", "style", "link", "iframe", "object", "img"}
    assert not {name for name in tags.attributes if name.startswith("on") or name == "class"}
    assert "background:#" not in text and "color:#000" not in text and "color:#fff" not in text


def _asker(tmp_path: Path) -> Asker:
    return Asker("python", home=Home(tmp_path))


def _run(**more: Any) -> RunView:
    values: dict[str, Any] = {"run_id": "ab12", "kind": "train", "title": EVIL, "state": "running", "created_at": 99.0}
    return RunView(**{**values, "started_at": 100.0, **more})


def _dataset() -> DatasetCard:
    schema = Schema(
        columns=(Column(name=EVIL, kind="string", categories=(EVIL,)), Column(name="n", kind="number", minimum=0.5)),
        targets=("y",), task="binary", classes=("a", EVIL), positive=EVIL,
    )  # fmt: skip
    finding = Finding(check="missing", text=f"{EVIL} is missing", level="problem")
    return DatasetCard(
        DatasetRecord(
            name="wdbc", version=2, content_hash="", flags_hash="", source=EVIL, source_kind="file", created_at=1.0,
            n_rows=10, schema=schema, split_how="random", split_rows={"test": 2, "train": 8}, findings=(finding,),
            class_counts={"a": 4, EVIL: 6},
        )
    )  # fmt: skip


def _evaluation() -> Evaluation:
    return Evaluation(
        EvaluationRecord(
            model="Net", version="Net@3", run_id="ab12", dataset="wdbc@1:test", task="binary", n_rows=114,
            verdict="INCONCLUSIVE", metrics={"roc_auc": 0.96}, positive=EVIL, remark=EVIL,
            intervals={"roc_auc": Interval(low=0.94, high=0.98, method="DeLong")},
            requirements=(
                Requirement(text="roc_auc >= 0.95", metric="roc_auc", operator=">=", bound=0.95, value=0.96,
                            verdict="INCONCLUSIVE", rows_needed=400),
            ),
            comparison=Comparison(against="Net@1", metric="roc_auc", n_rows=114, verdict="better", difference=0.02,
                                  low=0.01, high=0.03),
        )
    )  # fmt: skip


def _things(tmp_path: Path) -> list[Any]:
    asker = _asker(tmp_path)
    version = VersionView(
        model="Net", run_id="ab12", number=3, bundle="", manifest_hash="", is_deployable=False, created_at=1.0,
        why_not=EVIL, aliases=("champion",), metrics={"val_loss": 0.1}, verdict="PASS", remark=EVIL,
    )  # fmt: skip
    endpoint = EndpointView(
        name="e", state="ready", version="Net@3", model="Net", run_id="ab12", url="http://127.0.0.1:1", port=1,
        token_path="/a b/token", folder="", created_at=1.0, warning=EVIL,
        replicas=3, n_ready=2,
        beside=BesideView(kind="canary", version="Net@4", run_id="cd34", started_at=1.0, share=0.1, n_requests=312,
                          verdict=EVIL),
        history=(Release(at=1.0, action="deploy", version="Net@1"), Release(at=2.0, action=EVIL, version="Net@3")),
    )  # fmt: skip
    table = Table("runs", [1], columns=("a", EVIL), rows=[(EVIL, 0.25)], pills=("a",))
    endpoint_card = Endpoint(endpoint, asker, example={EVIL: "it's"})
    return [_dataset(), _evaluation(), Version(version, asker), endpoint_card, table, Text(EVIL)]


def test_a_card_of_images_shows_them_under_their_class() -> None:
    record = msgspec.structs.replace(
        _dataset().record,
        schema=Schema(columns=(), targets=("class",), tensor_shape=(3, 24, 32),
                      image=ImageInput(height=24, width=32, channels=3)),
    )  # fmt: skip
    card = DatasetCard(record, strips={EVIL: b"\x89PNG"})._repr_mimebundle_()
    assert 'src="data:image/png;base64,iVBORw=="' in card["text/html"]
    assert EVIL not in card["text/html"] and "32x24 RGB" in card["text/html"]
    assert "images: 32x24 RGB" in card["text/plain"] and "images of 32x24 RGB" in DatasetCard(record)._line()


def test_an_endpoint_of_files_or_arrays_says_how_it_is_asked(tmp_path: Path) -> None:
    view = EndpointView(
        name="e", state="ready", version="Net@3", model="Net", run_id="ab12", url="http://127.0.0.1:1", port=1,
        token_path="/a b/token", folder="", created_at=1.0,
    )  # fmt: skip
    image = Schema(columns=(), tensor_shape=(3, 24, 32), image=ImageInput(height=24, width=32, channels=3))
    (line,) = lines_for(view, image, Path("/my photos/leaf.jpg"))
    assert line.endswith("-H 'Content-Type: image/jpeg' --data-binary '@/my photos/leaf.jpg'")
    assert lines_for(view, image, None)[0].endswith("-H 'Content-Type: image/png' --data-binary @picture.png")
    card = Endpoint(view, _asker(tmp_path), asking=lines_for(view, image, None))
    assert card.curl == line.replace("image/jpeg", "image/png").replace("'@/my photos/leaf.jpg'", "@picture.png")
    arrays = lines_for(view, Schema(columns=(), tensor_shape=(2, 5)), None)
    assert "rows = np.zeros((1, 2, 5), np.float32)" in arrays[1]
    assert Endpoint(view, _asker(tmp_path), asking=arrays).asking == arrays
    assert lines_for(view, Schema(columns=(Column(name="n", kind="number"),)), None) == []


def test_the_card_of_a_graph_names_what_reads_its_prose(tmp_path: Path) -> None:
    record = Exported(format="onnx", version="Net@3", model="Net", manifest_hash="a", parts={"graph.onnx": 1})
    assert Export(record, tmp_path).next_lines[0] == "pip install onnxruntime"
    prose = msgspec.structs.replace(record, parts={"graph.onnx": 1, "tokenizer.json": 2})
    assert Export(prose, tmp_path).next_lines[0] == "pip install onnxruntime tokenizers"


def test_where_an_endpoint_shows_a_certificate_every_way_to_ask_trusts_it_alone(tmp_path: Path) -> None:
    view = EndpointView(
        name="e", state="ready", version="Net@3", model="Net", run_id="ab12", url="https://127.0.0.1:8443", port=8443,
        token_path="/token", folder="", created_at=1.0, certificate=Tls(ends_at=9e9, names=("models.example.org",)),
        certificate_path="/a b/certificate.pem",
    )  # fmt: skip
    image = Schema(columns=(), tensor_shape=(3, 24, 32), image=ImageInput(height=24, width=32, channels=3))
    (line,) = lines_for(view, image, None)
    begin = "curl -s --cacert '/a b/certificate.pem' --connect-to ::127.0.0.1:8443 https://models.example.org:8443/"
    assert line.startswith(f"{begin}predict -H ")
    arrays = lines_for(view, Schema(columns=(), tensor_shape=(2, 5)), None)
    assert "trust = ssl.create_default_context(cafile='/a b/certificate.pem')  # this certificate alone" in arrays
    assert "context=trust" in arrays[-1]


def test_every_card_is_escaped_and_needs_no_script(tmp_path: Path) -> None:
    cards = [thing._repr_mimebundle_() for thing in _things(tmp_path)]
    failure = Failure(message=EVIL, hint=EVIL)
    cards.append({"text/html": run_html(_run(state="failed", error=failure, needs=EVIL), History(EVENTS))})
    for card in cards:
        _check(card["text/html"])
        assert "<script" not in card["text/html"]


def test_text_says_what_the_card_says(tmp_path: Path) -> None:
    dataset, evaluation, version, endpoint, *_ = map(repr, _things(tmp_path))
    assert "train 8, test 2" in dataset and "problem: " in dataset
    assert evaluation.startswith("evaluation of Net@3 on wdbc@1:test: INCONCLUSIVE")
    assert (
        "about 400 rows would settle it" in evaluation and "0.9400 to 0.9800" in evaluation and "better" in evaluation
    )
    assert "replicas: 2 of 3" in endpoint
    assert "champion PASS" in version and "not deployable" in version
    assert "http://127.0.0.1:1" in endpoint and "'/a b/token'" in endpoint
    assert "canary: Net@4: 0.1 of the requests, 312 so far · " in endpoint


def test_an_evaluation_gives_plain_floats_that_json_takes() -> None:
    evaluation = _evaluation()
    assert json.loads(json.dumps(evaluation.metrics)) == {"roc_auc": 0.96}
    assert evaluation.intervals["roc_auc"] == (0.94, 0.98)
    assert not evaluation.passed


def test_a_run_that_moves_shows_progress_and_what_is_left() -> None:
    history = History(EVENTS)
    text = run_text(_run(), history)
    assert "epoch 4 of 10" in text and "threads 2" in text and "train_loss 0.25" in text
    assert history.remaining_s(104.0) == pytest.approx(6.0)
    assert "<svg" in run_html(_run(), history)
    assert set(history.losses) == {"train_loss"}


def test_a_snapshot_of_a_run_is_ahead_of_its_view_fits_json_and_names_no_folder() -> None:
    events = [*EVENTS, {"kind": "metric", "seq": 41, "step": 5, "values": {"train_loss": math.nan, "val_loss": 0.5}}]
    view = _run(folder="/a/home/runs/x", error=Failure(message="no", detail="File /a/home/x.py"))
    found = snapshot(view, History(events))
    text = json.dumps(found, allow_nan=False)
    assert "/a/home" not in text
    assert found["run"]["seq"] == 41
    assert found["run"]["metrics"]["val_loss"] == 0.5
    assert found["run"]["progress"]["done"] == 4
    assert len(found["curve"]["train_loss"]) >= 2


def test_the_extension_and_the_package_have_one_version() -> None:
    root = Path(__file__).resolve().parents[2]
    package = json.loads((root / "labextension" / "package.json").read_text())
    assert package["version"] == __version__


def test_a_curve_leaves_out_what_is_not_finite() -> None:
    assert curve({"loss": [(1, math.nan), (2, 1.0)]}) == ""
    drawn = curve({"loss": [(1, 2.0), (2, math.inf), (3, 1.0)]})
    assert "nan" not in drawn and "inf" not in drawn
    _check(drawn)


def test_a_table_is_a_sequence_that_says_what_to_do_when_empty() -> None:
    table = Table("runs", ["b", "a"], columns=("run",), rows=[("b",), ("a",)])
    assert (table[0], list(table), len(table), table[:1]) == ("b", ["b", "a"], 2, ["b"])
    empty: Table[str] = Table("runs", [], columns=("run",), rows=[], empty="Start one.")
    assert "Start one." in repr(empty) and "Start one." in empty._repr_html_()


@pytest.mark.parametrize(("seconds", "text"), [(0.42, "0.4 s"), (42, "42 s"), (125, "2 min 5 s"), (4800, "1 h 20 min")])
def test_lengths_of_time_read_well(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.123456, "0.1235"), (3, "3"), (1234567.0, "1234567"), ("a", "a")]
)
def test_figures_read_well(value: Any, text: str) -> None:
    assert html.number(value) == text


WITHIN = [
    {"at": 100.0, "kind": "state", "state": "running"},
    {"at": 100.0, "kind": "progress", "done": 0, "total": 4, "unit": "epochs"},
    *(
        {
            "at": 100.0 + second,
            "kind": "telemetry",
            "values": {"epoch": second / 10, "loss": 1 / second, "lr": 1e-3, "rows_per_s": 25000.0},
        }
        for second in range(1, 6)
    ),
    {
        "at": 105.0,
        "kind": "telemetry",
        "values": {"cpu_cores": 1.9, "rss_bytes": 3 * 2**30, "gpu_share": 0.5, "gpu_bytes": 2**29},
    },
]


def test_a_run_shows_how_it_and_the_machine_do_within_its_first_epoch() -> None:
    history = History(WITHIN)
    view = RunView(run_id="r1", kind="train", title="Net", state="running", created_at=99.0, started_at=100.0)
    assert history.remaining_s(105.0) == pytest.approx(35.0)  # half an epoch in five seconds
    assert list(history.losses) == ["loss"]
    text = run_text(view, history)
    for fact in ("epochs 0 of 4", "rows/s 25,000", "lr 0.001", "CPU 1.9 cores", "memory 3.0 GiB", "GPU 50%", "512 MiB"):
        assert fact in text
    assert "polyline" in run_html(view, history)
    judged = [{"at": 110.0, "kind": "metric", "step": n, "values": {"train_loss": 1.0}} for n in (1, 2)]
    assert list(History([*WITHIN, *judged]).losses) == ["train_loss"]
    ended = run_text(RunView(run_id="r1", kind="train", title="Net", state="completed", created_at=99.0), history)
    assert "CPU" not in ended


def test_a_view_folds_telemetry_and_leaves_out_what_is_no_number(tmp_path: Path) -> None:
    from lepton_jupyter.backend.view import applied

    view = RunView(run_id="r1", kind="train", title="Net", state="running", created_at=99.0)
    for values in ({"loss": 2.0, "lr": 0.1}, {"loss": None}, {"cpu_cores": 1}):
        view = applied(view, {"kind": "telemetry", "values": values})
    assert view.telemetry == {"loss": 2.0, "lr": 0.1, "cpu_cores": 1.0}


def test_who_else_holds_the_gpu_is_said_in_the_card() -> None:
    held = "Your notebook's kernel (process 7) holds 512 MiB of this run's GPU."
    view = RunView(run_id="r", kind="train", title="N", state="running", created_at=1.0, notes={"gpu_held": held})
    assert held in run_text(view, History())


def test_until_its_first_figure_a_training_says_what_it_waits_for() -> None:
    def said(state: str, *events: dict[str, Any]) -> str:
        view = RunView(run_id="r", kind="train", title="N", state=state, created_at=1.0)  # type: ignore[arg-type]
        return run_text(view, History(events))

    assert "waiting for its kernel" in said("starting")
    assert "waiting for the framework and its data" in said("running")
    task = {"kind": "note", "key": "task", "value": "binary"}
    assert "waiting for its first batch" in said("running", task)
    assert "waiting" not in said("running", task, WITHIN[2])
    assert "waiting" not in said("completed")
