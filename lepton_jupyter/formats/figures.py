"""``figures.json``: how a live version and the one beside it do. Written by the endpoint, read by the backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from msgspec import Struct

from lepton_jupyter.formats.profile import Profile

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
