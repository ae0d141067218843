"""What survives what: each row of the table in the README, once, with a run of about ten seconds."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest

from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import Identity, is_held
from lepton_jupyter.formats.events import EventReader
from tests.life.conftest import SLOW_NET, CellError, Notebook

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
IS_SOAK = bool(os.environ.get("LEPTON_SOAK"))  # make soak: every case with a run of a minute
EPOCHS = 150 if IS_SOAK else 12
SLOW = SLOW_NET.format(pause=0.05)  # six steps an epoch: about half a second with validation


def _train(notebook: Notebook, *, epochs: int = EPOCHS) -> str:
    notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    notebook.run(SLOW)
    return notebook.start(f"run = %lepton train TumorNet --data wdbc --epochs {epochs} --batch-size 64")


def _running(client: Any, wait: Wait, *, epochs: int = 2) -> Any:
    """Return the newest training run once it has finished some epochs."""

    def look() -> Any:
        runs = client.runs(kind="train")
        return runs[0] if runs and runs[0].progress.get("done", 0) >= epochs else None

    return wait(look, timeout_s=60, what="the run trains")


def _ended(client: Any, run_id: str, wait: Wait, *, timeout_s: float = 240 if IS_SOAK else 60) -> Any:
    ended = ("completed", "failed", "stopped", "lost")
    return wait(lambda: (v := client.run(run_id)).state in ended and v, timeout_s=timeout_s, what="the run ends")


def _processes(home: Home, run_id: str) -> dict[str, Identity]:
    """Return supervisor and kernel of a run, from its own events."""
    found: dict[str, Identity] = {}
    for _, event in EventReader(home.run(run_id).supervisor_events).read():
        for key, name in (("process", "supervisor"), ("kernel", "kernel")):
            if key in event:
                found[name] = Identity(**event[key])
    return found


def test_a_run_outlives_the_kernel_that_asked_for_it(
    notebook: Notebook, new_notebook: Callable[..., Notebook], client: Any, eventually: Wait
) -> None:
    """(a) kill -9 of the notebook's kernel."""
    _train(notebook)
    run = _running(client(), eventually)
    notebook.kill()
    assert _ended(client(), run.run_id, eventually).state == "completed"
    other = new_notebook()
    other.run(f"run = lepton.show('{run.run_id}')")
    shown = other.run("print(sum('val_loss' in event.get('values', {}) for event in run.events()))")
    assert shown.strip().endswith(str(EPOCHS))


def test_the_stop_button_keeps_the_best_checkpoint(notebook: Notebook, client: Any, eventually: Wait) -> None:
    """(c) ■ alone: no step after 2 s, state stopped, evaluate works."""
    request = _train(notebook, epochs=500)
    run = _running(client(), eventually)
    notebook.interrupt()
    pressed = monotonic()
    stopping = eventually(
        lambda: client().run(run.run_id).notes.get("stopping") or client().run(run.run_id).state == "stopped",
        timeout_s=10,
    )
    assert stopping
    sleep(max(0.0, 2 - (monotonic() - pressed)))
    n_events = len(list(EventReader(home_of(run).kernel_events).read()))
    done = client().run(run.run_id).progress["done"]
    try:
        shown = notebook.finish(request)
    except CellError as error:
        shown = str(error)
    ended = _ended(client(), run.run_id, eventually)
    assert ended.state == "stopped"
    assert ended.progress["done"] == done
    assert n_events > 0
    assert "stopped" in shown
    assert "roc_auc" in notebook.run("print(lepton.evaluate('TumorNet').metrics)")


LOADER = """
from torch.utils.data import DataLoader, Dataset
class Rows(Dataset):
    def __len__(self):
        return 384
    def __getitem__(self, place):
        return torch.full((30,), float(place % 2)), place % 2
loader = DataLoader(Rows(), batch_size=64, shuffle=True, num_workers=2)
"""


def test_the_stop_button_ends_a_training_whose_loader_has_workers(
    notebook: Notebook, home: Home, client: Any, eventually: Wait
) -> None:
    """(c) with processes that fetch: no step after 2 s, a version, and none of them is left."""
    notebook.run(SLOW)
    notebook.run("import torch\n" + LOADER)
    request = notebook.start("run = %lepton train TumorNet --data loader --task binary --epochs 500")
    run = _running(client(), eventually)
    below = psutil.Process(_processes(home, run.run_id)["kernel"].pid).children(recursive=True)
    assert len(below) >= 2
    notebook.interrupt()
    sleep(2)
    done = client().run(run.run_id).progress["done"]
    with suppress(CellError):  # whether the cell ends with an error is the other test's
        notebook.finish(request)
    ended = _ended(client(), run.run_id, eventually)
    assert (ended.state, ended.progress["done"]) == ("stopped", done)
    assert ended.version is not None
    eventually(lambda: not any(child.is_running() for child in below), timeout_s=20, what="no worker is left")


