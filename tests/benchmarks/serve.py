"""Requests per second of an endpoint beside a bare server and other libraries', one server process each.

``python -m tests.benchmarks.serve [--rounds 3] [--seconds 6] [--peers PYTHON]…``: interpreters that have torch and one
or more of fastapi with uvicorn, litserve, bentoml, mlflow, ray[serve]; whoever is in none of them is left out. wrk
(Debian's) asks. Ours has been trained and deployed from a notebook: token, schema, batching, metrics and request log
are on. Contestants take turns; each figure is the median of the rounds. Those that keep many processes busy while
nobody asks stand beside ours and the bare one only, each in a table of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import polars as pl
import psutil
from IPython.core.interactiveshell import InteractiveShell

from lepton_jupyter.client.shutdown import shut_down
from lepton_jupyter.core.paths import EndpointFolder, Home

OURS = "%lepton deploy"
SERVERS = Path(__file__).parent / "servers"
COLUMNS = [f"x{place}" for place in range(32)]
SCRIPT = """
wrk.method = "POST"
wrk.body = io.open("{body}", "rb"):read("*a")
{headers}
"""


class Target(NamedTuple):
    """A server that is up, and how it is asked."""

    url: str
    headers: dict[str, str]
    pid: int


class Measured(NamedTuple):
    """Of one run of wrk."""

    per_s: float
    p50_ms: float
    p99_ms: float


def body_of(n_rows: int) -> bytes:
    """Return a body of so many rows."""
    draw = np.random.default_rng(0)
    rows = [dict(zip(COLUMNS, map(float, draw.normal(size=32).round(4)), strict=True)) for _ in range(n_rows)]
    return json.dumps({"rows": rows}).encode()


def binary_body_of(n_rows: int) -> tuple[bytes, dict[str, str]]:
    """Return the same rows as a binary tensor of the Open Inference Protocol, and the headers that go with it."""
    raw = np.random.default_rng(0).normal(size=(n_rows, 32)).astype("<f4").tobytes()
    tensor = {"name": "num", "shape": [n_rows, 32], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    said = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(said))}
    return said + raw, headers


def arrow_body_of(n_rows: int) -> tuple[bytes, dict[str, str]]:
    """Return the same rows as a stream of Arrow, and the header that goes with it."""
    sink = io.BytesIO()
    pl.DataFrame(json.loads(body_of(n_rows))["rows"]).write_ipc_stream(sink)
    return sink.getvalue(), {"Content-Type": "application/vnd.apache.arrow.stream"}


def load(target: Target, body: bytes, *, connections: int, seconds: float) -> Measured:
    """Let wrk ask for some seconds.

    Raises
    ------
    SystemExit
        If an answer is not 200.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        headers = {"Content-Type": "application/json"} | target.headers
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        script = Path(folder) / "ask.lua"
        script.write_text(SCRIPT.format(body=Path(folder) / "body", headers=lines))
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), target.url]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"{target.url}\n{said}")
    return Measured(float(_found(r"Requests/sec:\s+([\d.]+)", said)), _ms("50%", said), _ms("99%", said))


def _found(pattern: str, said: str) -> str:
    found = re.search(pattern, said)
    if found is None:
        raise SystemExit(said)
    return found[1]


def _ms(share: str, said: str) -> float:
    value = _found(rf"{share}\s+([\d.]+\w+)", said)
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}[value.lstrip("0123456789.")]
    return float(value.rstrip("ums")) * unit


