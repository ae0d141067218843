"""What clients see of a swap, of a killed endpoint, and of five times the load that it can carry.

``python -m tests.benchmarks.swap [--swaps 5] [--seconds 10] [--rounds 3]``: a small net and a forest of 100 trees are
trained and deployed from a notebook; 16 connections ask for one row at a time while versions are swapped, then while
the process is killed. Then a forest of 1,000 trees is asked for 64 rows at a time, five times as often as it answers at
its peak (so large that whoever asks takes little of the machine), in some rounds. Prints failed requests, latencies,
seconds until ready, goodput and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from IPython.core.interactiveshell import InteractiveShell

from lepton_jupyter.client.shutdown import shut_down
from lepton_jupyter.core.paths import Home

N_CONNECTIONS = 16
N_OVERLOAD = 400  # connections: as many requests as an endpoint lets wait, nearly
COLUMNS = [f"x{place}" for place in range(32)]


class Seen(NamedTuple):
    """One answer: when it was asked for, how long that took, its status (0: none came)."""

    at: float
    seconds: float
    status: int


@dataclass
class Load:
    """Connections that ask one request after the other until they are told to end.

    Parameters
    ----------
    per_s : float, optional
        Requests a second of all connections together, whether answers come or not; else as fast as answers come.
    """

    port: int
    token: str
    body: bytes
    n_connections: int
    per_s: float | None = None
    seen: list[Seen] = field(default_factory=list)
    is_over: bool = False

    async def run(self) -> None:
        """Ask."""
        began = time.perf_counter()
        await asyncio.gather(*(self._connection(place, began) for place in range(self.n_connections)))

    async def _connection(self, place: int, began: float) -> None:
        lines = (
            "POST /predict HTTP/1.1", "Host: x", f"Authorization: Bearer {self.token}",
            "Content-Type: application/json", f"Content-Length: {len(self.body)}", "", "",
        )  # fmt: skip
        request = "\r\n".join(lines).encode() + self.body
        reader = writer = None
        turn = place
        while not self.is_over:
            if self.per_s is not None:
                await asyncio.sleep(max(0.0, began + turn / self.per_s - time.perf_counter()))
                turn += self.n_connections
            at = time.perf_counter()
            status = 0
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                status = int(head[9:12])
            except (OSError, asyncio.IncompleteReadError, ValueError):
                if writer is not None:
                    writer.close()
                reader = writer = None
                await asyncio.sleep(0.01)
            self.seen.append(Seen(at, time.perf_counter() - at, status))
        if writer is not None:
            writer.close()


async def under(load: Load, work: Callable[[], Any], *, before_s: float = 1.0, after_s: float = 1.0) -> Any:
    """Do something in a thread while a load is on; return what it returned."""
    asking = asyncio.create_task(load.run())
    await asyncio.sleep(before_s)
    found = await asyncio.to_thread(work)
    await asyncio.sleep(after_s)
    load.is_over = True
    await asking
    return found


class Notebook:
    """Trains, deploys and swaps as a person does."""

    def __init__(self) -> None:
        self.shell = InteractiveShell.instance()
        self.shell.user_ns["__name__"] = "__main__"
        self.do("%load_ext lepton_jupyter")
        import pandas as pd

        draw = np.random.default_rng(0)
        table = pd.DataFrame(draw.normal(size=(2000, 32)), columns=COLUMNS)
        self.shell.user_ns["table"] = table.assign(y=(table["x0"] + draw.normal(size=2000) > 0).astype(int))
        self.do((Path(__file__).parent / "servers" / "net.py").read_text())
        self.do("from sklearn.ensemble import RandomForestClassifier as Forest")
        self.do("%lepton data bench table --target y")
        for seed in (0, 1):
            self.do(f"%lepton train Net --data bench --epochs 2 --seed {seed}")
            self.do(f"%lepton train Forest --data bench -p n_estimators=100 --seed {seed}")
        self.do("%lepton train Forest --name Crowd --data bench -p n_estimators=1000")
        for name in ("Net", "Forest", "Crowd"):
            self.do(f"%lepton deploy {name}@1 --as {name.lower()}")

    def do(self, line: str) -> None:
        """Run a cell."""
        self.shell.run_cell(line, silent=False, store_history=False).raise_error()


def target(name: str) -> tuple[int, str, int]:
    """Return port, token and process of an endpoint."""
    folder = Home.current().endpoint(name)
    status = json.loads(folder.status.read_bytes())
    return status["port"], folder.token.read_text().strip(), status["pid"]


def load_of(name: str, n_rows: int, n_connections: int, per_s: float | None = None) -> Load:
    """Return a load of requests for so many rows."""
    port, token, _ = target(name)
    draw = np.random.default_rng(0)
    rows = [dict(zip(COLUMNS, map(float, draw.normal(size=32).round(4)), strict=True)) for _ in range(n_rows)]
    return Load(port, token, json.dumps({"rows": rows}).encode(), n_connections, per_s)


def percentile(seen: list[Seen], share: float) -> float:
    """Return a percentile of latencies in milliseconds."""
    return float(np.percentile([each.seconds for each in seen if each.status == 200] or [np.nan], share) * 1e3)


def swaps(notebook: Notebook, name: str, n_swaps: int) -> None:
    """Swap versions under load."""
    load = load_of(name, 1, N_CONNECTIONS)
    windows: list[tuple[float, float]] = []

    def work() -> None:
        for place in range(n_swaps):
            began = time.perf_counter()
            notebook.do(f"%lepton deploy {name.title()}@{2 - place % 2} --as {name} --force benchmark")
            windows.append((began, time.perf_counter()))
            time.sleep(1.0)

    asyncio.run(under(load, work))
    inside: list[Seen] = []
    outside: list[Seen] = []
    for each in load.seen:
        is_inside = any(start - 0.1 <= each.at <= end + 0.1 for start, end in windows)
        (inside if is_inside else outside).append(each)
    failed = Counter(each.status for each in load.seen if each.status != 200)
    print(
        f"  {name:<8}{n_swaps} swaps, {len(load.seen):,} requests, failed {sum(failed.values())} {dict(failed) or ''}; "
        f"p99 {percentile(inside, 99):.2f} ms during a swap, {percentile(outside, 99):.2f} ms else; "
        f"the slowest {percentile(inside, 100):.1f} ms",
        flush=True,
    )


def killed(name: str) -> None:
    """Kill the endpoint's process under load."""
    load = load_of(name, 1, N_CONNECTIONS)
    at: list[float] = []

    def work() -> None:
        at.append(time.perf_counter())
        os.kill(target(name)[2], signal.SIGKILL)
        time.sleep(5)

    asyncio.run(under(load, work))
    failed = [each for each in load.seen if each.status == 0]
    gone = min((each.at for each in failed), default=at[0])  # until then, what was sent before it died still arrives
    answered = [each.at + each.seconds for each in load.seen if each.at > gone and each.status == 200]
    first = min(answered, default=np.inf)
    in_flight = [each for each in failed if each.at <= at[0] <= each.at + each.seconds]
    refused = [each for each in failed if each.at > at[0]]
    late = [each for each in refused if each.at > first]
    print(
        f"  {name:<8}killed: {len(in_flight)} of {N_CONNECTIONS} in flight failed, {len(refused)} found nobody, "
        f"{len(late)} failed once it was back; answers again after {first - at[0]:.2f} s (bar 2)",
        flush=True,
    )