def home_of(run: Any) -> Any:
    """Return the folder of a run."""
    from lepton_jupyter.core.paths import RunFolder

    return RunFolder(Path(run.folder))


def test_the_keeper_brings_the_backend_back_and_no_metric_is_lost_or_doubled(
    notebook: Notebook, home: Home, client: Any, eventually: Wait
) -> None:
    """(d) kill -9 of the backend with no client calling."""
    _train(notebook)
    run = _running(client(), eventually)
    first = client().health().pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: is_held(home.runtime().backend_lock) and home.runtime().socket.exists(), timeout_s=20)
    ended = _ended(client(), run.run_id, eventually)
    assert client().health().pid != first
    assert ended.state == "completed"

    def logged() -> int:
        with sqlite3.connect(home.mlflow_db) as database:
            rows = database.execute("select count(*) from metrics where key = 'val_loss'").fetchone()
        return int(rows[0])

    eventually(lambda: logged() >= EPOCHS, timeout_s=20)
    assert logged() == EPOCHS


@pytest.mark.parametrize("victim", ["kernel", "supervisor"])
def test_a_training_whose_process_was_killed_goes_on(
    victim: str, notebook: Notebook, home: Home, client: Any, eventually: Wait
) -> None:
    """(f) kill -9 of a training's kernel, of its supervisor: the cell that asked returns a whole run."""
    request = _train(notebook)
    run = _running(client(), eventually, epochs=5)
    processes = _processes(home, run.run_id)
    processes[victim].send(signal.SIGKILL)
    notebook.finish(request)
    ended = _ended(client(), run.run_id, eventually)
    assert (ended.state, ended.version) == ("completed", 1)
    assert ended.notes["restarts"] == 1
    assert ended.notes["resumed"]["step"] > 0 or ended.notes["resumed"]["epoch"] > 1  # not from the start
    epochs = [e["step"] for _, e in EventReader(home_of(run).events).read() if e["kind"] == "metric"]
    assert epochs == list(range(1, EPOCHS + 1))
    eventually(lambda: not any(p.is_alive() for p in processes.values()), timeout_s=5)
    assert "roc_auc" in notebook.run("print(lepton.evaluate('TumorNet').metrics)")


def test_a_cell_with_a_checkpoint_goes_on_from_it(
    notebook: Notebook, home: Home, client: Any, eventually: Wait
) -> None:
    """(f) kill -9 of the kernel of a %%lepton train cell that keeps what it goes on from."""
    cell = (
        "%%lepton train --name counted\nimport os, signal\nstate = lepton.restore() or {'epoch': 0}\n"
        "for epoch in range(state['epoch'] + 1, 7):\n    lepton.log(loss=1 / epoch)\n"
        "    if epoch == 4 and not state['epoch']:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    if epoch % 2 == 0:\n        lepton.checkpoint({'epoch': epoch})"
    )
    notebook.run(cell)
    run = client().runs(kind="cell")[0]
    assert (run.state, run.notes["restarts"]) == ("completed", 1)
    epochs = [e["step"] for _, e in EventReader(home_of(run).events).read() if e["kind"] == "metric"]
    assert epochs == list(range(1, 7))


@pytest.mark.parametrize("victim", ["kernel", "supervisor"])
def test_another_run_whose_process_was_killed_tells_the_truth(
    victim: str, notebook: Notebook, home: Home, client: Any, eventually: Wait
) -> None:
    """(f) kill -9 of the kernel, of the supervisor, of a run that may not be done twice."""
    request = notebook.start("%%lepton train --name slow\nimport time\nlepton.log(loss=1)\ntime.sleep(100)")
    run = eventually(
        lambda: (runs := client().runs(kind="cell")) and runs[0].metrics and runs[0], timeout_s=60, what="it runs"
    )
    processes = _processes(home, run.run_id)
    processes[victim].send(signal.SIGKILL)
    ended = _ended(client(), run.run_id, eventually)
    assert ended.state == "failed"
    assert "killed" in ended.error.message
    with pytest.raises(CellError, match="killed"):
        notebook.finish(request)
    eventually(lambda: not any(p.is_alive() for p in processes.values()), timeout_s=5)
    text = home.run(run.run_id).notebook.read_text()
    assert "killed" in text
    assert '"status": "running"' not in text


