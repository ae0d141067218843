"""A file larger than memory beside rows in memory, by the same engine.

Run by hand: ``python tests/benchmarks/larger_than_memory.py [--gb 6] [--limit 1.5G] [--rounds 3]``. It writes a Parquet
file of that size (32 numbers a row), makes a dataset of it, trains an MLP 32-64-64-2 at batch 256 on it in a process
that may take so much, and, in turn, on as many rows as fit into memory. It prints rows per second of the training steps
(their mean once the export proof, which computes beside them, has ended) and the largest resident set of each process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = 32
CHUNK = 500_000
IN_MEMORY_ROWS = 1_000_000


def write(path: Path, n_rows: int) -> None:
    """Write rows of float64: noise, which does not compress, and a class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    direction = rng.normal(size=COLUMNS)
    writer = None
    for start in range(0, n_rows, CHUNK):
        x = rng.normal(size=(min(CHUNK, n_rows - start), COLUMNS))
        columns = {f"x{place}": x[:, place] for place in range(COLUMNS)}
        table = pa.table(columns | {"y": np.where(x @ direction > 0, "up", "down")})
        writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
        writer.write_table(table)
    assert writer is not None
    writer.close()


class Silent:
    """A session that nobody follows; it takes the times of steps."""

    run_id = "0" * 12
    devices: tuple[str, ...] = ()

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.notes: dict[str, Any] = {}
        self.speeds: list[float] = []
        self.began = 0.0

    def log(self, **_: Any) -> None: ...

    def note(self, key: str, value: Any) -> None:
        self.notes[key] = value

    def result(self, **_: Any) -> None: ...

    def progress(self, *_: Any) -> None: ...

    def telemetry(self, **values: float) -> None:
        if "exportable" in self.notes and "compiled" in self.notes:
            self.began = self.began or time.monotonic()
            self.speeds.append(values["rows_per_s"])

    def should_stop(self) -> bool:
        return bool(self.began) and time.monotonic() - self.began > self.seconds


def child(name: str, seconds: float) -> None:
    """Train for some seconds, and print how fast it went."""
    import torch
    from torch import nn

    from lepton_jupyter.core.paths import Home
    from lepton_jupyter.stages.data.store import Store
    from lepton_jupyter.stages.train.engine import train
    from lepton_jupyter.stages.train.spec import Train

    class Net(nn.Module):
        def __init__(self, n_features: int, n_outputs: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(n_features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n_outputs)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    dataset = Store(Home.current()).open(name)
    with tempfile.TemporaryDirectory() as folder:
        session = Silent(Path(folder), seconds)
        spec = Train(model="Net", data=name, epochs=1000, batch_size=256, optimizer="adam")
        train(session, Net, dataset, spec)
    status = Path("/proc/self/status").read_text()  # getrusage's would be that of the process that started us
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024
    told = {"rows_per_s": statistics.mean(session.speeds[1:]), "peak_mb": peak}
    print(json.dumps(told | {"is_large": dataset.is_large, "threads": session.notes.get("threads")}))


def run(name: str, seconds: float, limit: str) -> dict[str, float]:
    """Train in a process of its own."""
    environment = {**os.environ, "LEPTON_MEMORY_LIMIT": limit}
    argv = [sys.executable, __file__, "--child", name, "--seconds", str(seconds)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=6.0)
    parser.add_argument("--limit", default="1.5G")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--child")
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked.seconds)
        return
    folder = Path(tempfile.mkdtemp(prefix="lpb"))
    os.environ |= {"LEPTON_HOME": str(folder / "home")}
    from lepton_jupyter.core.paths import Home
    from lepton_jupyter.stages.data.ingest import add
    from lepton_jupyter.stages.data.spec import Data

    try:
        for name, n_rows in (("large", int(asked.gb * 1e9 / (8 * COLUMNS))), ("small", IN_MEMORY_ROWS)):
            path = folder / f"{name}.parquet"
            write(path, n_rows)
            began = time.monotonic()
            add(Home.current().make(), Data(name=name, source=str(path), target=("y",), split="0.8,0.1,0.1"))
            size = path.stat().st_size / 1e9
            print(f"{name}: {n_rows:,} rows, {size:.2f} GB of Parquet, added in {time.monotonic() - began:.0f} s")
            path.unlink()
        seen: dict[str, list[dict[str, float]]] = {"large": [], "small": []}
        for _ in range(asked.rounds):
            seen["large"].append(run("large", asked.seconds, asked.limit))
            seen["small"].append(run("small", asked.seconds, "64G"))
        print(f"{'':<24}{'rows/s':>12}{'peak MB':>10}")
        for name, said in (("large", f"streamed, limit {asked.limit}"), ("small", "in memory")):
            speed = statistics.median(one["rows_per_s"] for one in seen[name])
            print(f"{said:<24}{speed:>12,.0f}{max(one['peak_mb'] for one in seen[name]):>10,.0f}")
        ratios = [a["rows_per_s"] / b["rows_per_s"] for a, b in zip(seen["large"], seen["small"], strict=True)]
        print(f"ratio {statistics.median(ratios):.2f} (bar 0.8)")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