def overload(name: str, seconds: float, n_rounds: int) -> None:
    """Ask for five times as much as it can answer, each time right after what it can answer was measured."""
    shares = [_round(name, seconds) for _ in range(n_rounds)]
    print(
        f"  {name:<8}{np.median(shares):.2f} of the peak in the median of {n_rounds} rounds "
        f"({min(shares):.2f} to {max(shares):.2f}; bar 0.9)",
        flush=True,
    )


def _round(name: str, seconds: float) -> float:
    """Return which share of its peak an endpoint answers when it is asked for five times that."""
    n_rows = 64
    peak = load_of(name, n_rows, N_CONNECTIONS)
    asyncio.run(under(peak, lambda: time.sleep(seconds)))
    best = _per_s(peak.seen)
    process = psutil.Process(target(name)[2])
    before = process.memory_info().rss
    most = [before]
    flood = load_of(name, n_rows, N_OVERLOAD * 4, per_s=5 * best)

    def work() -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            most.append(process.memory_info().rss)
            time.sleep(0.2)

    asyncio.run(under(flood, work))
    after = load_of(name, n_rows, N_CONNECTIONS)
    asyncio.run(under(after, lambda: time.sleep(seconds / 2), before_s=0.0))
    refused = [each for each in flood.seen if each.status in (429, 503)]
    counts = Counter(each.status for each in flood.seen)
    share = _per_s(flood.seen) / best
    print(
        f"  {name:<8}peak {best:,.0f} req/s of {n_rows} rows; asked for {5 * best:,.0f} a second: "
        f"{_per_s(flood.seen):,.0f} answered, {share:.2f} of the peak; {dict(counts)}; refused after "
        f"{np.median([each.seconds for each in refused] or [np.nan]) * 1e3:.1f} ms; memory {before / 1e6:.0f} to "
        f"{max(most) / 1e6:.0f} MB; afterwards {_per_s(after.seen) / best:.2f} of the peak",
        flush=True,
    )
    return share


def _per_s(seen: list[Seen]) -> float:
    """Return answers a second, the first and the last tenth of the time left out."""
    ends = [each.at + each.seconds for each in seen]
    low, high = min(ends), max(ends)
    start, end = low + (high - low) / 10, high - (high - low) / 10
    return sum(start <= at <= end and each.status == 200 for at, each in zip(ends, seen, strict=True)) / (end - start)


def main() -> None:
    """Print what was seen, in a home that is gone afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="of overload")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lps", dir="/tmp"))
    os.environ |= {"LEPTON_HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder), "LEPTON_WARM": "off"}
    try:
        notebook = Notebook()
        for name in ("net", "forest"):
            swaps(notebook, name, asked.swaps)
        for name in ("net", "forest"):
            killed(name)
        overload("crowd", asked.seconds, asked.rounds)
    finally:
        shut_down(Home.current())
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
