"""Versions: registered once, judged, named, loaded by MLflow without us, deleted."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.formats.bundle import MANIFEST

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]
Saved = Callable[..., str]
Judge = Callable[..., str]

LOAD = """
import importlib.abc, json, sys
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "lepton_jupyter":
            raise ImportError("lepton_jupyter is not here")
sys.meta_path.insert(0, Nothing())
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
print(json.dumps(model.predict(pandas.DataFrame({"b": [2.0, -1.0], "a": [1.0, None]})).to_dict("list")))
assert "lepton_jupyter" not in sys.modules
"""


def mlflow_rows(home: Home, query: str) -> list[Any]:
    database = sqlite3.connect(home.mlflow_db)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def test_a_version_is_registered_once_whatever_is_killed(home: Home, saved: Saved, eventually: Wait) -> None:
    client = Client.connect(home)
    run_id = saved()
    assert client.submit(run_id).version == 1
    client.submit(run_id)
    os.kill(client.health().pid, signal.SIGKILL)
    with sqlite3.connect(home.state_db, timeout=20) as database:  # as if it had died before it wrote the number down
        database.execute("update versions set number = null")
        database.execute("update runs set is_recorded = 0, mlflow_run_id = null, mlflow_offset = 0")
    database.close()
    eventually(lambda: client.version("Net").number == 1, timeout_s=40)
    assert mlflow_rows(home, "select count(*) from model_versions") == [(1,)]
    assert mlflow_rows(home, "select count(*) from runs") == [(1,)]
    assert (home.bundles / run_id / MANIFEST).exists()


def test_mlflow_loads_the_champion_where_lepton_jupyter_is_not(
    home: Home, saved: Saved, judge: Judge, eventually: Wait
) -> None:
    client = Client.connect(home)
    run_id = saved(slope=2.0)
    client.submit(run_id)
    judge(client, run_id)
    assert client.version("Net@champion").run_id == run_id
    eventually(lambda: mlflow_rows(home, "select alias from registered_model_aliases") == [("champion",)], timeout_s=20)
    argv = [sys.executable, "-c", LOAD, f"sqlite:///{home.mlflow_db}", "models:/Net@champion"]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stderr
    table = json.loads(answer.stdout.splitlines()[-1])
    assert table["prediction"][0] == "yes"
    assert table["probability_yes"][0] == pytest.approx(1 / (1 + 2.718281828**-6.0), abs=1e-5)


def test_the_first_version_without_fail_becomes_champion_and_promote_keeps_the_previous_one(
    home: Home, saved: Saved, judge: Judge
) -> None:
    client = Client.connect(home)
    ids = [saved() for _ in range(3)]
    for run_id in ids:
        client.submit(run_id)
    judge(client, ids[0], verdict="FAIL", auc=0.4)
    assert all(view.aliases == () for view in client.models())
    judge(client, ids[1], verdict="INCONCLUSIVE")
    judge(client, ids[2], verdict="PASS")
    assert client.version("Net@champion").run_id == ids[1]
    promoted = client.promote("Net@3", "champion")
    assert (promoted.run_id, promoted.aliases) == (ids[2], ("champion",))
    assert client.version("Net@previous").run_id == ids[1]
    assert [view.number for view in client.models()] == [3, 2, 1]
    assert [view.verdict for view in client.models()] == ["PASS", "INCONCLUSIVE", "FAIL"]
    assert client.version("Net@1").evaluation["metrics"] == {"roc_auc": 0.4}
    assert client.run("Net").run_id == ids[2]
    for text, said in (("Net@9", "Known: 3, 2, 1"), ("Nett", "Did you mean 'Net'"), ("Net@best", "No alias of Net")):
        with pytest.raises(LeptonError, match=said):
            client.version(text)
    with pytest.raises(LeptonError, match="cannot be an alias"):
        client.promote("Net@1", "v1")


def test_what_is_in_use_is_not_deleted(home: Home, saved: Saved, judge: Judge, eventually: Wait) -> None:
    client = Client.connect(home)
    first, second = saved(), saved()
    for run_id in (first, second):
        client.submit(run_id)
    evaluation = judge(client, first)
    for ref, said in (
        ("model/Net@1", "champion"),
        (f"run/{first}", "made Net@1"),
        ("Net", "several things"),
        ("model/Net", "which version"),
        ("endpoint/x", "No endpoint"),
    ):
        with pytest.raises(LeptonError, match=said):
            client.delete(ref)
    assert len(client.models()) == 2
    assert client.delete("model/Net@2") == "version Net@2"
    assert [view.number for view in client.models()] == [1]
    assert not (home.bundles / second).exists()
    assert client.delete(f"run/{evaluation}") == f"run {evaluation}"
    assert evaluation not in [view.run_id for view in client.runs()]
    assert not home.run(evaluation).root.exists()
    gone = "select count(*) from model_versions where current_stage = 'Deleted_Internal'"
    eventually(lambda: mlflow_rows(home, gone) == [(1,)], timeout_s=20)
    assert client.delete("model/Net@1") == "version Net@1"  # the last one takes its alias along
    assert client.models() == []


@pytest.fixture(params=["a closed port", "a socket that never answers"])
def absent_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that is not there, in two ways."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param != "a closed port":
            server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_absent_mlflow_costs_nobody_more_than_five_seconds(
    absent_server: str, home: Home, saved: Saved, prepare: Callable[..., RunFolder], judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", absent_server)
    client = Client.connect(home)
    time.sleep(3)  # MLflow is imported meanwhile
    run_id = saved()
    began = time.monotonic()
    view = client.submit(run_id)
    assert time.monotonic() - began < 6
    assert (view.state, view.version) == ("completed", None)
    assert client.version(run_id).ref == run_id
    began = time.monotonic()
    judge(client, run_id)
    assert client.version("Net@champion").run_id == run_id
    client.promote(run_id, "challenger")
    assert client.health().is_tracking_up is False
    client.stop_backend()
    assert time.monotonic() - began < 15

    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # it is there again: what waited is written
    client = Client.connect(home)
    deadline = time.monotonic() + 40
    while client.version(run_id).number is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert client.version("Net@1").aliases == ("challenger", "champion")