@contextmanager
def process(argv: Sequence[str], port: int, *, path: str = "predict", body: bytes | None = None) -> Iterator[Target]:
    """Start a peer and wait until it answers."""
    child = subprocess.Popen(
        argv, cwd=SERVERS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    target = Target(f"http://127.0.0.1:{port}/{path}", {}, child.pid)
    body = body or body_of(1)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                with urlopen(Request(target.url, body, {"Content-Type": "application/json"}), timeout=5):
                    break
            except (URLError, OSError):
                if time.monotonic() > until or child.poll() is not None:
                    raise SystemExit(f"{' '.join(argv)} does not answer.") from None
                time.sleep(0.1)
        yield target
    finally:
        for each in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        child.wait()


def free_port() -> int:
    """Return a port that nobody uses just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def uvicorn(app: str, python: str, *flags: str) -> Any:
    """Return the context of a uvicorn with one worker, its fastest parts in."""
    port = free_port()
    argv = [python, "-m", "uvicorn", app, "--port", str(port), "--http", "httptools", "--loop", "uvloop",
            "--no-access-log", "--log-level", "warning", *flags]  # fmt: skip
    return process(argv, port)


def litserve(python: str) -> Any:
    """Return the context of a LitServe."""
    port = free_port()
    return process([python, "litserve_torch.py", str(port)], port)


def bentoml(python: str) -> Any:
    """Return the context of a BentoML with one worker."""
    port = free_port()
    return process([python, "-m", "bentoml", "serve", "bentoml_torch:Predict", "--port", str(port)], port)


def mlflow(python: str) -> Any:
    """Return the context of an ``mlflow models serve`` with one worker."""
    port = free_port()
    return process([python, "mlflow_torch.py", str(port)], port, path="invocations", body=split_body())


def ray(python: str) -> Any:
    """Return the context of a Ray Serve with one replica."""
    port = free_port()
    return process([python, "ray_torch.py", str(port)], port)


LIGHT = {"FastAPI + torch": ("fastapi", partial(uvicorn, "fastapi_torch:app")), "LitServe": ("litserve", litserve)}
HEAVY = {"BentoML": ("bentoml", bentoml), "mlflow models serve": ("mlflow", mlflow), "Ray Serve": ("ray", ray)}


def who_has(module: str, pythons: Sequence[str]) -> str | None:
    """Return the first interpreter that has a module beside torch."""
    code = f"import sys, importlib.util as u; sys.exit(not all(u.find_spec(name) for name in ('torch', {module!r})))"
    return next((python for python in pythons if subprocess.run([python, "-c", code]).returncode == 0), None)


@contextmanager
def ours() -> Iterator[dict[str, Target]]:
    """Train, register and deploy from a notebook."""
    shell = InteractiveShell.instance()

    def do(line: str) -> None:
        shell.run_cell(line, silent=False, store_history=False).raise_error()

    do("%load_ext lepton_jupyter")
    shell.user_ns["__name__"] = "__main__"
    do((SERVERS / "net.py").read_text())
    import pandas as pd

    draw = np.random.default_rng(0)
    table = pd.DataFrame(draw.normal(size=(2000, 32)), columns=COLUMNS)
    shell.user_ns["table"] = table.assign(y=(table["x0"] + draw.normal(size=2000) > 0).astype(int))
    do("%lepton data bench table --target y")
    do("%lepton train Net --data bench --epochs 3")
    do("%lepton deploy Net --as bench")
    names = np.array(["Adelie", "Chinstrap", "Gentoo"])
    words = {f"s{place}": names[draw.integers(0, 3, 2000)] for place in range(6)}
    shell.user_ns["words"] = shell.user_ns["table"].iloc[:, :10].assign(y=shell.user_ns["table"]["y"], **words)
    do("%lepton data named words --target y")
    do("from sklearn.linear_model import LogisticRegression")
    do("%lepton train LogisticRegression --name Named --data named")
    do("%lepton deploy Named --as named")
    yield {name: endpoint(name) for name in ("bench", "named")}


def endpoint(name: str) -> Target:
    """Return an endpoint of ours that is up."""
    folder = Home.current().endpoint(name)
    status = json.loads(folder.status.read_bytes())
    headers = {"Authorization": f"Bearer {folder.token.read_text().strip()}"}
    return Target(f"http://127.0.0.1:{status['port']}/predict", headers, status["pid"])


def split_body() -> bytes:
    """Return one row as MLflow takes it."""
    (row,) = json.loads(body_of(1))["rows"]
    return json.dumps({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}).encode()


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process and its children."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6


def named_body() -> bytes:
    """Return a row of ten numbers and six words."""
    row = dict.fromkeys(COLUMNS[:10], 0.25) | {f"s{place}": "Gentoo" for place in range(6)}
    return json.dumps({"rows": [row]}).encode()


def start_to_ready(folder: EndpointFolder, rounds: int) -> float:
    """Return the median seconds from the start of an endpoint's process to its being ready."""
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            other = EndpointFolder(Path(place) / "e")
            other.root.mkdir()
            config = json.loads(folder.config.read_bytes()) | {"port": free_port()}
            other.config.write_text(json.dumps(config))
            began = time.perf_counter()
            child = subprocess.Popen(
                [sys.executable, "-m", "lepton_jupyter.serving", str(other.root), str(Path(place) / "lock")],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while True:
                try:
                    with urlopen(f"http://127.0.0.1:{config['port']}/readyz", timeout=5):
                        break
                except (URLError, OSError):
                    time.sleep(0.005)
            seconds.append(time.perf_counter() - began)
            child.terminate()
            child.wait()
    return statistics.median(seconds)


def compare(
    targets: dict[str, Target],
    bodies: dict[str, bytes],
    *,
    n_rows: int,
    connections: int,
    rounds: int,
    seconds: float,
) -> None:
    """Print one table; a target that `bodies` does not name gets the rows as JSON."""
    print(f"\n{n_rows} rows a request, {connections} connections, {rounds} rounds of {seconds:g} s")
    print(f"  {'':<26}{'req/s':>10}{'rows/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'RSS MB':>8}  of the bare one")
    plain = body_of(n_rows)
    seen: dict[str, list[Measured]] = {name: [] for name in targets}
    for name, target in targets.items():
        load(target, bodies.get(name, plain), connections=connections, seconds=1)
    for place in range(rounds):
        for name in list(targets) if place % 2 == 0 else reversed(targets):
            seen[name].append(load(targets[name], bodies.get(name, plain), connections=connections, seconds=seconds))
    for name, measured in seen.items():
        per_s, p50, p99 = (statistics.median(values) for values in zip(*measured, strict=True))
        share = statistics.median(a.per_s / b.per_s for a, b in zip(measured, seen["bare uvicorn"], strict=True))
        rss, to_ours = memory_mb(targets[name].pid), ""
        if name in LIGHT | HEAVY:
            ratios = [a.per_s / b.per_s for a, b in zip(seen[OURS], measured, strict=True)]
            to_ours = f"; ours {statistics.median(ratios):.1f}×"
        figures = f"{per_s:>10,.0f}{per_s * n_rows:>12,.0f}{p50:>9.2f}{p99:>9.2f}{rss:>8.0f}"
        print(f"  {name:<26}{figures}  {share:.2f}×{to_ours}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--peers", nargs="*", default=os.environ.get("LEPTON_PEERS", "").split())
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="lpb", dir="/tmp"))
    os.environ |= {"LEPTON_HOME": str(place / "home"), "XDG_RUNTIME_DIR": str(place), "LEPTON_WARM": "off"}
    try:
        with ExitStack() as stack:
            targets = {
                "bare uvicorn": stack.enter_context(uvicorn("bare:app", sys.executable)),
            }
            mine = stack.enter_context(ours())
            targets[OURS] = mine["bench"]
            both = dict(targets)
            for name, (module, start) in LIGHT.items():
                if python := who_has(module, asked.peers):
                    targets[name] = stack.enter_context(start(python))
            for n_rows, connections in ((1, 32), (64, 32), (1, 256)):
                bodies: dict[str, bytes] = {}
                more: dict[str, Target] = {}
                if n_rows > 1:
                    bodies["  binary tensors"], headers = binary_body_of(n_rows)
                    base = mine["bench"]
                    url = base.url.replace("/predict", "/v2/models/bench/infer")
                    more["  binary tensors"] = Target(url, base.headers | headers, base.pid)
                    bodies["  Arrow"], headers = arrow_body_of(n_rows)
                    more["  Arrow"] = Target(base.url, base.headers | headers, base.pid)
                elif connections == 32:
                    bodies["  named, with strings"] = named_body()
                    more["  named, with strings"] = mine["named"]
                compare(
                    targets | more, bodies, n_rows=n_rows, connections=connections, rounds=asked.rounds,
                    seconds=asked.seconds,
                )  # fmt: skip
            for name, (module, start) in HEAVY.items():
                if python := who_has(module, asked.peers):
                    with start(python) as target:
                        bodies = {name: split_body()} if name == "mlflow models serve" else {}
                        compare(
                            both | {name: target}, bodies, n_rows=1, connections=32, rounds=asked.rounds,
                            seconds=asked.seconds,
                        )  # fmt: skip
            ready_s = start_to_ready(Home.current().endpoint("bench"), 5)
            print(f"\nstart to ready {ready_s:.2f} s")
    finally:
        shut_down(Home.current())
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
