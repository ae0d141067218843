"""The truth of drift: false alarms where nothing changed, and what is caught where something did.

Run by hand: ``python -m tests.benchmarks.drift [--windows 1000] [--shifted 200] [--seed 0]``. It prints a table.
References of 1,000 rows and windows of 500, both drawn with replacement from the whole of a dataset.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import Column, Schema
from lepton_jupyter.stages.monitor.engine import report
from tests.stages.monitor.traffic import Rows

N_REFERENCE = 1_000
N_WINDOW = 500
Rng = np.random.Generator


class Drawn(NamedTuple):
    """A window, with its ids, and the column that was shifted."""

    rows: Rows
    ids: list[Any] | None = None
    shifted: str = ""


class Setting(NamedTuple):
    """One line of the table."""

    name: str
    draw: Callable[[Rows, Rng], Drawn]
    n_rows: int = N_WINDOW
    is_null: bool = True


def null(rows: Rows, rng: Rng, n: int = N_WINDOW) -> Drawn:
    """Nothing changed."""
    return Drawn(rows.draw(rng, n))


def one_sd(rows: Rows, rng: Rng) -> Drawn:
    """One numeric column moves by one standard deviation."""
    window = rows.draw(rng, N_WINDOW)
    place = int(rng.integers(len(rows.schema.num)))
    window.packed.num[:, place] += rng.choice([-1, 1]) * np.nanstd(rows.packed.num[:, place])
    return Drawn(window, shifted=rows.schema.num[place].name)


def missing(rows: Rows, rng: Rng) -> Drawn:
    """A fifth of one column is missing."""
    window = rows.draw(rng, N_WINDOW)
    place = int(rng.integers(len(rows.schema.num)))
    window.packed.num[rng.random(N_WINDOW) < 0.2, place] = np.nan
    return Drawn(window, shifted=rows.schema.num[place].name)


def doubled(rows: Rows, rng: Rng) -> Drawn:
    """The share of one category of 20 to 50 % doubles."""
    column, category = _categories(rows)[int(rng.integers(len(_categories(rows))))]
    place = [one.name for one in rows.schema.txt].index(column)
    has = rows.packed.txt[:, place] == category
    share = min(1.0, 2 * has.mean())
    window = np.where(
        rng.random(N_WINDOW) < share,
        rng.choice(np.flatnonzero(has), N_WINDOW),
        rng.choice(np.flatnonzero(~has), N_WINDOW),
    )
    return Drawn(rows.at(window), shifted=column)


def _categories(rows: Rows) -> list[tuple[str, str]]:
    found = []
    for place, column in enumerate(rows.schema.txt):
        names, counts = np.unique(rows.packed.txt[:, place].astype(str), return_counts=True)
        shares = zip(names, counts / len(rows), strict=True)
        found += [(column.name, str(name)) for name, share in shares if 0.2 <= share <= 0.5]
    return found


def bursts(rows: Rows, rng: Rng, *, size: int, n: int = N_WINDOW) -> Drawn:
    """Every row comes several times in a row."""
    return Drawn(rows.at(np.repeat(rng.integers(0, len(rows), -(-n // size)), size)[:n]))


def autocorrelated(rows: Rows, rng: Rng, *, rho: float = 0.9, n: int = N_WINDOW) -> Drawn:
    """Each column keeps its distribution; its rank follows a Gaussian process of this autocorrelation."""
    window = rows.draw(rng, n)
    for part in (window.packed.num, window.packed.txt):
        whole = rows.packed.num if part is window.packed.num else rows.packed.txt
        for place in range(part.shape[1]):
            part[:, place] = _by_rank(whole[:, place], _process(rng, n, rho))
    window.predictions[:] = _by_rank(rows.predictions, _process(rng, n, rho))
    return Drawn(window)


def _process(rng: Rng, n: int, rho: float) -> np.ndarray:
    noise = rng.standard_normal(n) * np.sqrt(1 - rho**2)
    values = np.empty(n)
    values[0] = rng.standard_normal()
    for at in range(1, n):
        values[at] = rho * values[at - 1] + noise[at]
    return values


def _by_rank(whole: np.ndarray, process: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    order = np.sort(whole) if whole.dtype.kind == "f" else np.sort(whole.astype(str)).astype(object)
    return order[np.minimum((norm.cdf(process) * len(order)).astype(int), len(order) - 1)]


def users(rows: Rows, rng: Rng, *, size: int = 10, n: int = N_WINDOW) -> Drawn:
    """Users send so many rows each, four of five values always the same, interleaved; an id column names them."""
    n_users = n // size
    user = rng.permutation(np.repeat(np.arange(n_users), size))
    own = rng.integers(0, len(rows), n_users)
    window, others = rows.at(own[user]), rows.draw(rng, n)
    for mine, theirs in zip(window.packed, others.packed, strict=True):
        is_new = rng.random(mine.shape) < 0.2
        mine[is_new] = theirs[is_new]
    return Drawn(window, ids=[f"user-{place}" for place in user])


def normal_columns(rng: Rng, *, n: int = 20_000, k: int = 10) -> Rows:
    """Return rows of independent normal columns: the plain case of a library's textbook."""
    schema = Schema(
        columns=tuple(Column(name=f"x{place}", kind="number") for place in range(k)),
        targets=("y",), task="binary", classes=("a", "b"),
    )  # fmt: skip
    values = rng.standard_normal((n, k))
    labels = np.where(rng.random(n) < 0.3, "a", "b").astype(object)
    return Rows(schema, Packed(values, np.empty((n, 0), dtype=object)), labels)


