"""Keeper, backend and client as real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.backend.heartbeat import read_heartbeat
from lepton_jupyter.backend.keeper import failure_path, holder
from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.core.processes import is_held
from lepton_jupyter.formats.views import PROTOCOL

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
ASK = "from lepton_jupyter.client.client import Client; print(Client.connect().health().pid)"


def backends(home: Home) -> list[int]:
    """Return the pids of this home's backends."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            argv = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
        except OSError:
            continue
        if b"lepton_jupyter.backend" in argv and os.fsencode(home.root) in argv:
            found.append(int(folder.name))
    return found


def test_ten_clients_at_once_get_one_backend(home: Home) -> None:
    clients = [
        subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(10)
    ]
    answers = [client.communicate(timeout=60) for client in clients]
    assert len({out for out, _ in answers}) == 1, answers
    assert backends(home) == [int(answers[0][0])]


def test_the_socket_is_private_and_torch_is_not_loaded(home: Home, eventually: Wait) -> None:
    client = Client.connect(home)
    assert stat.S_IMODE(home.runtime().socket.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(home.state_db.stat().st_mode) == 0o600
    eventually(lambda: client.health().is_tracking_up, timeout_s=30)
    mapped = Path(f"/proc/{client.health().pid}/maps").read_text()
    assert "libtorch" not in mapped


def test_the_backend_answers_before_mlflow_is_there(home: Home) -> None:
    client = Client.connect(home)
    assert client.health().is_tracking_up is False
    assert client.runs() == []


def test_the_keeper_has_a_killed_backend_back_and_state_is_kept(
    home: Home, saved: Callable[..., str], eventually: Wait
) -> None:
    client = Client.connect(home)
    run_id = saved()
    assert client.submit(run_id).state == "completed"
    first = client.health().pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: backends(home) not in ([], [first]), timeout_s=10, what="another backend, nobody calling")
    assert client.health().pid != first
    assert client.run("Net").run_id == run_id
    assert client.version("Net@1").run_id == run_id


def test_the_backend_has_a_killed_keeper_back(home: Home, eventually: Wait) -> None:
    client = Client.connect(home)
    runtime, pid = home.runtime(), client.health().pid
    keeper = holder(runtime.keeper_lock)
    assert keeper is not None
    keeper.send(signal.SIGKILL)
    eventually(lambda: holder(runtime.keeper_lock) not in (None, keeper), timeout_s=10, what="another keeper")
    assert client.health().pid == pid
    os.kill(pid, signal.SIGKILL)  # the new keeper takes over
    eventually(lambda: is_held(runtime.backend_lock) and client.health().pid != pid, timeout_s=10)


def test_stop_leaves_no_process_no_lock_no_socket(home: Home) -> None:
    client = Client.connect(home)
    client.stop_backend()
    runtime = home.runtime()
    assert backends(home) == []
    assert not runtime.socket.exists()
    assert [path for path in runtime.root.rglob("*") if path.is_file() and is_held(path)] == []
    client.stop_backend()  # once more is no harm, and starts nothing
    assert backends(home) == []


def test_a_swept_runtime_folder_gives_one_backend_in_the_end(home: Home, saved: Callable[..., str]) -> None:
    client = Client.connect(home)
    run_id = saved()
    client.submit(run_id)
    shutil.rmtree(home.runtime().root)
    clients = [subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE) for _ in range(10)]
    for each in clients:
        each.communicate(timeout=60)
    assert client.run(run_id).state == "completed"
    assert len(backends(home)) == 1
    assert client.health().pid == backends(home)[0]


def test_a_backend_that_does_not_start_says_why(home: Home) -> None:
    home.state_db.write_text("this is no database, whatever SQLite makes of it" * 100)
    with pytest.raises(LeptonError, match="does not start") as caught:
        Client.connect(home)
    assert "file is not a database" in caught.value.detail
    assert failure_path(home.runtime()).exists()
    home.state_db.unlink()
    assert Client.connect(home).health().pid  # the next one tries again


def test_a_home_has_one_host_at_a_time(home: Home) -> None:
    home.backend_record.write_text(json.dumps({"host": "elsewhere", "at": time.time()}))
    with pytest.raises(LeptonError, match="in use by host 'elsewhere'"):
        Client.connect(home)
    assert backends(home) == []
    home.backend_record.write_text(json.dumps({"host": "elsewhere", "at": time.time() - 60}))
    assert Client.connect(home).health().pid
    assert read_heartbeat(home)["host"] != "elsewhere"


def test_a_second_runtime_folder_gets_no_second_backend(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, eventually: Wait
) -> None:
    Client.connect(home)
    here = os.environ["XDG_RUNTIME_DIR"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))
    with pytest.raises(LeptonError, match="has a backend already"):
        Client.connect(home)
    monkeypatch.setenv("XDG_RUNTIME_DIR", here)
    eventually(lambda: len(backends(home)) == 1, timeout_s=5)


def test_another_protocol_is_a_clear_error_and_an_idle_older_backend_is_replaced(
    home: Home, prepare: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton_jupyter.client import client as module

    client = Client.connect(home)
    monkeypatch.setattr(module, "PROTOCOL", 0)  # this client is older than the backend
    with pytest.raises(LeptonError, match=f"protocol {PROTOCOL}"):
        Client.connect(home)
    monkeypatch.setattr(module, "PROTOCOL", PROTOCOL + 1)
    pid = client.health().pid
    client.submit(prepare("import time; time.sleep(60)").run_id)
    with pytest.raises(LeptonError, match="1 runs are active"):
        Client.connect(home)
    assert client.health().pid == pid
    client.stop_run(client.runs()[0].run_id, "enough")
    list(client.events(client.runs()[0].run_id))
    with pytest.raises(LeptonError, match=f"protocol {PROTOCOL}"):  # replaced, by the only one that is installed here
        Client.connect(home)
    assert client.health().pid != pid


def test_a_backend_whose_home_was_removed_goes(home: Home, eventually: Wait) -> None:
    from lepton_jupyter.core.processes import is_held

    Client.connect(home).health()
    runtime = home.runtime()
    shutil.rmtree(home.root)
    eventually(lambda: not is_held(runtime.backend_lock) and not is_held(runtime.keeper_lock), timeout_s=15)
    home.make()
    assert Client.connect(home).health().n_active == 0
