"""A report's page in Chromium without a network, and the picture that a mail gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.runner.request import stage_notebook
from tests.runner.conftest import StartedRun, start  # noqa: F401  a fixture
from tests.runner.test_reports import START, ask, rows, watched

SANDBOX = "sandbox allow-scripts"  # as the server extension sends it


@pytest.fixture
def report(home: Home, start: Callable[..., StartedRun]) -> RunFolder:  # noqa: F811  the fixture above
    """The folder of a report that was really run: older people ask, and one request in a hundred is refused."""
    watched(home)
    for second in range(6):
        ask(home, rows(100, seed=second, older=15), at=START + 40 * second)
    run = start(
        notebook=stage_notebook("monitor", title="diagnosis", source="%lepton monitor diagnosis --every 5m"),
        kind="monitor",
        endpoint="diagnosis",
        schedule="monitor-diagnosis",
        parameters={"endpoint": "diagnosis", "window_start": START, "window_end": START + 300},
    )
    assert run.end()["state"] == "completed", run.folder.log.read_text()
    return run.folder


def test_the_page_shows_its_charts_without_a_network_and_in_a_sandbox(
    report: RunFolder, page: Any, shots: Path
) -> None:
    assert report.report.stat().st_size < 6 * 2**20
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.goto(report.report.as_uri())
    n_charts = _n_charts(report)
    assert n_charts >= 4
    _all_drawn(page, n_charts)
    assert [url[:60] for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.errors == []
    assert "DRIFT" in page.inner_text("body") and "age drifted" in page.inner_text("body")
    assert "lepton.window" not in page.inner_text("body")  # no code
    page.screenshot(path=shots / "report.png", full_page=True)
    (shots / "report-mail.png").write_bytes(report.picture.read_bytes())

    page.context.set_offline(False)
    body = report.report.read_bytes()
    headers = {"Content-Security-Policy": SANDBOX, "Content-Type": "text/html"}
    page.route("http://reports.test/**", lambda route: route.fulfill(body=body, headers=headers))
    page.goto("http://reports.test/report")
    _all_drawn(page, n_charts)


def _n_charts(report: RunFolder) -> int:
    notebook = json.loads(report.notebook.read_text())
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return sum("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs)


def _all_drawn(page: Any, n_charts: int) -> None:
    """Wait until every chart has drawn bars or lines."""
    drawn = "[...document.querySelectorAll('.lepton-plot .js-plotly-plot')].filter(x => x.querySelector('.trace path'))"
    page.wait_for_function(f"n => {drawn}.length === n", arg=n_charts)
