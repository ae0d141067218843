"""Runs in real processes: queued, started, stopped, killed, adopted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.leases import LeaseFolder
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.core.processes import Identity
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.views import RunView

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
Prepare = Callable[..., RunFolder]

FOREVER = "import time\nwhile True: time.sleep(0.1)"


def metrics_cell(n_steps: int, pause_s: float) -> str:
    """Return a cell that writes a metric now and then, as a kernel does."""
    return (
        "import json, os, time\n"
        "path = os.environ['LEPTON_RUN'] + '/events.kernel.jsonl'\n"
        f"for step in range({n_steps}):\n"
        "    event = {'at': time.time(), 'kind': 'metric', 'step': step, 'values': {'loss': 1 / (step + 1)}}\n"
        "    open(path, 'a').write(json.dumps(event) + '\\n')\n"
        f"    time.sleep({pause_s})\n"
    )


def ended(client: Client, run_id: str) -> RunView:
    """Follow a run to its end."""
    for event in client.events(run_id):
        if event["kind"] == "end":
            break
    return client.run(run_id)


def processes(folder: RunFolder) -> dict[str, Identity]:
    """Return supervisor and kernel of a run."""
    found = {}
    for _, event in EventReader(folder.supervisor_events).read():
        for key in ("process", "kernel"):
            if key in event:
                found[key] = Identity(**event[key])
    return found


def running(client: Client, folder: RunFolder, wait: Wait) -> dict[str, Identity]:
    """Wait until a run's kernel runs a cell."""
    wait(lambda: client.run(folder.run_id).state == "running", timeout_s=30)
    return processes(folder)


def test_a_notebook_runs_and_its_events_arrive_once(home: Home, prepare: Prepare) -> None:
    client = Client.connect(home)
    folder = prepare(metrics_cell(5, 0.02))
    assert client.submit(folder.run_id).state == "queued"
    assert client.submit(folder.run_id[:]).run_id == folder.run_id  # twice is once
    events = list(client.events(folder.run_id))
    assert [event["step"] for event in events if event["kind"] == "metric"] == [0, 1, 2, 3, 4]
    seqs = [event["seq"] for event in events[:-1]]
    assert seqs == list(range(1, len(seqs) + 1))
    assert events[-1]["kind"] == "end"
    assert events[-1]["run"]["state"] == "completed"
    half = [event["seq"] for event in client.events(folder.run_id, after=3)][:-1]
    assert half == seqs[3:]
    view = client.run(folder.run_id[:6])
    assert (view.state, view.metrics, view.error) == ("completed", {"loss": 0.2}, None)
    assert not home.runtime().run_lock(folder.run_id).exists()


def test_a_failed_cell_fails_the_run_with_its_reason(home: Home, prepare: Prepare) -> None:
    client = Client.connect(home)
    folder = prepare("1 / 0")
    client.submit(folder.run_id)
    view = ended(client, folder.run_id)
    assert view.state == "failed"
    assert view.error is not None and "ZeroDivisionError" in f"{view.error.message} {view.error.detail}"


def test_one_slot_runs_one_at_a_time_in_order_and_a_nested_run_needs_none(
    home: Home, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "1")
    client = Client.connect(home)
    first, second, free = (
        prepare(FOREVER, needs_device=True),
        prepare("pass", needs_device=True),
        prepare("pass", needs_device=False),
    )
    for folder in (first, second, free):
        client.submit(folder.run_id)
    running(client, first, eventually)
    assert ended(client, free.run_id).state == "completed"  # it needs no device
    waiting = client.run(second.run_id)
    assert waiting.state == "queued"
    assert first.run_id in waiting.needs
    assert [device.run_id for device in client.devices()] == [first.run_id]
    assert LeaseFolder.current().is_held("cpu-0")
    nested = prepare("pass", needs_device=True, parent=first.run_id)
    client.submit(nested.run_id)
    assert ended(client, nested.run_id).state == "completed"
    client.stop_run(first.run_id, "enough")
    assert ended(client, first.run_id).state == "stopped"
    assert ended(client, second.run_id).state == "completed"
    eventually(lambda: not LeaseFolder.current().is_held("cpu-0"), timeout_s=5)


