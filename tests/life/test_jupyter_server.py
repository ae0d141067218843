"""(b) Restart, shutdown and culling of the notebook's kernel by the Jupyter server, while the cell follows a run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient

from lepton_jupyter.core.paths import Home
from tests.life.conftest import EXAMPLES, Notebook
from tests.life.test_survival import EPOCHS, SLOW, _ended, _running, _train

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]


class JupyterServer:
    """A real Jupyter server and its REST API."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.folder = folder

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": "token secret"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def notebook(self) -> tuple[str, Notebook]:
        """Start a kernel and connect to it."""
        kernel_id = self.ask("POST", "/api/kernels", {"name": "python3", "path": ""})["id"]
        client = BlockingKernelClient(connection_file=str(self.folder / f"kernel-{kernel_id}.json"))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        notebook = Notebook(client, 0)
        notebook.run("%load_ext lepton_jupyter\nimport lepton_jupyter as lepton")
        return kernel_id, notebook


@pytest.fixture
def server(home: Home, tmp_path: Path, eventually: Wait, request: pytest.FixtureRequest) -> Iterator[JupyterServer]:
    """A Jupyter server; with the parameter ``culling`` one that culls busy kernels after eight seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = home.runtime().root.parent / "j"
    culling = (
        "--MappingKernelManager.cull_idle_timeout=8",
        "--MappingKernelManager.cull_interval=1",
        "--MappingKernelManager.cull_busy=True",
        "--MappingKernelManager.cull_connected=True",
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyter",
            "server",
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            f"--ServerApp.root_dir={EXAMPLES}",
            "--IdentityProvider.token=secret",
            *(culling if getattr(request, "param", "") == "culling" else ()),
        ],
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(folder), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = JupyterServer(port, folder)

    def is_up() -> bool:
        try:
            return bool(server.ask("GET", "/api/status"))
        except (urllib.error.URLError, ConnectionError):
            return False

    eventually(is_up, timeout_s=30)
    yield server
    process.terminate()
    process.wait(timeout=20)


@pytest.mark.parametrize("how", ["restart", "shutdown"])
def test_a_run_goes_on_when_its_kernel_is_ended_by_the_server(
    how: str, server: JupyterServer, client: Any, eventually: Wait
) -> None:
    kernel_id, notebook = server.notebook()
    _train(notebook)
    run = _running(client(), eventually)
    if how == "restart":
        server.ask("POST", f"/api/kernels/{kernel_id}/restart")
    else:
        server.ask("DELETE", f"/api/kernels/{kernel_id}")
    ended = _ended(client(), run.run_id, eventually)
    assert ended.state == "completed"
    assert ended.progress["done"] == EPOCHS
    notebook.client.stop_channels()


@pytest.mark.parametrize("server", ["culling"], indirect=True)
def test_a_run_goes_on_when_its_kernel_is_culled(server: JupyterServer, client: Any, eventually: Wait) -> None:
    """A live card counts as activity, which keeps the culler away; so this cell waits without one."""
    kernel_id, notebook = server.notebook()
    notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    notebook.run(SLOW)
    notebook.run("run = %lepton train TumorNet --data wdbc --epochs 60 --batch-size 64 --detach")
    notebook.start("run.wait()")
    run = _running(client(), eventually, epochs=1)
    eventually(lambda: kernel_id not in [k["id"] for k in server.ask("GET", "/api/kernels")], timeout_s=30)
    assert client().run(run.run_id).state == "running"
    assert _ended(client(), run.run_id, eventually, timeout_s=90).state == "completed"
    notebook.client.stop_channels()
