"""Profiles: what the columns of a set of rows look like, in a few kilobytes, and how far two of them differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import SENTINEL, Schema

MAX_BINS = 64
N_BINS = 10
MAX_CATEGORIES = 100
ROWS_A_VALUE = 20  # on average, of a column that knows a few values only
ONCE_SHARE = 0.005  # of its rows may hold a value seen once
MIN_EXPECTED = (
    5.0  # rarer cells are pooled: Cochran (1954), Some methods for strengthening the common chi-squared tests
)


class NumberProfile(Struct, frozen=True, kw_only=True):
    """One column of numbers.

    Attributes
    ----------
    edges : tuple of float
        Inner edges, ascending, at most 63: bin i holds ``edges[i - 1] <= x < edges[i]``, the outer bins are open.
    counts : tuple of int
        Rows in each bin: one more than edges.
    missing : int
    minimum, maximum, mean, std : float or None
        Of the values there are; None where there is none. `std` is that of the population (divided by n).
    values : tuple of float
        Where a column knows a few values only, these, each the lowest of its bin; else empty.
    other : int
        Rows with a value that is none of `values`: they are in no bin.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    values: tuple[float, ...] = ()
    other: int = 0

    @property
    def n_values(self) -> int:
        """Rows that have a value."""
        return sum(self.counts) + self.other

    def merged_bins(self, n_bins: int = N_BINS) -> tuple[int, ...]:
        """Return the places in `edges` that part this column's rows into about `n_bins` equal bins."""
        if len(self.counts) <= n_bins:
            return tuple(range(len(self.edges)))
        below = np.cumsum(self.counts)[:-1]
        wanted = np.arange(1, n_bins) / n_bins * sum(self.counts)
        return tuple(sorted({int(np.argmin(np.abs(below - share))) for share in wanted}))


class TextProfile(Struct, frozen=True, kw_only=True):
    """One column of text.

    Attributes
    ----------
    categories : tuple of str
        The most frequent values, at most 100.
    counts : tuple of int
        Rows of each.
    other : int
        Rows of any other value.
    missing : int
    """

    categories: tuple[str, ...]
    counts: tuple[int, ...]
    other: int
    missing: int

    @property
    def n_values(self) -> int:
        """Rows that have a value."""
        return sum(self.counts) + self.other


class Profile(Struct, frozen=True, kw_only=True):
    """Every column of a set of rows."""

    n_rows: int
    numbers: dict[str, NumberProfile]
    texts: dict[str, TextProfile]


class Shift(NamedTuple):
    """How far a column's window is from its reference.

    Attributes
    ----------
    psi : float
        Population stability index over the cells, missing values being a cell of their own.
    noise : float
        What chance alone gives: (cells - 1)(1/n_reference + 1/n_window), the window's rows being effective ones.
    chi2 : float
        Chi-squared statistic of the two rows of counts; `dof` its degrees of freedom, 0 where there is one cell.
    """

    psi: float
    noise: float
    chi2: float
    dof: int


def build(schema: Schema, packed: Packed) -> Profile:
    """Return the profile of rows, with edges of their own: the reference.

    Parameters
    ----------
    schema : Schema
    packed : Packed
        ``num`` float64 [N, k], ``txt`` [N, m].
    """
    numbers = {}
    for name, column in numbers_of(schema, packed):
        values = _present(column)
        missing = packed.n_rows - len(values)
        numbers[name] = _count_numbers(values, missing, _edges(values), _few_values(values))
    texts = {}
    for name, labels in categories_of(schema, packed):
        counter = Counter(labels.tolist())
        counter.pop(SENTINEL, None)
        top = sorted(counter, key=lambda value: (-counter[value], value))[:MAX_CATEGORIES]
        texts[name] = _count_texts(labels, tuple(top))
    return Profile(n_rows=packed.n_rows, numbers=numbers, texts=texts)


def count(reference: Profile, schema: Schema, packed: Packed) -> Profile:
    """Return the profile of other rows over the edges and categories of a reference, which `psi` and `merge` need.

    Parameters
    ----------
    reference : Profile
    schema : Schema
    packed : Packed
    """
    numbers = {}
    for name, column in numbers_of(schema, packed):
        values = _present(column)
        ours = reference.numbers[name]
        edges, known = (np.asarray(part, dtype=np.float64) for part in (ours.edges, ours.values))
        numbers[name] = _count_numbers(values, packed.n_rows - len(values), edges, known)
    texts = {
        name: _count_texts(column, reference.texts[name].categories) for name, column in categories_of(schema, packed)
    }
    return Profile(n_rows=packed.n_rows, numbers=numbers, texts=texts)