def test_stopping_a_parent_stops_its_children_and_a_queued_run_at_once(
    home: Home, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "1")
    client = Client.connect(home)
    parent = prepare(FOREVER)
    client.submit(parent.run_id)
    running(client, parent, eventually)
    child, queued = (
        prepare(FOREVER, needs_device=True, parent=parent.run_id),
        prepare("pass", needs_device=True, parent=parent.run_id),
    )
    client.submit(child.run_id)
    client.submit(queued.run_id)
    people = {**running(client, child, eventually), **processes(parent)}
    client.stop_run(parent.run_id, "enough")
    states = [ended(client, folder.run_id).state for folder in (parent, child, queued)]
    assert states == ["stopped", "stopped", "stopped"]
    eventually(lambda: not any(who.is_alive() for who in people.values()), timeout_s=5)
    assert list(home.runtime().locks.glob("run-*")) == []
    with pytest.raises(LeptonError, match="No run named"):
        client.run("nonesuch")


def test_a_killed_supervisor_is_told_about_and_leaves_nothing(home: Home, prepare: Prepare, eventually: Wait) -> None:
    client = Client.connect(home)
    folder = prepare("print('begun')", FOREVER, "print('never')")
    client.submit(folder.run_id)
    people = running(client, folder, eventually)
    statuses = '"status": "completed"', '"status": "running"'  # between the two cells there is nothing to correct
    eventually(
        lambda: folder.notebook.exists() and all(word in folder.notebook.read_text() for word in ("begun", *statuses)),
        timeout_s=20,
    )
    people["process"].send(signal.SIGKILL)
    view = ended(client, folder.run_id)
    assert view.state == "failed"
    assert view.error is not None and "supervisor was killed" in view.error.message
    eventually(lambda: not any(who.is_alive() for who in people.values()), timeout_s=5)
    notebook = json.loads(folder.notebook.read_bytes())
    assert "supervisor was killed" in json.dumps(notebook)
    assert "running" not in [cell["metadata"]["papermill"]["status"] for cell in notebook["cells"] if cell["outputs"]]


def test_a_killed_backend_adopts_its_runs_and_mlflow_has_each_metric_once(
    home: Home, prepare: Prepare, eventually: Wait
) -> None:
    client = Client.connect(home)
    eventually(lambda: client.health().is_tracking_up, timeout_s=40)
    n_steps = 60
    folder = prepare(metrics_cell(n_steps, 0.1))
    client.submit(folder.run_id)
    told: list[int] = []
    for event in client.events(folder.run_id):
        if event["kind"] == "metric":
            told.append(event["step"])
            if event["step"] in (10, 30):
                os.kill(client.health().pid, signal.SIGKILL)
    assert told == list(range(n_steps))
    assert client.run(folder.run_id).state == "completed"

    def logged() -> list[int]:
        with sqlite3.connect(home.mlflow_db) as database:
            return [row[0] for row in database.execute("select step from metrics where key = 'loss' order by step")]

    eventually(lambda: len(logged()) >= n_steps, timeout_s=20)
    assert logged() == list(range(n_steps))


def test_everything_killed_at_once_is_lost_with_the_reason(home: Home, prepare: Prepare, eventually: Wait) -> None:
    from lepton_jupyter.backend.keeper import holder

    client = Client.connect(home)
    folder = prepare(FOREVER)
    client.submit(folder.run_id)
    people = running(client, folder, eventually)
    runtime = home.runtime()
    victims = [holder(runtime.keeper_lock), holder(runtime.backend_lock), people["process"], people["kernel"]]
    for who in victims:
        assert who is not None
        who.send(signal.SIGKILL)  # the kernel may have died with its supervisor already
    view = ended(client, folder.run_id)
    assert view.state == "lost"
    assert view.error is not None and "together with the backend" in view.error.message


def test_a_queued_run_survives_the_backend(
    home: Home, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "1")
    client = Client.connect(home)
    first, second = prepare("import time; time.sleep(4)", needs_device=True), prepare("pass", needs_device=True)
    client.submit(first.run_id)
    client.submit(second.run_id)
    running(client, first, eventually)
    os.kill(client.health().pid, signal.SIGKILL)
    assert ended(client, second.run_id).state == "completed"
    assert client.run(first.run_id).state == "completed"
    assert (client.run(second.run_id).started_at or 0) >= (client.run(first.run_id).ended_at or time.time())


def test_runs_go_on_through_a_swept_runtime_folder(home: Home, prepare: Prepare, eventually: Wait) -> None:
    client = Client.connect(home)
    folder = prepare("import time; time.sleep(6)")
    client.submit(folder.run_id)
    running(client, folder, eventually)
    shutil.rmtree(home.runtime().root)
    assert ended(client, folder.run_id).state == "completed"


