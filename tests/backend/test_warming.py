"""The kernel that waits for a training: who gets it, as what, and that it never outlives whoever keeps it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.backend.keeper import holder
from lepton_jupyter.backend.queue import Slots
from lepton_jupyter.backend.warming import READ_AT_START, Warming, is_ready
from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home, RunFolder, new_run_id
from lepton_jupyter.core.processes import Identity, kept_environment
from lepton_jupyter.formats.events import EventReader
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner.capture import capture_cell
from lepton_jupyter.runner.request import cell_notebook, prepare_run

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
LOOK = """
import json, os, sys
links = ("/proc/self/fd/" + fd for fd in os.listdir("/proc/self/fd"))
fds = [os.readlink(link) for link in links if os.path.lexists(link)]
names = ("WHO", "LEPTON_DEVICES", "CUDA_VISIBLE_DEVICES", "LEPTON_RUN", "TERM")
print(json.dumps({"env": {name: os.environ.get(name) for name in names}, "cwd": os.getcwd(), "fds": fds,
                  "has_torch": "torch" in sys.modules, "path": sys.path[0]}))
"""


@pytest.fixture
def warm_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LEPTON_WARM", "on")
    return home


@pytest.fixture
def warming(warm_home: Home, eventually: Wait) -> Iterator[Warming]:
    """One that keeps a kernel warm, kept by the test in a backend's place."""
    found = Warming(warm_home)
    get_ready(found, eventually)
    yield found
    found.close()


def get_ready(warming: Warming, eventually: Wait) -> None:
    """Wait until somebody waits."""
    warming.want()
    eventually(lambda: warming.tick([]) or is_ready(warming.home), timeout_s=120, what="nobody is warm")


def cell_run(home: Home, cell: str, cwd: Path, files: dict[str, bytes] | None = None, **environment: str) -> RunFolder:
    """Write the folder of a ``%%lepton train`` cell."""
    captured = capture_cell(cell, {})
    captured.files.update(files or {})
    record = RunRecord(
        run_id=new_run_id(), kind="cell", title="warm", created_at=time.time(), python=sys.executable, cwd=str(cwd),
        spec={"name": "warm"}, needs_device=True,
    )  # fmt: skip
    plain = {name: value for name, value in os.environ.items() if not READ_AT_START.fullmatch(name)}
    said = {**plain, **kept_environment(), **environment}  # less what other tests' libraries have left in ours
    return prepare_run(home, record, notebook=cell_notebook(cell, "warm"), captured=captured, environment=said)


def followed(folder: RunFolder) -> FollowedRun:
    from lepton_jupyter.runner.request import read_record

    return FollowedRun(folder, read_record(folder))


def last_word(folder: RunFolder) -> dict[str, Any]:
    return [event for _, event in EventReader(folder.supervisor_events).read()][-1]


def printed(folder: RunFolder) -> str:
    cells = json.loads(folder.notebook.read_bytes())["cells"]
    return "".join(output.get("text", "") for output in cells[1]["outputs"])


def waiting_pid(home: Home) -> int:
    """Return whose sockets lie in the runtime folder."""
    (found,) = {int(named[1]) for path in home.runtime().kernels.iterdir() if (named := re.match(r"w(\d+)", path.name))}
    return found


def test_a_run_finds_the_kernel_that_waited_as_if_it_had_been_started_for_it(warming: Warming, tmp_path: Path) -> None:
    home = warming.home
    waited = waiting_pid(home)
    folder = cell_run(home, LOOK, tmp_path, WHO="me", CUDA_VISIBLE_DEVICES="7")
    slots = Slots(home)
    lease = slots.take(slots.choose("1"), ())
    assert lease is not None
    process = warming.hand_over(followed(folder), lease)
    lease.release()
    assert process is not None
    assert process.pid == waited
    process.wait(60)
    assert last_word(folder)["state"] == "completed", (last_word(folder), folder.log.read_text())
    saw = json.loads(printed(folder))
    assert saw["env"] == {
        "WHO": "me",
        "LEPTON_DEVICES": lease.names[0],
        "CUDA_VISIBLE_DEVICES": "",  # it holds no GPU
        "LEPTON_RUN": str(folder.root),
        "TERM": "xterm-color",
    }
    assert saw["cwd"] == str(tmp_path)
    assert saw["has_torch"]
    assert str(lease.locks[0].path) in saw["fds"]
    assert not is_ready(home)
    assert warming.hand_over(followed(cell_run(home, "pass", tmp_path)), None) is None  # never a second run
    assert list(home.runtime().kernels.iterdir()) == []