def numbers_of(schema: Schema, packed: Packed) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the columns that are profiled as numbers, float64 [N]: those of `num`, and how many words prose has."""
    for place, column in enumerate(schema.num):
        yield column.name, packed.num[:, place]
    for place, column in enumerate(schema.txt):
        if column.kind == "text":
            texts = packed.txt[:, place].tolist()
            words = (np.nan if text == SENTINEL else float(len(text.split())) for text in texts)
            yield column.name, np.fromiter(words, np.float64, len(texts))


def categories_of(schema: Schema, packed: Packed) -> Iterator[tuple[str, NDArray[np.object_]]]:
    """Yield the columns that are profiled as categories, object [N] of str."""
    for place, column in enumerate(schema.txt):
        if column.kind == "string":
            yield column.name, packed.txt[:, place]


def _present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sort(values[~np.isnan(values)])


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return inner edges for sorted values: every value of a few, else quantiles."""
    if len(values) == 0:
        return np.empty(0)
    is_new = np.concatenate(([True], values[1:] != values[:-1]))
    unique = values[is_new]
    if len(unique) <= MAX_BINS:
        return unique[1:]
    places = (np.arange(1, MAX_BINS) / MAX_BINS * len(values)).astype(np.intp)
    edges = np.unique(values[places])
    return edges[edges > values[0]]


