"""What `%load_ext lepton_jupyter` adds to a fresh IPython, beside `import msgspec`. Medians of fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 11
PROGRAM = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from time import perf_counter
started = perf_counter()
{line}
print((perf_counter() - started) * 1000)
"""
LINES = {
    "import msgspec": "import msgspec",
    "import lepton_jupyter": "import lepton_jupyter",
    "%load_ext lepton_jupyter": "shell.run_line_magic('load_ext', 'lepton_jupyter')",
}


def main() -> None:
    """Print the table."""
    times: dict[str, list[float]] = {name: [] for name in LINES}
    for _ in range(ROUNDS):
        for name, line in LINES.items():
            printed = subprocess.run(
                [sys.executable, "-c", PROGRAM.format(line=line)], capture_output=True, text=True, check=True
            ).stdout
            times[name].append(float(printed.split()[-1]))
    print(f"{'in a fresh IPython':<28}{'median ms':>10}{'min':>8}{'max':>8}")
    for name, values in times.items():
        print(f"{name:<28}{statistics.median(values):>10.1f}{min(values):>8.1f}{max(values):>8.1f}")
    print(f"aim: 60 ms in all; {ROUNDS} processes each")


if __name__ == "__main__":
    main()