def test_a_run_of_another_environment_starts_cold_and_the_next_one_does_not(
    warming: Warming, tmp_path: Path, eventually: Wait
) -> None:
    home = warming.home
    waited = Identity.of(waiting_pid(home))
    assert waited is not None
    other = cell_run(home, "pass", tmp_path, OMP_NUM_THREADS="3")
    assert warming.hand_over(followed(other), None) is None
    # its main thread may be over while another still holds what says that somebody is ready
    eventually(lambda: not waited.is_alive() and not is_ready(home), what="it was not given back")
    get_ready(warming, eventually)
    cell = "import torch; print(torch.get_num_threads())"
    process = warming.hand_over(followed(cell_run(home, cell, tmp_path, OMP_NUM_THREADS="3")), None)
    assert process is not None
    process.wait(60)


def test_a_module_that_would_hide_one_that_is_loaded_gets_a_kernel_of_its_own(warming: Warming, tmp_path: Path) -> None:
    files = {"modules/polars.py": b"WORD = 'mine'"}
    folder = cell_run(warming.home, "import polars; print(polars.WORD)", tmp_path, files)
    process = warming.hand_over(followed(folder), None)
    assert process is not None
    process.wait(90)
    assert printed(folder) == "mine\n"
    assert "'polars'" in folder.log.read_text()
    assert list(warming.home.runtime().kernels.iterdir()) == []


def test_one_that_was_killed_is_a_cold_start_and_leaves_nothing(
    warming: Warming, tmp_path: Path, eventually: Wait
) -> None:
    home = warming.home
    pid = waiting_pid(home)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_ready(home))
    assert warming.hand_over(followed(cell_run(home, "pass", tmp_path)), None) is None
    warming.tick([])
    assert warming._pause_until > time.monotonic()  # it is not tried again at once
    warming._pause_until = 0.0
    get_ready(warming, eventually)
    assert waiting_pid(home) != pid  # and the sockets of the first are gone
    warming.close()
    assert list(home.runtime().kernels.iterdir()) == []


def test_whoever_waits_ends_with_the_backend_and_whoever_runs_does_not(
    warm_home: Home, tmp_path: Path, eventually: Wait
) -> None:
    home = warm_home
    client = Client.connect(home)
    eventually(lambda: is_ready(home), timeout_s=120)
    waited = Identity.of(waiting_pid(home))
    assert waited is not None
    go = tmp_path / "go"
    cell = f"import pathlib, time\nwhile not pathlib.Path('{go}').exists(): time.sleep(0.05)\nprint('went on')"
    folder = cell_run(home, cell, tmp_path)
    client.submit(folder.run_id)
    eventually(lambda: client.run(folder.run_id).state == "running", timeout_s=60)
    assert Identity(**next(e for _, e in EventReader(folder.supervisor_events).read())["process"]) == waited
    _kill(home, "backend")
    go.touch()
    eventually(lambda: client.run(folder.run_id).state == "completed", timeout_s=60)  # another backend, the same run
    assert printed(folder) == "went on\n"
    eventually(lambda: is_ready(home), timeout_s=120)
    idle = Identity.of(waiting_pid(home))
    assert idle is not None
    _kill(home, "keeper")
    _kill(home, "backend")
    eventually(lambda: not idle.is_alive(), timeout_s=10)
    assert list(home.runtime().kernels.iterdir()) == []


def _kill(home: Home, who: str) -> None:
    found = holder(home.runtime().locks / who)
    assert found is not None
    found.send(signal.SIGKILL)


def test_a_setting_lets_nobody_wait(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("off", "0", "No"):
        monkeypatch.setenv("LEPTON_WARM", word)
        warming = Warming(home)
        warming.want()
        warming._wanted_at = time.monotonic() - 10
        warming.tick([])
        assert warming._child is None


def test_nothing_starts_beside_a_training_that_uses_every_core(
    warm_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_free = 0.1
    monkeypatch.setattr("lepton_jupyter.backend.warming.free_cores", lambda: n_free)
    monkeypatch.setattr("lepton_jupyter.backend.warming.QUIET_S", 0.0)
    training = followed(cell_run(warm_home, "pass", tmp_path))
    for state in ("starting", "running"):
        training.add("state", state=state, at=time.time() - 60)
    warming = Warming(warm_home, (sys.executable, "-c", "import time; time.sleep(60)"))
    try:
        warming.want()
        warming.tick([training])
        assert not warm_home.warm.exists()
        n_free = 1.1
        warming.tick([training])
        assert warm_home.warm.exists()
    finally:
        warming.close()
        training.close()
