"""A firing alert in a real backend: it starts the retrain of the model that the endpoint serves, once."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home, new_run_id
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.schedule import ScheduleRecord
from lepton_jupyter.formats.views import DeployRequest
from tests.backend.conftest import cells

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]


def define(home: Home, client: Client, path: Path, *sources: str, **values: Any) -> None:
    """Define a schedule that fires when it is asked to."""
    path.write_text(json.dumps(cells(*sources)))
    record = ScheduleRecord(
        **{
            "kind": "notebook", "python": sys.executable, "cwd": str(path.parent), "created_at": time.time(),
            "notebook": str(path), "subject": path.name, **values,
        }
    )  # fmt: skip
    folder = home.schedule(record.name, new_run_id())
    folder.root.mkdir(parents=True)
    folder.environment.write_text(json.dumps(dict(os.environ)))
    folder.record.write_bytes(encode(record))
    client.define_schedule(record.name, folder.generation)


def test_an_alert_starts_the_retrain_of_what_the_endpoint_serves(
    home: Home, saved: Callable[..., str], tmp_path: Path, eventually: Wait
) -> None:
    client = Client.connect(home)
    client.submit(saved("Net"))
    client.deploy(DeployRequest(name="e", model="Net", force="not judged here"))
    define(home, client, tmp_path / "retrain.ipynb", "print('as asked')", name="retrain-Net")
    watched = {"subject": "e", "alerts": ("psi > 0.2",), "for_reports": 1, "on_alert": "retrain"}
    check = "import lepton_jupyter as lepton\nlepton.check('psi', 0.4)"
    define(home, client, tmp_path / "report.ipynb", check, name="watch-e", **watched)
    client.fire_schedule("watch-e", "")
    (alert,) = eventually(client.alerts, timeout_s=90, what="the report is judged")
    started = eventually(
        lambda: next((line for line in client.alerts()[0].history if line.what == "started"), None), timeout_s=60
    )
    run = client.run(str(started.run_id))
    assert (run.schedule, alert.state, alert.subject) == ("retrain-Net", "firing", "e")
    why = client.schedule("retrain-Net").firings[0].why
    assert why == f"alert {alert.id} of watch-e: psi is 0.4: it meets psi > 0.2."

    eventually(lambda: client.run(run.run_id).ended_at, timeout_s=90)
    second = client.fire_schedule("watch-e", "")
    eventually(lambda: client.alerts()[0].run_id == second, timeout_s=90, what="the second report is judged")
    assert client.schedule("retrain-Net").n_fired == 1
    client.stop_endpoint("e")
