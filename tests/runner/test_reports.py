"""A monitor's run by a real supervisor: notebook, record, picture, checks, page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import nbformat
import numpy as np
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import CARD, GRAPH, PREDICTED, PROFILE, SCHEMA, Bundle, encode, write_bundle
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.predicted import pack_predictions, schema_of_predictions
from lepton_jupyter.formats.profile import build
from lepton_jupyter.formats.requestlog import LoggedRequest, SegmentWriter
from lepton_jupyter.runner.report import eject, export
from lepton_jupyter.runner.request import stage_notebook
from tests.runner.conftest import StartedRun, code_cells
from tests.serving.graphs import SCHEMA_BINARY, card, graph

START = 1_700_000_000.0


def rows(n: int, *, seed: int, older: float = 0.0) -> Packed:
    """Return rows that fit SCHEMA_BINARY."""
    rng = np.random.default_rng(seed)
    num = np.column_stack([rng.normal(50 + older, 12, n), rng.poisson(1.5, n)]).astype(float)
    return Packed(num, rng.choice(np.array(["Biscoe", "Dream"], dtype=object), (n, 1)))


def labels(packed: Packed) -> np.ndarray:
    """Return what a model might say."""
    return np.where(packed.num[:, 0] > 60, "yes", "no").astype(object)


def watched(home: Home, *, version: str = "Net@1") -> Bundle:
    """Put an endpoint's folder there, with a bundle that knows its training."""
    known = rows(1_000, seed=0)
    files = {
        GRAPH: graph(SCHEMA_BINARY),
        SCHEMA: encode(SCHEMA_BINARY),
        CARD: encode(card()),
        PROFILE: encode(build(SCHEMA_BINARY, known)),
        PREDICTED: encode(build(schema_of_predictions(SCHEMA_BINARY), pack_predictions(SCHEMA_BINARY, labels(known)))),
    }
    bundle = write_bundle(home.bundles / "abc123", files)
    config = EndpointConfig(
        name="diagnosis", release=1, model="Net", version=version, bundle=str(bundle.root),
        manifest_hash=bundle.manifest_hash, port=1, token_hashes=(),
    )  # fmt: skip
    folder = home.endpoint("diagnosis")
    folder.root.mkdir(parents=True)
    write_atomic(folder.config, encode(config))
    return bundle


def ask(home: Home, packed: Packed, *, version: str = "Net@1", at: float = START) -> None:
    """Write requests of one row each into the endpoint's log, a refused one at their end."""
    writer = SegmentWriter(home.endpoint("diagnosis").requests)
    said = labels(packed)
    for place in range(packed.n_rows):
        one = Packed(packed.num[place : place + 1], packed.txt[place : place + 1])
        writer.write(
            LoggedRequest.of_rows(
                one, request_id=f"r{place}", at=at + place / 10, version=version, bundle="abc123", latency_ms=2.0,
                ids=[f"p{at}-{place}"], prediction=[said[place]], probability=np.array([0.5, 0.5], "<f4").tobytes(),
            )
        )  # fmt: skip
    writer.write(
        LoggedRequest(
            request_id="bad", at=at + 1, version=version, latency_ms=0.5, n_rows=0, status=422, error="Row 0: no age"
        )
    )
    writer.close()


@pytest.fixture
def reported(start: Callable[..., StartedRun], home: Home) -> Callable[..., StartedRun]:
    """Run a report on the endpoint's last five minutes."""

    def run(notebook: dict[str, Any] | None = None, **record: Any) -> StartedRun:
        parameters = {"endpoint": "diagnosis", "window_start": START, "window_end": START + 300}
        made = notebook or stage_notebook("monitor", title="diagnosis", source="%lepton monitor diagnosis")
        said = {"kind": "monitor", "endpoint": "diagnosis", "parameters": parameters} | record
        return start(notebook=made, **said)

    return run