def test_an_endpoint_that_was_killed_is_back_within_five_seconds(
    with_data: Notebook, home: Home, client: Any, eventually: Wait
) -> None:
    """(e) kill -9 of an endpoint, and (h) everything killed at once, then any verb."""
    with_data.run("%lepton train TumorNet --data wdbc --epochs 3")
    with_data.run("%lepton deploy TumorNet --as diagnosis")
    port = client().endpoint("diagnosis").port
    ask = "print(lepton.endpoints()[0].predict('new_patients.csv')['prediction'].len())"
    assert "20" in with_data.run(ask)
    pid = _status(home)["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: _status(home)["pid"] != pid and client().endpoint("diagnosis").state == "ready", timeout_s=5)
    assert client().endpoint("diagnosis").port == port

    with_data.run(SLOW)
    with_data.run("run = %lepton train TumorNet --data wdbc --epochs 500 --detach")
    run = _running(client(), eventually)
    _kill_everything(home, run.run_id)
    assert client().health()
    goes_on = eventually(
        lambda: (view := client().run(run.run_id)).state == "running" and "resumed" in view.notes and view,
        timeout_s=60,
        what="the training goes on",
    )
    assert goes_on.notes["restarts"] == 0  # that was no fault of the run
    assert "together with the backend" in goes_on.notes["restart_reason"]
    client().stop_run(run.run_id, "enough")
    assert _ended(client(), run.run_id, eventually).state == "stopped"
    eventually(lambda: client().endpoint("diagnosis").state == "ready", timeout_s=15)
    assert "20" in with_data.run(ask)


def _status(home: Home) -> Any:
    import json

    return json.loads(home.endpoint("diagnosis").status.read_bytes())


def _kill_everything(home: Home, run_id: str) -> None:
    """Kill whatever holds a descriptor of this home's runtime folder, at once."""
    root = str(home.runtime().root)
    ours: list[int] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            held = [str(link.readlink()) for link in (folder / "fd").iterdir()]
        except OSError:
            continue
        if any(path.startswith(root) for path in held):
            ours.append(int(folder.name))
    ours += [p.pid for p in _processes(home, run_id).values()]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # held first, so that none sees another one die
        for pid in set(ours):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def test_stopping_leaves_no_process_no_lock_no_socket(
    with_data: Notebook, home: Home, client: Any, eventually: Wait
) -> None:
    """(g) after stop and backend stop."""
    import subprocess
    import sys

    with_data.run("%lepton train TumorNet --data wdbc --epochs 2")
    with_data.run("%lepton deploy TumorNet --as diagnosis")
    with_data.run("%lepton stop endpoint/diagnosis")
    subprocess.run([sys.executable, "-m", "lepton_jupyter.faces.cli", "backend", "stop"], check=True)
    runtime = home.runtime()
    eventually(lambda: not runtime.socket.exists(), timeout_s=10)
    held = [path for path in runtime.root.rglob("*") if path.is_file() and is_held(path)]
    assert held == []
    assert [path for path in runtime.root.rglob("*") if path.is_socket()] == []


def test_a_swept_runtime_folder_loses_nothing(notebook: Notebook, home: Home, client: Any, eventually: Wait) -> None:
    """(i) the runtime folder swept under ten clients: one backend in the end."""
    import shutil
    from concurrent.futures import ThreadPoolExecutor

    _train(notebook)
    run = _running(client(), eventually)
    shutil.rmtree(home.runtime().root)
    with ThreadPoolExecutor(10) as pool:
        pids = set(pool.map(lambda _: client().health().pid, range(10)))
    eventually(lambda: _ended(client(), run.run_id, eventually).state == "completed", timeout_s=240)
    assert len(pids) <= 2  # one that was going, one that came
    sleep(2.5)
    assert len({client().health().pid for _ in range(5)}) == 1
    assert _n_backends(home) == 1


def _n_backends(home: Home) -> int:
    found = 0
    for folder in Path("/proc").iterdir():
        try:
            argv = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
        except OSError:
            continue
        found += b"lepton_jupyter.backend" in argv and os.fsencode(home.root) in argv
    return found
