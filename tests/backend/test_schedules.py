"""Schedules in real backends: defined, fired, paused, removed, gone on with after kill -9."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder, new_run_id
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.schedule import FiringView, ScheduleRecord
from lepton_jupyter.formats.views import DeployRequest
from lepton_jupyter.runner.request import read_record
from lepton_jupyter.runner.scheduled import source_hash

from .conftest import cells

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
Define = Callable[..., str]


@pytest.fixture
def define(home: Home, tmp_path: Path) -> Define:
    """Write a schedule's folder as a client does, around a notebook of these cells; return its generation."""

    def write(*sources: str, name: str = "report", environment: dict[str, str] | None = None, **more: Any) -> str:
        path = tmp_path / f"{name}.ipynb"
        if sources:
            path.write_text(json.dumps(cells(*sources)))
        record = ScheduleRecord(
            **{
                "name": name,
                "kind": "notebook",
                "subject": path.name,
                "python": sys.executable,
                "cwd": str(tmp_path),
                "created_at": time.time(),
                "notebook": str(path),
                "source_hash": source_hash(path),
                **more,
            }
        )
        generation = new_run_id()
        folder = home.schedule(name, generation)
        folder.root.mkdir(parents=True, mode=0o700)
        folder.environment.write_text(json.dumps({**os.environ, **(environment or {})}))
        folder.environment.chmod(0o600)
        folder.record.write_bytes(encode(record))
        return generation

    return write