def _few_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values that a column knows, where another one would be news: a few, each seen again and again.

    The share of rows with values never seen so far is about the share of those seen once (Good 1953, The population
    frequencies of species).
    """
    unique, counts = np.unique(values, return_counts=True)
    is_few = len(unique) <= MAX_BINS and len(values) >= ROWS_A_VALUE * len(unique)
    return unique if is_few and (counts == 1).sum() <= ONCE_SHARE * len(values) else np.empty(0)


def _count_numbers(
    values: NDArray[np.float64], missing: int, edges: NDArray[np.float64], known: NDArray[np.float64]
) -> NumberProfile:
    """Count sorted values; those that are none of the known ones apart, where there are such."""
    binned = values[np.isin(values, known)] if len(known) else values
    ends = np.concatenate((np.searchsorted(binned, edges, side="left"), [len(binned)]))
    counts = np.diff(ends, prepend=0)
    is_empty = len(values) == 0
    return NumberProfile(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        missing=int(missing),
        minimum=None if is_empty else float(values[0]),
        maximum=None if is_empty else float(values[-1]),
        mean=None if is_empty else float(values.mean()),
        std=None if is_empty else float(values.std()),
        values=tuple(known.tolist()),
        other=len(values) - len(binned),
    )


def _count_texts(values: NDArray[np.object_], categories: tuple[str, ...]) -> TextProfile:
    counter = Counter(values.tolist())
    missing = counter.pop(SENTINEL, 0)
    counts = tuple(counter.pop(category, 0) for category in categories)
    return TextProfile(categories=categories, counts=counts, other=sum(counter.values()), missing=missing)


def merge(first: Profile, second: Profile) -> Profile:
    """Return the profile of both sets of rows together.

    Means and spreads are joined as Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm for
    computing sample variances, do.

    Raises
    ------
    ValueError
        If the two were not counted over the same edges and categories.
    """
    if first.numbers.keys() != second.numbers.keys() or first.texts.keys() != second.texts.keys():
        raise ValueError("the profiles have different columns")
    return Profile(
        n_rows=first.n_rows + second.n_rows,
        numbers={name: _merge_numbers(name, first.numbers[name], second.numbers[name]) for name in first.numbers},
        texts={name: _merge_texts(name, first.texts[name], second.texts[name]) for name in first.texts},
    )


def _merge_numbers(name: str, a: NumberProfile, b: NumberProfile) -> NumberProfile:
    if (a.edges, a.values) != (b.edges, b.values):
        raise ValueError(f"'{name}' was counted over different edges")
    merged = structs.replace(
        a,
        counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)),
        missing=a.missing + b.missing,
        other=a.other + b.other,
    )
    if a.mean is None or a.std is None or a.minimum is None or a.maximum is None:
        return structs.replace(merged, minimum=b.minimum, maximum=b.maximum, mean=b.mean, std=b.std)
    if b.mean is None or b.std is None or b.minimum is None or b.maximum is None:
        return merged
    n, m = a.n_values, b.n_values
    delta = b.mean - a.mean
    squares = n * a.std**2 + m * b.std**2 + delta**2 * n * m / (n + m)
    return structs.replace(
        merged,
        minimum=min(a.minimum, b.minimum),
        maximum=max(a.maximum, b.maximum),
        mean=a.mean + delta * m / (n + m),
        std=float(np.sqrt(squares / (n + m))),
    )


def _merge_texts(name: str, a: TextProfile, b: TextProfile) -> TextProfile:
    if a.categories != b.categories:
        raise ValueError(f"'{name}' was counted over different categories")
    counts = tuple(x + y for x, y in zip(a.counts, b.counts, strict=True))
    return TextProfile(categories=a.categories, counts=counts, other=a.other + b.other, missing=a.missing + b.missing)


def cells(reference: Profile, window: Profile, name: str) -> tuple[list[str], list[int], list[int]]:
    """Return a column's cells: what each is called, its rows in the reference, its rows in the window.

    Numbers: about ten bins of equal rows in the reference; text: the categories. Then any other value, and missing
    ones. Cells without a row on either side are left in.

    Raises
    ------
    ValueError
        If the window was not counted over the reference's edges and categories (`count`).
    """
    if name in reference.texts:
        of_text, other = reference.texts[name], window.texts[name]
        if of_text.categories != other.categories:
            raise ValueError(f"'{name}' was counted over different categories")
        names = [*of_text.categories, "other", "missing"]
        return names, [*of_text.counts, of_text.other, of_text.missing], [*other.counts, other.other, other.missing]
    ours, theirs = reference.numbers[name], window.numbers[name]
    if (ours.edges, ours.values) != (theirs.edges, theirs.values):
        raise ValueError(f"'{name}' was counted over different edges")
    places = ours.merged_bins()
    return (
        [*_bin_names(ours, places), "other", "missing"],
        [*_sums(ours.counts, places), ours.other, ours.missing],
        [*_sums(theirs.counts, places), theirs.other, theirs.missing],
    )


def _bin_names(column: NumberProfile, places: tuple[int, ...]) -> list[str]:
    if column.values and len(places) == len(column.edges):
        return [f"{value:.6g}" for value in column.values]
    if not places:
        return ["any"]
    shown = [f"{column.edges[place]:.4g}" for place in places]
    return [f"< {shown[0]}", *(f"{low} – {high}" for low, high in pairwise(shown)), f"≥ {shown[-1]}"]


def psi(reference: Profile, window: Profile, *, deff: Mapping[str, float] | None = None) -> dict[str, Shift]:
    """Return how far each column of a window is from its reference.

    The population stability index, sum (q - p) ln(q / p) (Siddiqi 2006, Credit Risk Scorecards), over the `cells`.
    Cells where fewer than five rows are expected on a side are pooled.

    Parameters
    ----------
    reference, window : Profile
    deff : mapping of str to float, optional
        Design effect of each column in the window: its counts are divided by it, as Rao and Scott (1992), A simple
        method for the analysis of clustered binary data, do. None: the window's rows are independent.

    Raises
    ------
    ValueError
        If the window was not counted over the reference's edges and categories (`count`).
    """
    shifts = {}
    for name in (*reference.numbers, *reference.texts):
        _, ours, theirs = cells(reference, window, name)
        shifts[name] = _shift(ours, theirs, (deff or {}).get(name, 1.0))
    return shifts


def _sums(counts: tuple[int, ...], places: tuple[int, ...]) -> list[int]:
    starts = [0, *(place + 1 for place in places)]
    return np.add.reduceat(np.asarray(counts), starts).tolist() if counts else []


def _shift(reference: list[int], window: list[int], deff: float) -> Shift:
    table = np.asarray([reference, window], dtype=np.float64)
    table[1] /= deff
    table = table[:, table.sum(axis=0) > 0]
    rows = table.sum(axis=1)
    if (rows == 0).any():
        return Shift(0.0, 0.0, 0.0, 0)
    table = _pooled(table)
    expected = rows[:, None] * table.sum(axis=0) / rows.sum()
    chi2 = float(((table - expected) ** 2 / expected).sum())
    # half a row where a side has none, so that the logarithm exists
    shares = np.maximum(table, 0.5) / rows[:, None]
    p, q = shares
    n_cells = table.shape[1]
    return Shift(float(((q - p) * np.log(q / p)).sum()), float((n_cells - 1) * (1 / rows).sum()), chi2, n_cells - 1)


def _pooled(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return counts [2, cells] with the rare cells in one; where that is rare too, the next smallest with them."""
    rows = table.sum(axis=1)
    expected = rows.min() * table.sum(axis=0) / rows.sum()
    order = np.argsort(expected, kind="stable")
    n_rare = int((expected < MIN_EXPECTED).sum())
    if n_rare == 0:
        return table
    while n_rare < len(order) and expected[order[:n_rare]].sum() < MIN_EXPECTED:
        n_rare += 1
    return np.column_stack([table[:, order[n_rare:]], table[:, order[:n_rare]].sum(axis=1)])
