"""Rows per second of ``%lepton train`` beside loops by hand and other libraries, each in a process of its own.

``python -m tests.benchmarks.train [mlp cnn transformer] [--pairs 15] [--peers PYTHON]``: PYTHON is an interpreter that
has lightning and skorch (and torch); without it these rows are left out. Rows per second count from the first
training step to the last, validation included, imports and loading excluded; for ours from the end of the first epoch
that began after the export proof had ended, since that proof computes beside us. Ours runs with events, telemetry,
tracking and checkpoints on.

A ratio is the median over interleaved pairs, with its 95 % bootstrap interval (Efron, 1979: 2,000 draws of pairs). The
row of the hand-written loop against itself shows how much of it is noise: a bar holds where the interval reaches it.
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
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from IPython.core.interactiveshell import InteractiveShell

LOOPS = Path(__file__).parent / "loops"
sys.path.insert(0, str(LOOPS))
from models import BATCH, MODELS, N_TRAIN, N_VALIDATION, rows  # noqa: E402

EPOCHS = {"mlp": 30, "cnn": 12, "transformer": 18}  # ours: the first ones go by beside the export proof
HAND_EPOCHS = {"mlp": 30, "cnn": 5, "transformer": 8}
PEER_EPOCHS = {"mlp": 3, "cnn": 1, "transformer": 2}
BARS = {"loader": 2.0, "lightning": 4.0, "skorch": 2.5}

CALM = 0.15  # of the machine in use, at most, when a contestant begins

Measured = tuple[float, float]  # rows per second, seconds of the whole command


def calm_down() -> None:
    """Wait until nobody computes: what one contestant leaves running (ours warms the next kernel) slows the next."""
    until = time.monotonic() + 60
    while psutil.cpu_percent(2.0) > 100 * CALM and time.monotonic() < until:
        pass


def program(*argv: str, python: str = sys.executable) -> Measured:
    """Run a contestant; return its rows per second and how long the whole process took."""
    started = time.perf_counter()
    done = subprocess.run([python, *argv], capture_output=True, text=True, cwd=LOOPS, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])["rows_per_s"], time.perf_counter() - started


class Ours:
    """A notebook in a home of its own."""

    def __init__(self, models: Sequence[str]) -> None:
        self.shell = InteractiveShell.instance()
        self._do("%load_ext lepton_jupyter")
        self.shell.user_ns["__name__"] = "__main__"
        self._do((LOOPS / "models.py").read_text())
        self.proof_s: list[float] = []
        for model in models:
            x, y = rows(model)
            self.shell.user_ns[f"rows_{model}"] = (x.numpy(), y.numpy())
            n, held = N_TRAIN[model], N_VALIDATION[model]
            share = held / (n + held)
            self._do(f"%lepton data bench_{model} rows_{model} --split {1 - share:.9f},{share:.9f},0")

    def _do(self, line: str) -> object:
        done = self.shell.run_cell(line, silent=False, store_history=False)
        done.raise_error()
        return done.result

    def train(self, model: str) -> Measured:
        """Train as a person does; return rows per second and the seconds of the cell."""
        started = time.perf_counter()
        self._do(
            f"found = %lepton train {MODELS[model].__name__} --data bench_{model} --epochs {EPOCHS[model]} "
            f"--batch-size {BATCH[model]} --optimizer adam --lr-scheduler constant --preprocess none"
        )
        seconds = time.perf_counter() - started
        run = self.shell.user_ns["found"]
        events = run.events()
        began = next(event["at"] for event in events if event["kind"] in ("telemetry", "metric"))
        proved = next(e["at"] for e in events if e["kind"] == "note" and e.get("key") == "exportable")
        self.proof_s.append(max(0.0, proved - began))
        ended = [event["at"] for event in events if event["kind"] == "metric" and event["at"] > proved]
        if len(ended) < 2:
            raise SystemExit(f"The export proof of {model} ended too late: train for more epochs.")
        n = self._rows(model)
        return n * (len(ended) - 1) / (ended[-1] - ended[0]), seconds

    def _rows(self, model: str) -> int:
        from lepton_jupyter.core.paths import Home
        from lepton_jupyter.stages.data.store import Store

        return Store(Home.current()).open(f"bench_{model}").record.split_rows["train"]


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a median."""
    draws = np.random.default_rng(0).choice(np.asarray(ratios), (2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def best_by_hand(model: str) -> tuple[str, str]:
    """Return kind and threads of the fastest loop by hand: three short runs of each."""
    tried = {(kind, threads): [] for kind in ("permuted", "indexed") for threads in ("1", "2")}
    for _ in range(3):
        for (kind, threads), seen in tried.items():
            seen.append(program("by_hand.py", model, kind, str(PEER_EPOCHS[model]), threads)[0])
    middle = {key: statistics.median(seen) for key, seen in tried.items()}
    print("  by hand: " + ", ".join(f"{kind}, {n} threads {value:,.0f}" for (kind, n), value in middle.items()))
    return max(middle, key=lambda key: middle[key])


def show(name: str, measured: Sequence[Measured], ratios: Sequence[float] = (), note: str = "") -> None:
    """Print a row."""
    speed = statistics.median(value for value, _ in measured)
    wall = statistics.median(seconds for _, seconds in measured)
    said = ""
    if ratios:
        low, high = interval(ratios)
        said = f"{statistics.median(ratios):8.3f}  ({low:.3f}–{high:.3f})"
    print(f"  {name:<34}{speed:>12,.0f}{wall:>9.1f}{said}  {note}", flush=True)


def compare(model: str, ours: Ours, n_pairs: int, peers: str | None) -> None:
    """Print the table of one model."""
    print(f"\n{model}: {N_TRAIN[model]:,} rows, batch {BATCH[model]}, {EPOCHS[model]} epochs, {n_pairs} pairs")
    kind, threads = best_by_hand(model)
    epochs, by_hand = str(EPOCHS[model]), ("by_hand.py", model, kind, str(HAND_EPOCHS[model]), threads)
    contestants: dict[str, Callable[[], Measured]] = {
        "by hand": lambda: program(*by_hand),
        "ours": lambda: ours.train(model),
        "again": lambda: program(*by_hand),
        "alone": lambda: program("engine_alone.py", model, epochs, str(BATCH[model])),
    }
    seen: dict[str, list[Measured]] = {name: [] for name in contestants}
    for place in range(n_pairs):
        order = list(contestants) if place % 2 == 0 else list(reversed(contestants))
        for name in order:
            calm_down()
            seen[name].append(contestants[name]())

    def ratios(one: str, other: str) -> list[float]:
        return [a[0] / b[0] for a, b in zip(seen[one], seen[other], strict=True)]

    print(f"  {'':<34}{'rows/s':>12}{'wall s':>9}   ratio  (95 %)")
    show(f"by hand ({kind}, {threads} threads)", seen["by hand"])
    show("by hand against itself", seen["again"], ratios("again", "by hand"))
    proof = statistics.median(ours.proof_s)
    show("%lepton train", seen["ours"], ratios("ours", "by hand"), f"bar 0.98; export proof {proof:.1f} s, left out")
    show("our engine, everything off", seen["alone"])
    show("  on against off", seen["ours"], ratios("ours", "alone"), "bar 0.98")
    others = {"loader": ("by_hand.py", model, "loader", str(PEER_EPOCHS[model]), threads)}
    speed = statistics.median(value for value, _ in seen["ours"])
    for name, argv in others.items():
        measured = [program(*argv) for _ in range(5)]
        bar = f"bar {BARS[name]}" if model == "mlp" else ""
        show(
            "DataLoader by hand", measured, [speed / value for value, _ in measured], f"ours is that much faster; {bar}"
        )
    for name in ("lightning", "skorch") if peers else ():
        measured = [program("peers.py", model, name, str(PEER_EPOCHS[model]), python=str(peers)) for _ in range(5)]
        bar = f"bar {BARS[name]}" if model == "mlp" else ""
        show(name, measured, [speed / value for value, _ in measured], f"ours is that much faster; {bar}")


def main() -> None:
    """Print a table for each model that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], default=list(MODELS))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--peers", default=os.environ.get("LEPTON_PEERS"))
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lpb", dir="/tmp"))
    os.environ |= {"LEPTON_HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder)}
    from lepton_jupyter.client.shutdown import shut_down
    from lepton_jupyter.core.paths import Home

    try:
        ours = Ours(asked.models)
        for model in asked.models:
            ours.proof_s.clear()
            compare(model, ours, asked.pairs, asked.peers)
    finally:
        shut_down(Home.current())
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
