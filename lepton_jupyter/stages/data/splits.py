"""Splits: drawn once, recorded, and kept by every later version for the rows that it knows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import SPLITS
from lepton_jupyter.stages.data.columns import as_numbers, kind_of
from lepton_jupyter.stages.data.keys import Keys, hash_text, mix
from lepton_jupyter.stages.data.spec import DataFlags

OUT = -1  # of no split: the target is missing
Places = NDArray[np.int8]  # index into SPLITS, or OUT


class Rows(NamedTuple):
    """What a split is drawn from. Arrays are [N].

    Attributes
    ----------
    keys : uint64
    is_labelled : bool
        Rows without a target are in no split.
    strata : int64
        Class codes; zeros where there are none.
    groups : uint64 or None
    times : float64 or None
    known : int8
        Splits that an earlier version gave; `OUT` for new rows.
    """

    keys: Keys
    is_labelled: NDArray[np.bool_]
    strata: NDArray[np.int64]
    groups: Keys | None
    times: NDArray[np.float64] | None
    known: Places


def parse_shares(text: str) -> tuple[float, float, float] | None:
    """Read ``0.6,0.2,0.2``; None for ``none``.

    Raises
    ------
    LeptonError
        If it is neither three shares that sum to 1 nor ``none``.
    """
    if text.strip().lower() == "none":
        return None
    hint = (
        "Give three shares that sum to 1 for train, validation and test, such as --split 0.6,0.2,0.2; or --split none."
    )
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise LeptonError(f"--split '{text}' is no list of shares.", hint) from error
    if len(shares) != 3:
        raise LeptonError(
            f"--split '{text}' has {len(shares)} share{'s' * (len(shares) != 1)}; three are wanted.", hint
        )
    if not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise LeptonError(f"--split '{text}' sums to {sum(shares):g}, not to 1.", hint)
    if shares[0] == 0:
        raise LeptonError(f"--split '{text}' leaves no rows for training.", hint)
    return shares[0], shares[1], shares[2]


def draw(rows: Rows, flags: DataFlags) -> Places:
    """Return each row's split. The same rows, flags and known places give the same splits, whatever the rows' order.

    Raises
    ------
    LeptonError
        If a split that was asked for would be empty.
    """
    shares = parse_shares(flags.split)
    places: Places = np.where(rows.is_labelled, rows.known, OUT).astype(np.int8)
    if shares is None:
        places[rows.is_labelled] = 0
        return places
    order = mix(rows.keys ^ hash_text(f"seed {flags.seed}"))
    if rows.groups is not None:
        _by_group(places, rows, shares, hash_text(f"seed {flags.seed}"))
    elif rows.times is not None:
        _by_time(places, rows, shares, order)
    else:
        for stratum in np.unique(rows.strata[rows.is_labelled]):
            _fill(places, np.flatnonzero(rows.is_labelled & (rows.strata == stratum)), shares, order)
    _refuse_empty(places, shares, flags.split, rows)
    return places


def _fill(places: Places, members: NDArray[np.intp], shares: tuple[float, ...], order: Keys) -> None:
    """Place the members that are in no split, so that all of them together come to the shares."""
    new = members[places[members] == OUT]
    new = new[np.argsort(order[new], kind="stable")]
    have = np.bincount(places[members][places[members] != OUT], minlength=3)
    for place, count in enumerate(_wanted(have, len(new), shares)):
        places[new[:count]] = place
        new = new[count:]


def _wanted(have: NDArray[np.int64], n_new: int, shares: tuple[float, ...]) -> list[int]:
    """Return how many new rows go to each split: what it lacks, scaled to the rows there are (largest remainder)."""
    total = int(have.sum()) + n_new
    lacking = np.maximum(np.asarray(shares) * total - have, 0.0)
    if lacking.sum() == 0:
        lacking = np.asarray(shares, dtype=float)
    ideal = lacking / lacking.sum() * n_new
    counts = np.floor(ideal + 1e-9).astype(int)
    for place in np.argsort(-(ideal - counts), kind="stable")[: n_new - counts.sum()]:
        counts[place] += 1
    return [int(count) for count in counts]


def _by_group(places: Places, rows: Rows, shares: tuple[float, ...], seed: np.uint64) -> None:
    """Give whole groups to the split that lacks most; a known group's new rows join it."""
    if rows.groups is None:
        return
    groups, inverse, sizes = np.unique(rows.groups[rows.is_labelled], return_inverse=True, return_counts=True)
    labelled = np.flatnonzero(rows.is_labelled)
    of_group = np.full(len(groups), OUT, dtype=np.int8)
    seen = places[labelled]
    of_group[inverse[seen != OUT]] = seen[seen != OUT]
    have = np.array([sizes[of_group == place].sum() for place in range(3)], dtype=float)
    wanted = np.asarray(shares) * sizes.sum()
    for group in np.argsort(mix(groups ^ seed), kind="stable"):
        if of_group[group] == OUT:
            lacking = np.where(wanted > 0, (wanted - have) / np.maximum(wanted, 1e-9), -np.inf)
            of_group[group] = np.argmax(lacking)
            have[of_group[group]] += sizes[group]
    is_new = seen == OUT
    places[labelled[is_new]] = of_group[inverse[is_new]]


