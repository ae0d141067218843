"""How many independent rows are the rows of a window worth? Real traffic comes in bursts, and from the same users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 20_000  # of which neighbours are compared: enough for three digits, whatever the window
BY_NEIGHBOURS = "rows that follow each other are alike"
BY_IDS = "the same ids come again"

Codes = NDArray[np.intp]


class Dependence(NamedTuple):
    """How far rows depend on each other.

    Attributes
    ----------
    deff : float
        Design effect, at least 1: rows divided by effective rows.
    seen_by : str
        By what it was seen; empty where the rows are independent.
    by_column : dict of str to float
        The design effect of each column on its own, never below `deff`.
    """

    deff: float
    seen_by: str
    by_column: dict[str, float]


def dependence(columns: Mapping[str, Codes], ids: Sequence[Any] | None = None) -> Dependence:
    """Return the design effect of rows in the order in which they came.

    It is the larger of the median over columns of `neighbours` and `clusters` of the ids: neighbours cannot show users
    whose requests are interleaved.

    Parameters
    ----------
    columns : mapping of str to NDArray
        [N] the place of each row's bin or category, for every column.
    ids : sequence, optional
        [N] what names a row's user or subject; None where it is not known.
    """
    alone = {name: neighbours(codes) for name, codes in columns.items()}
    seen = [deff for deff in alone.values() if deff is not None]
    by_neighbours = float(np.median(seen)) if seen else 1.0
    by_ids = clusters(ids) if ids is not None else 1.0
    deff = max(1.0, by_neighbours, by_ids)
    said = "" if deff == 1.0 else BY_IDS if by_ids >= by_neighbours else BY_NEIGHBOURS
    return Dependence(deff, said, {name: max(deff, own or 1.0) for name, own in alone.items()})


def neighbours(codes: Codes) -> float | None:
    """Return the design effect that a column's lag correlations show: 1 + 2 sum rho; None for a constant column.

    The correlation at a lag is that of the bins' indicators together: how much oftener than chance two rows so far
    apart lie in the same bin. Lags are summed in pairs for as long as these are above what chance gives and do not
    grow, as Geyer (1992), Practical Markov chain Monte Carlo, does.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> neighbours(rng.integers(0, 10, 5_000)) < 1.1
    True
    >>> round(neighbours(np.repeat(rng.integers(0, 10, 5_000), 3)))
    3
    """
    codes = codes[-MOST_ROWS:]
    n = len(codes)
    counts = np.bincount(codes).astype(np.float64)
    if n < 4 or counts.max() == n:
        return None
    same = float((counts * (counts - 1)).sum() / (n * (n - 1)))  # of two rows anywhere
    shares = counts / n
    spread = (shares**2).sum() + (shares**2).sum() ** 2 - 2 * (shares**3).sum()
    chance = float(np.sqrt(2 * max(0.0, spread) / n) / (1 - same))  # standard error of a pair of lags
    total, before = 0.0, np.inf
    for lag in range(1, n // 2 - 1, 2):
        pair = _correlation(codes, lag, same) + _correlation(codes, lag + 1, same)
        if pair <= chance:
            break
        before = min(before, pair)
        total += before
    return max(1.0, 1.0 + 2.0 * total)


def _correlation(codes: Codes, lag: int, same: float) -> float:
    return (float(np.count_nonzero(codes[lag:] == codes[:-lag])) / (len(codes) - lag) - same) / (1 - same)


def clusters(ids: Sequence[Any]) -> float:
    """Return the design effect of ids that come again: sum c^2 / sum c (Kish 1965, Survey Sampling).

    A row without an id stands alone.

    Examples
    --------
    >>> clusters(["a", "a", "b", None, None])
    1.4
    """
    known = Counter(value if isinstance(value, Hashable) else str(value) for value in ids if value is not None)
    squares = sum(count * count for count in known.values()) + len(ids) - known.total()
    return squares / len(ids) if len(ids) else 1.0
