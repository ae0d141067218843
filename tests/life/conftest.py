"""A notebook as a person has it: a real kernel, cells typed one after the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from lepton_jupyter.core.paths import Home

EXAMPLES = Path(__file__).resolve().parents[2] / "example_notebooks"

NET = """
from torch import nn
class TumorNet(nn.Module):
    def __init__(self, n_features, n_outputs, hidden=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, n_outputs))
    def forward(self, x):
        return self.layers(x)
"""

SLOW_NET = NET.replace("return self.layers(x)", "import time; time.sleep({pause}); return self.layers(x)")


class CellError(Exception):
    """A cell failed; the text is what the notebook shows."""


class Notebook:
    """Cells go in, what they show comes out."""

    def __init__(self, client: BlockingKernelClient, pid: int, manager: KernelManager | None = None) -> None:
        self.client = client
        self.pid = pid
        self.manager = manager

    def start(self, cell: str) -> str:
        """Send a cell without waiting; returns the id of its request."""
        return str(self.client.execute(cell, store_history=True, stop_on_error=False))

    def finish(self, request: str, *, timeout_s: float = 120) -> str:
        """Wait for a cell and return the text that it shows. Raises `CellError`."""
        texts: list[str] = []
        failed: list[str] = []
        deadline = monotonic() + timeout_s
        while monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    texts.append(content["text"])
                case "display_data" | "execute_result" | "update_display_data":
                    texts.append(content["data"].get("text/plain", ""))
                case "error":
                    failed = content["traceback"]
                case "status" if content["execution_state"] == "idle":
                    self.client.get_shell_msg(timeout=10)  # the kernel takes the next cell once it has replied
                    if failed:
                        raise CellError("\n".join(failed))
                    return "\n".join(texts)
        raise AssertionError(f"the cell did not end within {timeout_s} s: {texts[-3:]}")

    def run(self, cell: str, *, timeout_s: float = 120) -> str:
        """Run a cell and return the text that it shows. Raises `CellError`."""
        return self.finish(self.start(cell), timeout_s=timeout_s)

    def kill(self) -> None:
        """``kill -9`` the kernel."""
        os.kill(self.pid, signal.SIGKILL)

    def interrupt(self) -> None:
        """Press ■."""
        assert self.manager is not None
        self.manager.interrupt_kernel()


@pytest.fixture
def new_notebook(home: Home, tmp_path: Path) -> Iterator[Callable[..., Notebook]]:
    """Open notebooks in a folder; each has a kernel with the extension loaded."""
    opened: list[Notebook] = []

    def open_notebook(folder: Path | None = None) -> Notebook:
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=str(folder or EXAMPLES), env=dict(os.environ))
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        notebook = Notebook(client, manager.provisioner.pid, manager)
        opened.append(notebook)
        notebook.run("%load_ext lepton_jupyter\nimport lepton_jupyter as lepton")
        return notebook

    yield open_notebook
    for notebook in opened:
        notebook.client.stop_channels()
        if notebook.manager is not None:
            notebook.manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook(new_notebook: Callable[..., Notebook]) -> Notebook:
    """One notebook beside the example data."""
    return new_notebook()


@pytest.fixture
def with_data(notebook: Notebook) -> Notebook:
    """One notebook in which wdbc is a dataset and TumorNet is defined."""
    notebook.run("%lepton data wdbc breast_cancer.csv --target diagnosis")
    notebook.run(NET)
    return notebook


@pytest.fixture
def client(home: Home) -> Any:
    """The test's own line to the backend; starts nothing until it is called."""
    from lepton_jupyter.client.client import Client

    return lambda: Client.connect(home)