def _by_time(places: Places, rows: Rows, shares: tuple[float, ...], order: Keys) -> None:
    """Cut the rows in the order of time. Later versions keep the cuts: no training row is newer than a test row."""
    if rows.times is None:
        return
    new = np.flatnonzero(rows.is_labelled & (places == OUT))
    is_known = rows.is_labelled & (places != OUT)
    if not is_known.any():
        new = new[np.lexsort((order[new], rows.times[new]))]
        times = rows.times[new]
        cuts = np.round(np.cumsum(shares) * len(new)).astype(int)
        # rows of the same time stay together: a cut goes to where its time begins
        cuts = np.array([cut if cut >= len(new) else np.searchsorted(times, times[cut]) for cut in cuts])
        for place, (start, end) in enumerate(zip((0, cuts[0], cuts[1]), cuts, strict=True)):
            places[new[start:end]] = place
        return
    starts = [rows.times[is_known & (places == place)].min(initial=np.inf) for place in range(3)]
    for place, start in enumerate(starts):
        later = new[rows.times[new] >= start] if place else new
        places[later] = place


def _refuse_empty(places: Places, shares: tuple[float, ...], text: str, rows: Rows) -> None:
    empty = [name for place, name in enumerate(SPLITS) if shares[place] > 0 and not (places == place).any()]
    if empty:
        n = int(rows.is_labelled.sum())
        what = f"{len(np.unique(rows.groups[rows.is_labelled]))} groups" if rows.groups is not None else f"{n} rows"
        raise LeptonError(
            f"{what} are too few for --split {text}: no row is left for {' and '.join(empty)}.",
            "Give more rows, or use --split none.",
        )


def times_of(series: pl.Series) -> NDArray[np.float64]:
    """Return a column as numbers to order rows by: dates and ISO text as seconds since 1970, numbers as they are.

    Raises
    ------
    LeptonError
        If it cannot be ordered, or a value is missing.
    """
    if series.dtype == pl.String:
        try:
            series = series.str.to_datetime(strict=True, time_zone="UTC")
        except pl.exceptions.PolarsError:
            try:
                series = series.str.to_date(strict=True)
            except pl.exceptions.PolarsError as error:
                raise LeptonError(
                    f"--time {series.name}: its text cannot be read as a time, for instance "
                    f"'{series.drop_nulls()[0]}'.",
                    "Write times as 2026-01-31 or 2026-01-31T09:00:00.",
                ) from error
    if kind_of(series.dtype) not in ("integer", "number", "datetime"):
        raise LeptonError(
            f"--time {series.name}: rows cannot be ordered by a column of type {series.dtype}.",
            "Name a column of times or numbers.",
        )
    if series.null_count():
        raise LeptonError(
            f"--time {series.name}: the time is missing in {series.null_count()} rows.",
            "Fill these rows or remove them.",
        )
    return as_numbers(series).to_numpy().astype(np.float64)