def test_the_users_environment_is_in_one_private_file_only(home: Home, prepare: Prepare) -> None:
    client = Client.connect(home)
    secret = "postgres://u:unlikely-secret@db"
    folder = prepare("import os; assert os.environ['DB_URL']", environment={"DB_URL": secret})
    client.submit(folder.run_id)
    assert ended(client, folder.run_id).state == "completed"
    client.stop_backend()
    found = [path for path in home.root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert found == [folder.environment]
    assert Path(folder.environment).stat().st_mode & 0o077 == 0


def test_scheduled_runs_wait_for_each_other_and_hold_up_nobody_else(
    home: Home, prepare: Prepare, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTON_SCHEDULED_SLOTS", "1")
    client = Client.connect(home)
    first, second = prepare(FOREVER, schedule="nightly"), prepare("1 + 1", schedule="weekly")
    for folder in (first, second):
        client.submit(folder.run_id)
    running(client, first, eventually)
    eventually(lambda: "1 go on at once" in client.run(second.run_id).needs)
    typed = prepare("2 + 2")
    client.submit(typed.run_id)
    assert ended(client, typed.run_id).state == "completed"
    assert client.run(second.run_id).state == "queued"
    client.stop_run(first.run_id, "enough")
    assert ended(client, second.run_id).state == "completed"


def test_eight_runs_on_two_slots_run_two_at_a_time_in_order(
    home: Home, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "2")
    client = Client.connect(home)
    said = ["normal"] * 6 + ["low", "high"]
    folders = [prepare("import time; time.sleep(0.3)", needs_device=True, priority=priority) for priority in said]
    for folder in folders:
        client.submit(folder.run_id)
    views = [ended(client, folder.run_id) for folder in folders]
    assert {view.state for view in views} == {"completed"}
    spans = [(view.started_at or 0.0, view.ended_at or 0.0) for view in views]
    assert max(sum(begin <= at < end for begin, end in spans) for at, _ in spans) == 2
    begun = sorted(range(8), key=lambda index: spans[index][0])
    assert [index for index in begun if index < 6] == list(range(6))
    assert begun[-1] == 6  # low, though it was asked for before the last
    assert begun.index(7) < 5  # high: before those that still waited


def test_what_can_never_fit_fails_at_once_with_the_known_devices(
    home: Home, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "2")
    client = Client.connect(home)
    folder = prepare("pass", needs_device=True, devices="99")
    client.submit(folder.run_id)
    view = ended(client, folder.run_id)
    assert view.state == "failed" and view.started_at is None
    assert view.error is not None and "99" in view.error.message and "cpu-0, cpu-1" in view.error.message


def test_two_homes_take_turns_and_never_hold_the_same_device(
    home: Home, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, eventually: Wait
) -> None:
    """Two backends, one GPU; in the end one that wants both GPUs, which is not held up by those behind it."""
    from lepton_jupyter.client.shutdown import shut_down

    monkeypatch.setenv("LEPTON_DEVICES_FAKE", "GPU-a,GPU-b")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    other = Home(tmp_path / "other").make()
    shutil.copyfile(home.mlflow_db, other.mlflow_db)
    clients = [Client.connect(home), Client.connect(other)]
    try:
        cell = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.3)"
        folders = [prepare(cell, needs_device=True, devices=said, home=home) for said in ("GPU-a", "GPU-a", "2")]
        theirs = [prepare(cell, needs_device=True, devices="GPU-a", home=other) for _ in range(4)]
        for client, those in zip(clients, (folders, theirs), strict=True):
            for folder in those:
                client.submit(folder.run_id)
        eventually(lambda: any("process" in (device.holder or "") for device in clients[1].devices()), timeout_s=30)
        views = [ended(clients[0], folder.run_id) for folder in folders]
        views += [ended(clients[1], folder.run_id) for folder in theirs]
        assert {view.state for view in views} == {"completed"}
        assert "GPU-a,GPU-b" in folders[2].notebook.read_text()
        spans = sorted((view.started_at or 0.0, view.ended_at or 0.0, index < 3) for index, view in enumerate(views))
        assert all(end <= begin for (_, end, _), (begin, _, _) in pairwise(spans))
        who = [is_first for *_, is_first in spans]
        assert who[1:5] in ([True, False, True, False], [False, True, False, True])  # the first has its start alone
    finally:
        shut_down(other)
