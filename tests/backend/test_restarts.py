"""Runs that go on after a death: in their own folder, twice at most, each step told once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.formats.events import EventReader, EventWriter
from lepton_jupyter.runner.request import read_record
from tests.backend.test_runs import ended, processes

Wait = Callable[..., Any]
Prepare = Callable[..., RunFolder]

# A program that is a checkpoint's: it tells of ten steps, and writes down how far it is after every other one. It may
# be killed at any moment, also in the midst of writing.
PROGRAM = """
import json, os, time
folder = os.environ['LEPTON_RUN']
os.makedirs(folder + '/checkpoints', exist_ok=True)
state = folder + '/checkpoints/state.safetensors'
step = int(open(state).read()) if os.path.exists(state) else 0
def say(kind, **data):
    with open(folder + '/events.kernel.jsonl', 'a') as file:
        file.write(json.dumps({'at': time.time(), 'kind': kind, **data}) + '\\n')
while step < 10:
    step += 1
    say('metric', step=step, values={'loss': 1 / step})
    if step % 2 == 0:
        open(state + '.new', 'w').write(str(step))
        os.replace(state + '.new', state)
    gate = folder + f'/gate-{step}'
    while os.path.exists(gate):
        time.sleep(0.02)
"""


def gate(folder: RunFolder, step: int) -> Any:
    """Let the program wait at a step for as long as the file is there."""
    path = folder.root / f"gate-{step}"
    path.touch()
    return path


def metrics(folder: RunFolder) -> list[int]:
    return [event["step"] for _, event in EventReader(folder.events).read() if event["kind"] == "metric"]


def at_step(folder: RunFolder, step: int, wait: Wait) -> None:
    wait(lambda: step in metrics(folder), timeout_s=60, what=f"step {step}")


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint_and_tells_each_step_once(
    home: Home, prepare: Prepare, eventually: Wait
) -> None:
    client = Client.connect(home)
    folder = prepare(PROGRAM, kind="tune", needs_device=True)
    gates = [gate(folder, 3), gate(folder, 7)]
    client.submit(folder.run_id)
    at_step(folder, 3, eventually)
    first = processes(folder)
    first["kernel"].send(signal.SIGKILL)
    gates[0].unlink()
    at_step(folder, 7, eventually)
    second = processes(folder)
    assert second != first
    (folder.checkpoints / ".last.safetensors.0.tmp").write_text("half of it")
    second["process"].send(signal.SIGKILL)
    gates[1].unlink()
    view = ended(client, folder.run_id)
    assert view.state == "completed", view.error
    assert view.notes["restarts"] == 2
    assert metrics(folder) == list(range(1, 11))
    told = [event for _, event in EventReader(folder.events).read() if "restarting" in event]
    assert len(told) == 2 and "killed" in told[0]["restarting"] and "supervisor was killed" in told[1]["restarting"]
    assert not any(who.is_alive() for who in (*first.values(), *second.values()))
    assert list(home.runtime().kernels.iterdir()) == []
    assert list(folder.root.rglob(".*.tmp")) == []


@pytest.mark.slow
def test_the_third_death_fails_the_run_with_the_reason(home: Home, prepare: Prepare, eventually: Wait) -> None:
    client = Client.connect(home)
    folder = prepare("import os; os.kill(os.getpid(), 9)", kind="train")
    client.submit(folder.run_id)
    view = ended(client, folder.run_id)
    assert view.state == "failed"
    assert view.error is not None
    assert "killed by the system" in view.error.message and "MB at its peak" in view.error.message
    assert "started again twice" in view.error.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "code"),
    [("cell", "os.kill(os.getpid(), 9)"), ("notebook", "os.kill(os.getpid(), 9)"), ("train", "os._exit(3)")],
)
def test_what_might_do_a_thing_twice_or_ended_itself_is_not_started_again(
    home: Home, prepare: Prepare, kind: str, code: str
) -> None:
    client = Client.connect(home)
    folder = prepare(f"import os; {code}", kind=kind)
    client.submit(folder.run_id)
    view = ended(client, folder.run_id)
    assert view.state == "failed"
    assert "restarts" not in view.notes


@pytest.mark.slow
def test_a_stop_of_the_host_is_no_fault_of_the_run(home: Home, prepare: Prepare, eventually: Wait) -> None:
    from lepton_jupyter.backend.keeper import holder

    client = Client.connect(home)
    folder = prepare(PROGRAM, kind="tune")
    held = gate(folder, 5)
    client.submit(folder.run_id)
    at_step(folder, 5, eventually)
    runtime, people = home.runtime(), processes(folder)
    for who in (holder(runtime.keeper_lock), holder(runtime.backend_lock), people["process"], people["kernel"]):
        assert who is not None
        who.send(signal.SIGKILL)
    held.unlink()
    view = ended(Client.connect(home), folder.run_id)
    assert view.state == "completed"
    assert view.notes["restarts"] == 0
    assert "together with the backend" in view.notes["restart_reason"]
    assert metrics(folder) == list(range(1, 11))


@pytest.mark.slow
def test_a_death_while_it_is_being_stopped_is_a_stop(
    home: Home, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    monkeypatch.setenv("LEPTON_CPU_SLOTS", "1")
    client = Client.connect(home)
    folder = prepare(PROGRAM, kind="tune", needs_device=True)
    gate(folder, 3)
    client.submit(folder.run_id)
    at_step(folder, 3, eventually)
    client.stop_run(folder.run_id, "enough")
    processes(folder)["kernel"].send(signal.SIGKILL)
    assert ended(client, folder.run_id).state == "stopped"


def test_a_backend_that_starts_again_knows_what_was_told_before_the_death(prepare: Prepare) -> None:
    folder = prepare("pass", kind="train")
    record = read_record(folder)
    kernel, supervisor = EventWriter(folder.kernel_events), EventWriter(folder.supervisor_events)
    run = FollowedRun(folder, record)
    run.add("state", state="starting")
    for step in (1, 2, 3):
        kernel.write("metric", step=step, values={"loss": float(step)})
    kernel.write("metric", step=3, values={"accuracy": 0.5})
    supervisor.write("state", state="failed", died=True, error={"message": "killed"})
    run.pull()
    assert run.ending is not None and run.ending["died"]
    run.go_on("killed", is_counted=True)
    run.close()
    supervisor.write("state", state="starting")
    kernel.write("note", key="resumed", value={"epoch": 2})
    for step in (2, 3, 4):
        kernel.write("metric", step=step, values={"loss": float(step), "accuracy": 0.5})
    again = FollowedRun(folder, record)
    again.pull()
    assert (again.n_restarts, again.view.state) == (1, "starting")
    told = [
        (event["step"], name)
        for _, event in EventReader(folder.events).read()
        if event["kind"] == "metric"
        for name in event["values"]
    ]
    assert sorted(told) == sorted({*told})
    assert {step for step, name in told if name == "accuracy"} == {2, 3, 4}
    again.close()
