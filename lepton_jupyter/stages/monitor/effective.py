"""How many independent rows are the rows of a window worth? Real traffic comes in bursts, and from the same users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 20_000  # of which neighbours are compared: enough for three digits, whatever the window
BY_NEIGHBOURS = "rows that follow each other are alike"
BY_IDS = "the same ids come again"

Codes = NDArray[np.intp]
Floats = NDArray[np.float64]


class Cells(NamedTuple):
    """In which cell of a column each row lies.

    Attributes
    ----------
    codes : NDArray
        int [N].
    n_ordered : int
        The first so many cells are bins in their order; the others (categories, missing) have none.
    """

    codes: Codes
    n_ordered: int = 0


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


def dependence(columns: Mapping[str, Cells], ids: Sequence[Any] | None = None) -> Dependence:
    """Return the design effect of rows in the order in which they came.

    It is the larger of the median over columns of `neighbours` and `clusters` of the ids: neighbours cannot show users
    whose requests are interleaved.

    Parameters
    ----------
    columns : mapping of str to Cells
        The cells [N] of every column.
    ids : sequence, optional
        [N] what names a row's user or subject; None where it is not known.
    """
    alone = {name: neighbours(*cells) for name, cells in columns.items()}
    seen = [deff for deff in alone.values() if deff is not None]
    by_neighbours = float(np.median(seen)) if seen else 1.0
    by_ids = clusters(ids) if ids is not None else 1.0
    deff = max(1.0, by_neighbours, by_ids)
    said = "" if deff == 1.0 else BY_IDS if by_ids >= by_neighbours else BY_NEIGHBOURS
    return Dependence(deff, said, {name: max(deff, own or 1.0) for name, own in alone.items()})


def neighbours(codes: Codes, n_ordered: int = 0) -> float | None:
    """Return the design effect that a column's lag correlations show: 1 + 2 sum rho; None for a constant column.

    It is the larger of two. That of the cells' indicators together (how much oftener than chance two rows so far apart
    lie in the same cell) is the mean over all ways to differ, as Rao and Scott (1981), The analysis of categorical data
    from complex sample surveys, correct by. That of the bins' order is larger where values wander slowly: the mean is
    then much less certain than the cells are, and the test's tail follows it.

    Parameters
    ----------
    codes : NDArray
        int [N].
    n_ordered : int
        As `Cells`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> neighbours(rng.integers(0, 10, 5_000), 10)
    1.0
    >>> round(neighbours(np.repeat(rng.integers(0, 10, 5_000), 3), 10))
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

    def indicators(products: Floats) -> Floats:
        return (products / (n - np.arange(len(products))) - same) / (1 - same)

    found = _summed([codes == code for code in np.flatnonzero(counts)], indicators, chance)
    is_ordered = codes < n_ordered
    if n_ordered > 1 and codes[is_ordered].std() > 0:
        scores = np.where(is_ordered, codes - codes[is_ordered].mean(), 0.0)
        scores /= np.sqrt((scores**2).mean())
        found = max(found, _summed([scores], lambda products: products / n, 2 * np.sqrt(2 / n)))
    return found


def _summed(series: Sequence[NDArray[Any]], correlations: Callable[[Floats], Floats], chance: float) -> float:
    """Return 1 + 2 sum rho over the lags of some series [N] together.

    Lags are summed in pairs for as long as these are above what chance gives, and never grow, as Geyer (1992),
    Practical Markov chain Monte Carlo, does.
    """
    first = correlations(_products(series, 3))
    if first[1] + first[2] <= chance:
        return 1.0
    n = len(series[0])
    lags = correlations(_products(series, n // 2))
    pairs = lags[1:-1:2] + lags[2::2][: len(lags[1:-1:2])]
    below = np.flatnonzero(pairs <= chance)
    kept = pairs[: below[0]] if len(below) else pairs
    return max(1.0, 1.0 + 2.0 * float(np.minimum.accumulate(kept).sum()))


def _products(series: Sequence[NDArray[Any]], n_lags: int) -> Floats:
    """Return sum x_t x_(t + k) over all series for the lags k < n_lags."""
    n = len(series[0])
    parts = [values.astype(np.float64) for values in series]
    if n_lags <= 3:
        return np.array([sum(float(part[lag:] @ part[: n - lag]) for part in parts) for lag in range(n_lags)])
    size = 1 << (2 * n - 1).bit_length()
    power = np.zeros(size // 2 + 1)
    for part in parts:
        power += np.abs(np.fft.rfft(part, size)) ** 2
    return np.fft.irfft(power, size)[:n_lags]


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