def test_a_report_leaves_its_record_picture_checks_and_page(home: Home, reported: Callable[..., StartedRun]) -> None:
    watched(home)
    ask(home, rows(600, seed=1, older=15))
    run = reported(schedule="monitor-diagnosis")
    assert run.end()["state"] == "completed", run.folder.log.read_text()
    record = msgspec.json.decode(run.folder.result.read_bytes(), type=MonitorRecord)
    assert (record.verdict, record.run_id) == ("DRIFT", run.folder.run_id)
    assert "age drifted" in record.headline and "the predictions" in record.headline
    assert record.checks["psi"] == record.checks["psi(age)"] > 0.5
    assert record.checks["error_rate"] == pytest.approx(1 / 601)
    told = {event["name"]: event["value"] for event in run.told() if event["kind"] == "check"}
    assert told == record.checks
    (result,) = [event for event in run.told() if event["kind"] == "result"]
    assert result["verdict"] == "DRIFT" and result["window_end"] == START + 300
    assert run.folder.picture.read_bytes().startswith(b"\x89PNG")
    page = run.folder.report.read_text()
    assert "DRIFT" in page and "Plotly.newPlot" in page
    assert "lepton.window(" not in page  # our code is hidden
    assert len(page) < 6 * 2**20


def test_without_traffic_and_with_too_little_nothing_is_called_no_drift(
    home: Home, reported: Callable[..., StartedRun]
) -> None:
    watched(home)
    run = reported()
    assert run.end()["state"] == "completed"
    assert msgspec.json.decode(run.folder.result.read_bytes(), type=MonitorRecord).verdict == "NO TRAFFIC"
    ask(home, rows(1, seed=1))
    run = reported()
    assert run.end()["state"] == "completed"
    record = msgspec.json.decode(run.folder.result.read_bytes(), type=MonitorRecord)
    assert (record.verdict, record.checks["psi"], record.checks["predictions"]) == ("NOT ENOUGH DATA", None, 1.0)


def test_a_report_of_ones_own_uses_window_and_check(home: Home, reported: Callable[..., StartedRun]) -> None:
    watched(home)
    ask(home, rows(50, seed=1))
    notebook = code_cells(
        "import lepton_jupyter as lepton\nwindow = lepton.window()\nprint(window.rows.columns)",
        'lepton.check("share_of_old", (window.rows["age"] > 60).mean())\n1 / 0',
    )
    run = reported(notebook, schedule="monitor-diagnosis")
    assert run.end()["state"] == "failed"
    (check,) = [event for event in run.told() if event["kind"] == "check"]
    assert check["name"] == "share_of_old" and 0 <= check["value"] <= 1
    page = run.folder.report.read_text()
    assert "ZeroDivisionError" in page


def test_the_ejected_report_runs_as_the_users_own(
    home: Home, tmp_path: Path, reported: Callable[..., StartedRun]
) -> None:
    watched(home)
    ask(home, rows(600, seed=1))
    path = eject(tmp_path / "mine.ipynb", endpoint="diagnosis")
    nbformat.validate(nbformat.read(path, as_version=4))
    with pytest.raises(LeptonError, match="is there already"):
        eject(path)
    run = reported(json.loads(path.read_text()))
    assert run.end()["state"] == "completed"
    assert msgspec.json.decode(run.folder.result.read_bytes(), type=MonitorRecord).verdict == "OK"


def test_a_users_scheduled_notebook_shows_its_code_and_needs_no_plotly(start: Callable[..., StartedRun]) -> None:
    run = start("print('north: 3')", schedule="weekly")
    assert run.end()["state"] == "completed"
    page = run.folder.report.read_text()
    assert "north: 3" in page and "print" in page
    assert len(page) < 2**20
    run = start("print(1)")
    assert run.end()["state"] == "completed"
    assert not run.folder.report.exists()  # nobody asked for it yet
    export(run.folder)
    assert run.folder.report.exists()


def test_a_page_that_cannot_be_made_fails_no_run(start: Callable[..., StartedRun], eventually: Any) -> None:
    run = start(
        "import os, pathlib\npathlib.Path(os.environ['LEPTON_RUN'], 'report.html').mkdir()",
        schedule="weekly",
    )
    assert run.end()["state"] == "completed"
    (note,) = [event for event in run.events() if event.get("key") == "no_report"]
    assert "report.html" in note["value"]


def test_a_window_that_has_just_ended_waits_for_the_log(home: Home) -> None:
    from lepton_jupyter.stages.monitor.window import read_window

    watched(home)
    began = time.time()
    read_window(home, "diagnosis", began - 60, began)
    assert time.time() >= began + 0.9
    with pytest.raises(LeptonError, match=r"No endpoint named .diagnosys.\. Known: diagnosis\. Did you mean"):
        read_window(home, "diagnosys", began - 60, began)
