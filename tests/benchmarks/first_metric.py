"""How long from a cell's start to the first figure of its training: very first, cold and warm.

Run by hand: ``python -m tests.benchmarks.first_metric [--rounds 10] [--parts]``. It prints medians, and the machine's
load beside them. A real notebook kernel, a real backend, wdbc and a small network; the times are those of the events.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from lepton_jupyter.backend.warming import is_ready
from lepton_jupyter.client.shutdown import shut_down
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.events import EventReader

EXAMPLES = Path(__file__).resolve().parents[2] / "example_notebooks"
NET = """
from torch import nn
class TumorNet(nn.Module):
    def __init__(self, n_features, n_outputs, hidden=64):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))
    def forward(self, x):
        return self.layers(x)
"""
LOAD = "%load_ext lepton_jupyter"
DATA = "%lepton data wdbc breast_cancer.csv --target diagnosis"
LOOK = "%lepton runs"  # the backend is up from here
TRAIN = "%lepton train TumorNet --data wdbc --epochs 3"
READY_S = 60.0


class Notebook:
    """A kernel, to which cells are typed."""

    def __init__(self) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(EXAMPLES), env=dict(os.environ))
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, cell: str) -> float:
        """Run a cell to its end; return when it began."""
        began = time.time()
        reply = self.client.execute_interactive(cell, timeout=180, output_hook=lambda _: None)
        if reply["content"]["status"] != "ok":
            raise SystemExit("\n".join(reply["content"]["traceback"]))
        return began

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@contextmanager
def fresh(warm: str) -> Iterator[tuple[Home, Notebook]]:
    """A home of its own and a notebook in it."""
    folder = Path(tempfile.mkdtemp(prefix="lp", dir="/tmp"))
    for name in ("LEPTON_RUN", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    os.environ |= {
        "LEPTON_HOME": str(folder / "home"),
        "LEPTON_LEASES": str(folder / "leases"),
        "XDG_RUNTIME_DIR": str(folder),
        "LEPTON_WARM": warm,
    }
    home = Home.current()
    notebook = Notebook()
    try:
        yield home, notebook
    finally:
        notebook.close()
        shut_down(home)
        shutil.rmtree(folder, ignore_errors=True)


def first_figure(home: Home, began: float) -> dict[str, float]:
    """Return seconds from a cell's start to what the newest run said, part by part."""
    folder = max(home.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime).parent
    found: dict[str, float] = {}
    for _, event in EventReader(home.run(folder.name).events).read():
        name = _part(event)
        if name:
            found.setdefault(name, float(event["at"]) - began)
    return found


def _part(event: dict[str, Any]) -> str:
    match event:
        case {"kind": "state", "source": "supervisor", "state": str(state)}:
            return state
        case {"kind": "state", "state": "queued" | "completed" as state}:
            return str(state)
        case {"kind": "cell", "status": "running", "index": int(index)}:
            return f"cell {index}"
        case {"kind": "note", "key": str(key)} if key in ("task", "exportable"):
            return key
        case {"kind": "metric" | "telemetry"}:
            return "first figure"
    return ""


def very_first(_: int) -> Iterator[dict[str, float]]:
    """Nothing runs: the notebook's first line is a training, its data is added in the same breath."""
    with fresh("off") as (home, notebook):
        notebook.run(NET)
        notebook.run(LOAD)
        began = notebook.run(f"{DATA}\n{TRAIN}")
        yield first_figure(home, began)


def cold(rounds: int) -> Iterator[dict[str, float]]:
    """The backend is up, nobody waits."""
    yield from _again(rounds, "off", lambda _: None)


def warm(rounds: int) -> Iterator[dict[str, float]]:
    """A warm supervisor waits."""
    yield from _again(rounds, "on", _wait_until_ready)


def _again(rounds: int, how: str, before: Callable[[Home], None]) -> Iterator[dict[str, float]]:
    with fresh(how) as (home, notebook):
        for cell in (LOAD, NET, DATA, LOOK):
            notebook.run(cell)
        for _ in range(rounds):
            before(home)
            yield first_figure(home, notebook.run(TRAIN))


def _wait_until_ready(home: Home) -> None:
    deadline = time.monotonic() + READY_S
    while not is_ready(home):
        if time.monotonic() > deadline:
            raise SystemExit(f"Nobody is warm after {READY_S:g} s.")
        time.sleep(0.05)
    time.sleep(0.5)  # a person types more slowly than this


def import_torch() -> float:
    """Return the seconds that a fresh interpreter needs for ``import torch``."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--parts", action="store_true", help="show what the time is spent on")
    parser.add_argument("--only", choices=("first", "cold", "warm"))
    asked = parser.parse_args()
    torch_s = statistics.median(import_torch() for _ in range(min(5, asked.rounds)))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; import torch {torch_s:.2f} s")
    measured: dict[str, tuple[float, Callable[[], Iterator[dict[str, float]]]]] = {
        "first": (8.0, lambda: (parts for _ in range(asked.rounds) for parts in very_first(1))),
        "cold": (max(3.0, 1.3 * torch_s + 1), lambda: cold(asked.rounds)),
        "warm": (0.5, lambda: warm(asked.rounds)),
    }
    print(f"{'cell to first figure':<22}{'median s':>10}{'min':>8}{'max':>8}{'aim':>8}{'load':>8}")
    for name, (aim_s, measure) in measured.items():
        if asked.only and asked.only != name:
            continue
        found = list(measure())
        times = [parts["first figure"] for parts in found]
        print(
            f"{name:<22}{statistics.median(times):>10.2f}{min(times):>8.2f}{max(times):>8.2f}{aim_s:>8.2f}"
            f"{os.getloadavg()[0]:>8.1f}"
        )
        if asked.parts:
            for part in found[-1]:
                print(f"    {part:<18}{statistics.median(one.get(part, float('nan')) for one in found):>10.2f}")


if __name__ == "__main__":
    main()
