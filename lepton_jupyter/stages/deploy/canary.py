"""Does a canary take the live version's place? A pure decision from the figures of both, with its words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from msgspec import structs

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.figures import Figures, VersionFigures, edge_s, quantile_s
from lepton_jupyter.formats.profile import NumberProfile, Profile, TextProfile, psi
from lepton_jupyter.formats.schema import Schema

REQUESTS = 500  # of the canary, before it is promoted
SECONDS = 60.0
ALPHA = 1e-3  # of each test: they are looked at again and again
FEWEST_FAILURES = 5
FEWEST_LATENCIES = 100  # of either version
FEWEST_LIVE = 50  # requests of the live version, without which there is nothing to compare with
FEWEST_EFFECTIVE = 300  # rows of either version, as monitoring wants them
SLOWER = 1.5  # times the live version's p95 …
SLOWER_S = 5e-3  # … and so much more
LARGE_PSI = 0.25  # less its noise. Siddiqi (2006), Credit Risk Scorecards: above 0.25 "a large change"

C = TypeVar("C", NumberProfile, TextProfile)

What = Literal["wait", "promote", "roll back"]


@dataclass(frozen=True)
class Decision:
    """What becomes of a canary.

    Attributes
    ----------
    what : str
        ``wait``, ``promote`` or ``roll back``.
    reason : str
        The figures in words.
    """

    what: What
    reason: str


def decide(figures: Figures, *, age_s: float, min_requests: int = REQUESTS, min_seconds: float = SECONDS) -> Decision:
    """Decide what becomes of a canary.

    It is rolled back as soon as it is shown to fail oftener (`fails_oftener`), to be slower (`is_slower`) or to predict
    something else (`drift`), and promoted where none of that was shown in enough requests and time.

    Parameters
    ----------
    figures : Figures
        Of both versions since the canary began.
    age_s : float
        Seconds since then.
    min_requests : int
        Of the canary.
    min_seconds : float

    Examples
    --------
    >>> healthy = VersionFigures(n_requests=4500, n_failed=2)
    >>> figures = Figures(since=3, at=0.0, live=healthy, beside=VersionFigures(n_requests=60, n_failed=9))
    >>> print(decide(figures, age_s=5.0).reason)
    It fails oftener: 9 of 60 requests, 2 of 4,500 of the live version.
    """
    live, canary = figures.live, figures.beside
    found = (_failures(live, canary), _latency(live, canary), _drift(live, canary))
    worse = next((one.text for one in found if one.is_worse), None)
    if worse is not None:
        return Decision("roll back", worse)
    words = "; ".join(one.text for one in found)
    lacks = []
    if canary.n_requests < min_requests:
        lacks.append(f"{canary.n_requests:,} of {min_requests:,} requests")
    if age_s < min_seconds:
        lacks.append(f"{age_s:.0f} of {min_seconds:.0f} s")
    if live.n_requests < FEWEST_LIVE:
        lacks.append(f"{live.n_requests:,} of {FEWEST_LIVE} requests of the live version to compare with")
    if lacks:
        return Decision("wait", f"{', '.join(lacks)}; {words}")
    return Decision("promote", f"{canary.n_requests:,} requests in {age_s:.0f} s; {words}")


@dataclass(frozen=True)
class _Found:
    is_worse: bool
    text: str


def fails_oftener(live: VersionFigures, canary: VersionFigures) -> bool:
    """Whether the canary is shown to fail oftener: five failures or more, and Fisher's exact test, one-sided.

    R. A. Fisher (1935), The logic of inductive inference.
    """
    if canary.n_failed < FEWEST_FAILURES:
        return False
    from scipy import stats  # a lazy import: only who judges a canary needs it

    n_failed = canary.n_failed + live.n_failed
    n_requests = canary.n_requests + live.n_requests
    return bool(stats.hypergeom.sf(canary.n_failed - 1, n_requests, n_failed, canary.n_requests) < ALPHA)


def is_slower(live: VersionFigures, canary: VersionFigures) -> bool:
    """Whether the canary's p95 is shown to lie beyond 1.5 times the live one plus 5 ms.

    The live p95 is taken at the upper end of its interval (two standard errors of its share); where the canary's p95
    were within the limit, one of its requests in twenty would be slower: an exact binomial test.
    """
    n_live, n_canary = sum(live.latency), sum(canary.latency)
    if min(n_live, n_canary) < FEWEST_LATENCIES:
        return False
    share = min(1.0, 0.95 + 2 * math.sqrt(0.95 * 0.05 / n_live))
    limit_s = SLOWER * quantile_s(live.latency, share) + SLOWER_S
    n_slower = sum(n for place, n in enumerate(canary.latency) if edge_s(place) >= limit_s)
    from scipy import stats

    return bool(stats.binom.sf(n_slower - 1, n_canary, 0.05) < ALPHA)


def drift(live: VersionFigures, canary: VersionFigures) -> tuple[float, float] | None:
    """Return the PSI between both versions' predictions less its noise, and the p-value; None without enough rows.

    Of several targets the one that says most, its p-value times their number (Bonferroni). Rows count for what they are
    worth: a sticky key's rows all go to one version, so that few busy keys make a difference where there is none.
    """
    if live.predictions is None or canary.predictions is None:
        return None
    if min(one.n_rows / one.deff for one in (live, canary)) < FEWEST_EFFECTIVE:
        return None
    from scipy import stats

    shifts = psi(_worth(live.predictions, live.deff), _worth(canary.predictions, canary.deff)).values()
    chances = [float(stats.chi2.sf(shift.chi2, shift.dof)) if shift.dof else 1.0 for shift in shifts]
    worst, chance = min(zip(shifts, chances, strict=True), key=lambda pair: pair[1])
    return worst.psi - worst.noise, min(1.0, len(chances) * chance)


def check_flags(*, canary: float | None, requests: int | None, seconds: float | None, is_shadow: bool) -> None:
    """Refuse flags that cannot go together.

    Raises
    ------
    LeptonError
        If a canary and a shadow are asked for, or a canary's length without one.
    """
    if canary is not None and is_shadow:
        raise LeptonError("A version is a canary or a shadow, not both.", "Leave out --canary or --shadow.")
    if canary is None and (requests, seconds) != (None, None):
        raise LeptonError(
            "--canary-requests and --canary-seconds mean nothing without --canary.", "Say its share: --canary 0.1"
        )


def check(live: Schema, other: Schema, *, names: tuple[str, str]) -> None:
    """Refuse a version that cannot answer what the live one is asked.

    Raises
    ------
    LeptonError
        It names the columns that differ.
    """
    differences = live.differences(other)
    if differences:
        raise LeptonError(
            f"{names[1]} cannot stand beside {names[0]}: {'; '.join(differences)}.",
            f"Who asks {names[0]} would be refused. Deploy it as another endpoint, or without --canary or --shadow.",
            code="refused",
        )


def nothing_live(endpoint: str, ref: str, kind: str) -> LeptonError:
    """Return the error for a canary or a shadow where there is nothing to stand beside."""
    return LeptonError(
        f"Endpoint '{endpoint}' serves nothing: a {kind} stands beside a live version.",
        f"Serve one first, without --canary and --shadow: %lepton deploy {ref} --as {endpoint}",
        code="conflict",
    )


def describe_shadow(figures: Figures) -> str:
    """Return how a shadow does, in words; not how fast: it is asked in larger batches than the live version."""
    live, shadow = figures.live, figures.beside
    words = [f"{shadow.n_requests:,} requests mirrored"]
    if figures.n_dropped:
        words.append(f"{figures.n_dropped:,} dropped")
    if figures.n_compared:
        words.append(f"it says the same in {figures.n_agreed / figures.n_compared:.1%} of {figures.n_compared:,} rows")
    return "; ".join([*words, _failures(live, shadow).text, _drift(live, shadow).text])


def _failures(live: VersionFigures, canary: VersionFigures) -> _Found:
    ours, theirs = (f"{one.n_failed:,} of {one.n_requests:,}" for one in (canary, live))
    if fails_oftener(live, canary):
        return _Found(True, f"It fails oftener: {ours} requests, {theirs} of the live version.")
    return _Found(False, f"failed {ours}, live {theirs}")


def _latency(live: VersionFigures, canary: VersionFigures) -> _Found:
    ours, theirs = (f"{1000 * quantile_s(one.latency, 0.95):.3g} ms" for one in (canary, live))
    if is_slower(live, canary):
        return _Found(True, f"It is slower: p95 {ours}, {theirs} of the live version.")
    is_known = sum(live.latency) and sum(canary.latency)
    return _Found(False, f"p95 {ours}, live {theirs}" if is_known else "no latency yet")


def _drift(live: VersionFigures, canary: VersionFigures) -> _Found:
    found = drift(live, canary)
    if found is None:
        n = min(one.n_rows / one.deff for one in (live, canary))
        return _Found(False, f"predictions not compared: {n:,.0f} of {FEWEST_EFFECTIVE} rows")
    size, p = found
    if p < ALPHA and size >= LARGE_PSI:
        return _Found(True, f"It predicts something else: PSI {size:.2f} beyond chance against the live version.")
    return _Found(False, f"predictions differ by PSI {max(0.0, size):.2f} beyond chance")


def _worth(profile: Profile, deff: float) -> Profile:
    """Return a profile with its counts divided by a design effect (Rao and Scott 1992)."""
    return Profile(
        n_rows=round(profile.n_rows / deff),
        numbers=_divided(profile.numbers, deff),
        texts=_divided(profile.texts, deff),
    )


def _divided(columns: Mapping[str, C], deff: float) -> dict[str, C]:
    return {
        name: structs.replace(
            one,
            counts=tuple(round(count / deff) for count in one.counts),
            missing=round(one.missing / deff),
            other=round(one.other / deff),
        )
        for name, one in columns.items()
    }
