"""``figures.json``: how a live version and the one beside it do. Written by the endpoint, read by the backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from msgspec import Struct

from lepton_jupyter.formats.profile import Profile, merge

FIRST_EDGE_S = 1e-4
STEP = 1.1  # from edge to edge: what is read off is right to 10 %
N_EDGES = 141  # up to a minute


class VersionFigures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version's requests since it has another beside it.

    Attributes
    ----------
    n_failed : int
        Requests answered 5xx, or with a row whose outputs are not all finite.
    n_rows, n_bad_rows : int
        Rows scored; those whose outputs are not all finite.
    latency : tuple of int
        Requests between the edges, seconds from a whole body to its answer: see `edge_s`. Failures are not in it.
    squares : float
        Sum over sticky keys of their rows squared: divided by `n_rows`, Kish's design effect.
    predictions : Profile or None
        Of its predictions, over the edges of the live version's first rows; None before there are enough of these.
    """

    n_requests: int = 0
    n_failed: int = 0
    n_rows: int = 0
    n_bad_rows: int = 0
    latency: tuple[int, ...] = ()
    squares: float = 0.0
    predictions: Profile | None = None

    @property
    def deff(self) -> float:
        """Rows divided by what they are worth: the same keys come again (Kish 1965, Survey Sampling)."""
        return max(1.0, self.squares / self.n_rows) if self.n_rows else 1.0


class Figures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Both versions since one began beside the other.

    Attributes
    ----------
    since : int
        The release at which it began: figures of another one are none.
    at : float
        When they were written, seconds since 1970, UTC.
    n_compared, n_agreed, n_dropped : int
        Of a shadow: rows that both versions answered, those in which they agree, requests that it could not take.
    """

    since: int
    at: float
    live: VersionFigures
    beside: VersionFigures
    n_compared: int = 0
    n_agreed: int = 0
    n_dropped: int = 0


def together(found: Sequence[Figures]) -> Figures:
    """Return the figures of several processes that answer beside each other, of one beginning.

    A sticky key's requests are spread over the processes, each of which sees its own only. What each knows of pairs of
    rows with one key is taken times the number of processes: right where connections fall to them by chance, too large
    where a key keeps to one of them; then a canary needs more rows.
    """
    first = found[0]
    if len(found) == 1:
        return first
    return Figures(
        since=first.since,
        at=max(each.at for each in found),
        live=_joined([each.live for each in found]),
        beside=_joined([each.beside for each in found]),
        n_compared=sum(each.n_compared for each in found),
        n_agreed=sum(each.n_agreed for each in found),
        n_dropped=sum(each.n_dropped for each in found),
    )


def _joined(found: Sequence[VersionFigures]) -> VersionFigures:
    asked = [each for each in found if each.n_requests] or found[:1]
    n_rows = sum(each.n_rows for each in asked)
    pairs = sum(each.squares for each in asked) - n_rows
    counted = [each.latency for each in asked if each.latency]
    predictions: Profile | None = None
    for profile in sorted((each.predictions for each in asked if each.predictions), key=lambda one: -one.n_rows):
        try:
            predictions = merge(predictions, profile) if predictions is not None else profile
        except ValueError:  # over other edges: the smaller one is left out
            continue
    return VersionFigures(
        n_requests=sum(each.n_requests for each in asked),
        n_failed=sum(each.n_failed for each in asked),
        n_rows=n_rows,
        n_bad_rows=sum(each.n_bad_rows for each in asked),
        latency=tuple(map(sum, zip(*counted, strict=True))),
        squares=n_rows + len(asked) * pairs,
        predictions=predictions,
    )


def place_of(seconds: float) -> int:
    """Return the place in `VersionFigures.latency` of a duration."""
    if seconds <= FIRST_EDGE_S:
        return 0
    return min(N_EDGES, 1 + int(math.log(seconds / FIRST_EDGE_S) / math.log(STEP)))


def edge_s(place: int) -> float:
    """Return the lower edge of a place, seconds; 0 for the first."""
    return FIRST_EDGE_S * STEP ** (place - 1) if place else 0.0


def quantile_s(counts: Sequence[int], share: float) -> float:
    """Return the duration below which this share of the requests lies: the upper edge of its place.

    Examples
    --------
    >>> counts = [0] * (N_EDGES + 1)
    >>> for seconds in [0.002] * 95 + [0.2] * 5:
    ...     counts[place_of(seconds)] += 1
    >>> round(quantile_s(counts, 0.95), 4), round(quantile_s(counts, 0.96), 3)
    (0.0021, 0.205)
    """
    wanted = share * sum(counts)
    for place, below in enumerate(accumulate(counts)):
        if below and below >= wanted - 1e-9:
            return edge_s(place + 1)
    return 0.0