SETTINGS = (
    Setting("nothing changed", null),
    Setting("autocorrelation 0.9", autocorrelated),
    Setting("bursts of 3 equal rows", lambda rows, rng: bursts(rows, rng, size=3)),
    Setting("bursts of 10 equal rows", lambda rows, rng: bursts(rows, rng, size=10)),
    Setting("users of 10 rows, with ids", users),
    Setting("one column by one sd", one_sd, is_null=False),
    Setting("a category of 20–50 % doubled", doubled, is_null=False),
    Setting("20 % of a column missing", missing, is_null=False),
)
LARGER = (
    Setting("5,000 rows, nothing changed", lambda rows, rng: null(rows, rng, 5_000), 5_000),
    Setting("1,500 rows, autocorrelation 0.8", lambda rows, rng: autocorrelated(rows, rng, rho=0.8, n=1_500), 1_500),
    Setting("2,000 rows, autocorrelation 0.9", lambda rows, rng: autocorrelated(rows, rng, n=2_000), 2_000),
    Setting("10,000 rows, autocorrelation 0.9", lambda rows, rng: autocorrelated(rows, rng, n=10_000), 10_000),
    Setting(
        "10,000 rows, autocorrelation 0.99", lambda rows, rng: autocorrelated(rows, rng, rho=0.99, n=10_000), 10_000
    ),
    Setting("5,000 rows, bursts of 3", lambda rows, rng: bursts(rows, rng, size=3, n=5_000), 5_000),
    Setting("5,000 rows, bursts of 10", lambda rows, rng: bursts(rows, rng, size=10, n=5_000), 5_000),
    Setting("5,000 rows, users of 10, with ids", lambda rows, rng: users(rows, rng, n=5_000), 5_000),
)


def records(rows: Rows, setting: Setting, *, n: int, seed: int) -> Iterator[tuple[Drawn, MonitorRecord]]:
    """Yield a report for each of n pairs of reference and window."""
    for place in range(n):
        rng = np.random.default_rng([seed, place])
        reference = rows.draw(rng, N_REFERENCE)
        drawn = setting.draw(rows, rng)
        yield drawn, report(drawn.rows.window(reference, ids=drawn.ids))


class Line(NamedTuple):
    """What a setting gave: shares of its windows."""

    drifted: float
    predictions: float
    caught: float
    verdict: float
    not_enough: float
    effective: float


def measure(rows: Rows, setting: Setting, *, n: int, seed: int = 0) -> Line:
    """Return how often windows of a setting were called drifted, and whether the right column was."""
    found = []
    for drawn, record in records(rows, setting, n=n, seed=seed):
        drifted = [column for column in record.columns if column.has_drifted]
        found.append(
            (
                any(column.kind != "prediction" for column in drifted),
                any(column.kind == "prediction" for column in drifted),
                any(column.name == drawn.shifted for column in drifted),
                record.verdict == "DRIFT",
                record.verdict == "NOT ENOUGH DATA",
                record.window.n_effective,
            )
        )
    return Line(*(float(np.mean(side)) for side in zip(*found, strict=True)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1_000)
    parser.add_argument("--shifted", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    made = {
        "wdbc": Rows.of("wdbc"),
        "penguins": Rows.of("penguins"),
        "normal": normal_columns(np.random.default_rng(1)),
    }
    print(
        "| data | window of 500 unless said | windows | a column drifted | predictions | shifted column caught "
        "| verdict DRIFT | not enough data | effective rows | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for settings, (name, rows) in itertools.product((SETTINGS, LARGER), made.items()):
        for setting in settings:
            if asked.only not in setting.name or (setting.draw is doubled and not _categories(rows)):
                continue
            n = asked.windows if setting.is_null and setting.n_rows == N_WINDOW else asked.shifted
            started = time.perf_counter()
            line = measure(rows, setting, n=n, seed=asked.seed)
            caught = f"{line.caught:.1%}" if not setting.is_null else ""
            print(
                f"| {name} | {setting.name} | {n} | {line.drifted:.1%} | {line.predictions:.1%} | {caught} "
                f"| {line.verdict:.1%} | {line.not_enough:.1%} | {line.effective:,.0f} "
                f"| {time.perf_counter() - started:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
