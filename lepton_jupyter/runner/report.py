"""A run's executed notebook as one HTML file for a browser without a network; our report as a notebook to edit.

``python -m lepton_jupyter.runner.report FOLDER`` writes ``report.html`` into a run's folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.processes import kept_environment
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner.request import read_record, stage_notebook

TEMPLATES = Path(__file__).with_name("templates")
PLOTLY = "application/vnd.plotly.v1+json"
FIRST_SHOWN = (
    PLOTLY,
    "application/vnd.jupyter.widget-view+json",
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "text/latex",
    "image/png",
    "image/jpeg",
    "text/plain",
)
WITHOUT_CODE = ("monitor", "retrain")
EXPORT_S = 300  # a large notebook on a busy machine; then there is no report.html, and the run goes on


def is_reported(record: RunRecord) -> bool:
    """Whether a run leaves a ``report.html`` by itself: nobody watched it; of others it is made when opened."""
    return record.schedule is not None


def export_beside(folder: RunFolder) -> str:
    """Write ``report.html`` from a process of its own, and return why it could not; empty where it could.

    A notebook's outputs are anybody's: whatever they do to the exporter must not reach who calls.
    """
    argv = [sys.executable, "-P", "-m", "lepton_jupyter.runner.report", str(folder.root)]
    try:
        done = subprocess.run(
            argv, env=kept_environment(), capture_output=True, text=True, timeout=EXPORT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took over {EXPORT_S} s"
    except OSError as error:
        return str(error.strerror)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def export(folder: RunFolder) -> Path:
    """Write a run's executed notebook as ``report.html``: its charts live, nothing fetched, errors shown.

    Code is shown of the user's own notebooks only. plotly.js is inside once, where there is a chart.

    Parameters
    ----------
    folder : RunFolder

    Returns
    -------
    Path
        Of the HTML file.

    Raises
    ------
    LeptonError
        If there is no executed notebook, or the file cannot be written.
    """
    import nbformat

    record = read_record(folder)
    try:
        notebook = nbformat.reads(folder.notebook.read_text(encoding="utf-8"), as_version=4)
    except FileNotFoundError as error:
        raise LeptonError(f"Run {folder.run_id} has no executed notebook yet.", code="not_found") from error
    except ValueError as error:
        raise LeptonError(f"The notebook of run {folder.run_id} cannot be read: {error}", code="failed") from error
    body = to_html(notebook, title=record.title, has_code=record.kind not in WITHOUT_CODE)
    try:
        write_atomic(folder.report, body.encode("utf-8"))
    except OSError as error:
        raise LeptonError(f"'{folder.report}' cannot be written: {error.strerror}.", code="failed") from error
    return folder.report


def to_html(notebook: Any, *, title: str, has_code: bool) -> str:
    """Return a notebook as one HTML page."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    n_charts = _number_charts(notebook)
    config = Config()
    config.NbConvertBase.display_data_priority = list(FIRST_SHOWN)
    exporter = HTMLExporter(
        config=config,
        extra_template_basedirs=[str(TEMPLATES)],
        template_name="lepton",
        mathjax_url="",
        require_js_url="",
        mermaid_js_url="",
        exclude_input=not has_code,
        exclude_input_prompt=not has_code,
        exclude_output_prompt=not has_code,
    )
    resources: dict[str, Any] = {"metadata": {"name": title}}
    if n_charts:
        from plotly.offline import get_plotlyjs

        resources["plotlyjs"] = get_plotlyjs()
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    return str(body)


def _number_charts(notebook: Any) -> int:
    """Give every chart a place, by which the page finds it; return how many there are."""
    n_charts = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).get(PLOTLY)
            if isinstance(figure, dict):
                figure["lepton_place"] = n_charts
                n_charts += 1
    return n_charts


def eject(path: Path, *, endpoint: str = "") -> Path:
    """Write our report as a notebook of the user's own, and return its path.

    Parameters
    ----------
    path : Path
    endpoint : str
        Default of its parameter.

    Raises
    ------
    LeptonError
        If something is there, or it cannot be written.
    """
    notebook = stage_notebook("monitor", title=endpoint or "an endpoint", source="")
    kept = [cell for cell in notebook["cells"] if cell["id"] != "asked"]
    for cell in kept:
        if cell["id"] == "parameters":
            cell["source"] = cell["source"].replace('endpoint = "" ', f"endpoint = {json.dumps(endpoint)} ")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps({**notebook, "cells": kept}, indent=1, ensure_ascii=False) + "\n")
    except FileExistsError as error:
        raise LeptonError(f"'{path}' is there already.", "Name another file, or move that one away.") from error
    except OSError as error:
        raise LeptonError(f"'{path}' cannot be written: {error.strerror}.", "Name another file.") from error
    return path


def main() -> int:
    """Export the run whose folder is named."""
    try:
        export(RunFolder(Path(sys.argv[1])))
    except LeptonError as error:
        print(str(error), file=sys.stderr)  # noqa: T201  who started this process reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