def firings(home: Home, name: str) -> list[dict[str, Any]]:
    """Return the rows of a schedule's firings, oldest first."""
    with sqlite3.connect(f"file:{home.state_db}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("SELECT * FROM firings WHERE schedule = ? ORDER BY due_at", [name])
        return [dict(row) for row in found]


def first_ended(client: Client, name: str) -> FiringView | None:
    """Return the first firing whose run has ended."""
    ended = [each for each in client.schedule(name).firings if each.run_state in ENDED]
    return ended[-1] if ended else None


def test_a_notebook_fires_at_its_due_time_in_its_own_folder_with_its_environment(
    home: Home, define: Define, eventually: Wait, tmp_path: Path
) -> None:
    client = Client.connect(home)
    path = str(tmp_path / "seen")
    cell = f"import os; open({path!r}, 'w').write(os.getcwd() + region + os.environ['R'])"
    generation = define(cell, every="1s", parameters={"region": " north"}, environment={"R": "!"})
    view = client.define_schedule("report", generation)
    assert (view.state, view.every) == ("active", "1s")
    last = eventually(lambda: first_ended(client, "report"))
    client.pause_schedule("report")
    assert (tmp_path / "seen").read_text() == f"{tmp_path} north!"
    record = read_record(RunFolder(home.run(last.run_id).root))
    assert (record.schedule, record.due_at, record.asked_by) == ("report", last.due_at, "schedule")
    assert view.next_due_at is not None and last.due_at >= view.next_due_at
    assert last.run_state == "completed"
    assert client.run(last.run_id).schedule == "report"


def test_a_schedule_goes_on_by_itself_when_kernel_and_backend_are_killed_and_every_due_time_is_accounted_for(
    home: Home, define: Define, eventually: Wait
) -> None:
    client = Client.connect(home)
    view = client.define_schedule("report", define("1 + 1", every="2s", overlap="queue"))
    assert view.next_due_at is not None
    for _ in range(3):
        before = client.schedule("report").n_fired
        os.kill(client.health().pid, signal.SIGKILL)  # nobody asks for it again: the keeper has it back
        eventually(lambda n=before: len([each for each in firings(home, "report") if each["run_id"]]) > n, timeout_s=60)
    client.pause_schedule("report")
    now = time.time()
    rows = firings(home, "report")
    eventually(lambda: not client.tick().run_ids, timeout_s=120, what="every run at its end")
    rows = firings(home, "report")
    due = [view.next_due_at + 2 * index for index in range(1000) if view.next_due_at + 2 * index <= rows[-1]["due_at"]]
    assert sum(1 + row["n_missed"] for row in rows) == len(due)
    assert {row["due_at"] for row in rows} <= set(due)
    assert rows[-1]["due_at"] > now - 30
    run_ids = [row["run_id"] for row in rows if row["state"] == "fired"]
    made = {view.run_id: view for view in client.runs(limit=1000)}
    assert sorted(made) == sorted(run_ids), "each firing has its run, and each run its firing"
    assert all(view.state in ("completed", "lost") for view in made.values())


def test_a_pause_lets_the_run_go_on_and_a_second_definition_resumes(
    home: Home, define: Define, eventually: Wait
) -> None:
    client = Client.connect(home)
    client.define_schedule("report", define("import time; time.sleep(3)", every="1s"))
    firing = eventually(lambda: (found := client.schedule("report").firings) and found[-1].run_id and found[-1])
    assert client.pause_schedule("report").state == "paused"
    assert client.schedule("report").next_due_at is None
    assert list(client.events(firing.run_id))[-1]["run"]["state"] == "completed"
    n_firings = len(firings(home, "report"))
    assert client.define_schedule("report", define(every="1s")).state == "active"
    eventually(lambda: len(firings(home, "report")) > n_firings)


def test_a_schedule_is_deleted_by_its_reference(home: Home, define: Define) -> None:
    client = Client.connect(home)
    client.define_schedule("report", define("1", every="1h"))
    with pytest.raises(LeptonError, match="schedule/report"):
        client.delete("report")
    assert client.delete("schedule/report") == "schedule 'report'"
    assert client.schedules() == []
    assert not (home.schedules / "report").exists()
    with pytest.raises(LeptonError, match="No schedule named 'report'"):
        client.delete("schedule/report")


def test_a_failing_notebook_is_tried_again_for_real(
    home: Home, define: Define, eventually: Wait, tmp_path: Path
) -> None:
    client = Client.connect(home)
    cell = (
        f"import pathlib; tries = pathlib.Path({str(tmp_path / 'tries')!r})\n"
        "text = tries.read_text() if tries.exists() else ''\n"
        "tries.write_text(text + 'x')\n"
        "assert len(text) == 1, 'not yet'"
    )
    client.define_schedule("report", define(cell, every="", retries=1))
    run_id = client.fire_schedule("report", "now")
    assert list(client.events(run_id))[-1]["run"]["state"] == "failed"
    eventually(lambda: client.schedule("report").firings[0].attempt == 1, timeout_s=60)
    eventually(lambda: client.schedule("report").firings[0].run_state == "completed", timeout_s=60)
    assert (tmp_path / "tries").read_text() == "xx"


def test_checks_are_in_the_view_in_rows_and_in_mlflow(home: Home, define: Define, eventually: Wait) -> None:
    client = Client.connect(home)
    cell = (
        "import json, os, time\n"
        "for name, value in (('psi', 0.9), ('psi', 0.41), ('missing(the age)', 0.25), ('p95_latency_ms', None)):\n"
        "    event = {'at': time.time(), 'kind': 'check', 'name': name, 'value': value}\n"
        "    open(os.environ['LEPTON_RUN'] + '/events.kernel.jsonl', 'a').write(json.dumps(event) + '\\n')"
    )
    client.define_schedule("report", define(cell, every=""))
    run_id = client.fire_schedule("report", "now")
    view = list(client.events(run_id))[-1]["run"]
    assert view["checks"] == {"psi": 0.41, "missing(the age)": 0.25, "p95_latency_ms": None}
    with sqlite3.connect(f"file:{home.state_db}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT name, value, schedule FROM checks WHERE run_id = ?", [run_id]).fetchall()
    assert sorted(rows) == sorted((name, value, "report") for name, value in view["checks"].items())

    def recorded() -> list[Any]:
        with sqlite3.connect(f"file:{home.mlflow_db}?mode=ro", uri=True) as connection:
            return connection.execute("SELECT key, value FROM latest_metrics ORDER BY key").fetchall()

    eventually(lambda: recorded() == [("missing/the age", 0.25), ("psi", 0.41)], timeout_s=60)


def test_a_second_tick_beside_the_backend_s_own_clock_fires_nothing_twice(
    home: Home, define: Define, eventually: Wait
) -> None:
    client = Client.connect(home)
    client.define_schedule("report", define("1", every="1s", overlap="queue"))
    eventually(lambda: (client.tick(), len(firings(home, "report")) > 4)[1], timeout_s=60)
    client.pause_schedule("report")
    eventually(lambda: not client.tick().run_ids, timeout_s=120)
    run_ids = [row["run_id"] for row in firings(home, "report") if row["state"] == "fired"]
    assert sorted(run_ids) == sorted(view.run_id for view in client.runs(limit=1000))


def test_a_report_on_a_real_endpoint_knows_its_window_and_goes_with_the_endpoint(
    home: Home, define: Define, saved: Callable[..., str], judge: Callable[..., Any]
) -> None:
    client = Client.connect(home)
    version = saved()
    client.submit(version)
    judge(client, version)
    created_at = client.deploy(DeployRequest(name="small", model="Net")).created_at
    about = {"name": "monitor-small", "kind": "monitor", "subject": "small", "every": ""}
    client.define_schedule("monitor-small", define("print(endpoint, window_start, window_end)", **about))
    assert client.window_start("small", "monitor-small") == created_at
    run_id = client.fire_schedule("monitor-small", "alert 1 of monitor-small")
    view = list(client.events(run_id))[-1]["run"]
    assert (view["state"], view["endpoint"], view["schedule"]) == ("completed", "small", "monitor-small")
    record = read_record(home.run(run_id))
    assert record.parameters["window_start"] == created_at < record.parameters["window_end"]
    assert client.window_start("small", "monitor-small") == record.parameters["window_end"]
    assert client.window_start("small") == created_at
    with pytest.raises(LeptonError, match="No endpoint named 'smal'"):
        client.window_start("smal")
    client.delete("endpoint/small")
    assert client.schedules() == []
