"""Trials per second of ``%lepton tune`` beside Optuna in one process around the best loop by hand.

``python -m tests.benchmarks.tune [--trials 64] [--epochs 10] [--repeats 3] [--rows 8000]``: over learning rate and
weight decay, without pruning, for two small MLPs. The peer's time runs from its first trial's begin to its last one's
end; ours, with its run, events and study on disk, from the search's begin to its last trial's end, the measuring of
both ways included, the version's proof not. Whether both found the same: each one's best values are trained five
times by the loop by hand, and the two means lie side by side with the spread over seeds.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

LOOPS = Path(__file__).parent / "loops"
sys.path.insert(0, str(LOOPS))
from tune_by_hand import N_HELD, rows  # noqa: E402

CASES = (("30-32-32-1", 64, 1, 6.0), ("32-64-64-1", 256, 4, 1.7))  # widths, batch, times --rows, bar

MLP = """
from torch import nn
class Mlp(nn.Module):
    def __init__(self, n_features, widths):
        super().__init__()
        sizes = [n_features, *widths]
        parts = []
        for place, (n_in, n_out) in enumerate(zip(sizes, sizes[1:])):
            parts += [nn.Linear(n_in, n_out), *([nn.ReLU()] if place < len(sizes) - 2 else [])]
        self.layers = nn.Sequential(*parts)
    def forward(self, x):
        return self.layers(x)
"""


def by_hand(*argv: object) -> dict[str, Any]:
    """Run the peer in a process of its own."""
    command = [sys.executable, "tune_by_hand.py", *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=LOOPS, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Ours:
    """A notebook in a home of its own."""

    def __init__(self) -> None:
        self.shell = InteractiveShell.instance()
        self.shell.user_ns["__name__"] = "__main__"
        self._do("%load_ext lepton_jupyter")
        self._do(MLP)

    def _do(self, line: str) -> None:
        self.shell.run_cell(line, store_history=False).raise_error()

    def add(self, name: str, n_features: int, n_rows: int) -> None:
        """Make the dataset of a case."""
        self.shell.user_ns["table"] = rows(n_features, n_rows)
        share = N_HELD / (n_rows + N_HELD)
        self._do(f"%lepton data {name} table --split {1 - share:.9f},{share:.9f},0")

    def tune(self, name: str, widths: str, batch: int, epochs: int, trials: int) -> dict[str, Any]:
        """Search as a person does."""
        self._do(
            f"found = %lepton tune Mlp --name {name} --data {name} --trials {trials} --epochs {epochs} "
            f"--batch-size {batch} --lr-scheduler constant --preprocess none --pruner none -p widths={widths} "
            '--search "lr=loguniform(1e-4,1e-1)" --search "weight_decay=loguniform(1e-6,1e-1)"'
        )
        found = self.shell.user_ns["found"]
        events = found.events()
        began = next(event["at"] for event in events if event["kind"] == "note" and event.get("key") == "metric")
        ended = [event["at"] for event in events if event["kind"] == "progress"][-1]
        return {
            "trials_per_s": trials / (ended - began), "value": found.value, "params": found.params,
            "how": found.record.how,
        }  # fmt: skip


def show(name: str, speeds: Sequence[float], value: float, params: dict[str, float], note: str = "") -> None:
    """Print a row."""
    at = f"lr {params['lr']:.2g}, weight decay {params['weight_decay']:.2g}"
    print(f"  {name:<24}{statistics.median(speeds):>10.2f}{value:>12.4f}  {at}  {note}", flush=True)


def compare(ours: Ours, case: tuple[str, int, int, float], asked: argparse.Namespace) -> None:
    """Print the table of one model."""
    sizes, batch, times, bar = case
    n_rows, n_features = asked.rows * times, int(sizes.split("-")[0])
    print(f"\nMLP {sizes}, batch {batch}: {asked.trials} trials of {asked.epochs} epochs of {n_rows:,} rows")
    loop = (sizes, batch, n_rows, asked.epochs)
    tried = {threads: by_hand(*loop, max(2, asked.trials // 8), threads)["trials_per_s"] for threads in (1, 2)}
    threads = max(tried, key=lambda one: tried[one])
    name = f"bench-{sizes}".replace("-", "_")
    ours.add(name, n_features, n_rows)
    widths = "[" + ",".join(sizes.split("-")[1:]) + "]"
    theirs, mine = [], []
    for _ in range(asked.repeats):
        theirs.append(by_hand(*loop, asked.trials, threads))
        mine.append(ours.tune(name, widths, batch, asked.epochs, asked.trials))
    ratios = [one["trials_per_s"] / other["trials_per_s"] for one, other in zip(mine, theirs, strict=True)]
    print(f"  {'':<24}{'trials/s':>10}{'best loss':>12}")
    of = f"{threads} thread{'s' * (threads > 1)}"
    show(f"by hand ({of})", [one["trials_per_s"] for one in theirs], theirs[0]["value"], theirs[0]["params"])
    show("%lepton tune", [one["trials_per_s"] for one in mine], mine[0]["value"], mine[0]["params"])
    said = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"  ratio: {statistics.median(ratios):.2f} (bar {bar}; each: {said})\n  ours: {mine[0]['how']}")
    for word, best in (("its own", theirs[0]["params"]), ("our", mine[0]["params"])):
        losses = by_hand(*loop, 0, threads, best["lr"], best["weight_decay"])["val_losses"]
        mean, spread = statistics.mean(losses), statistics.stdev(losses)
        print(f"  the loop by hand at {word} best values: {mean:.4f} ± {spread:.4f} over 5 seeds", flush=True)


def main() -> None:
    """Print both tables, in a home that is gone afterwards."""
    parser = argparse.ArgumentParser()
    for flag, default in (("trials", 64), ("epochs", 10), ("repeats", 3), ("rows", 8000)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lpt", dir="/tmp"))
    os.environ |= {"LEPTON_HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder)}
    from lepton_jupyter.client.shutdown import shut_down
    from lepton_jupyter.core.paths import Home

    try:
        ours = Ours()
        for case in CASES:
            compare(ours, case, asked)
    finally:
        shut_down(Home.current())
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
