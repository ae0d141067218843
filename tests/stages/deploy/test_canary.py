"""What becomes of a canary, from the figures of both versions."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from scipy import stats

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.figures import FIRST_EDGE_S, N_EDGES, STEP, Figures, VersionFigures, edge_s, place_of
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.profile import Profile, build, count
from lepton_jupyter.formats.schema import Column, Schema
from lepton_jupyter.stages.deploy.canary import (
    ALPHA,
    check,
    check_flags,
    decide,
    describe_shadow,
    drift,
    fails_oftener,
)

SHARES = Schema(columns=(Column(name="(prediction)", kind="number"),))
DRAW = np.random.default_rng(5)


def profiles(live: np.ndarray, canary: np.ndarray) -> tuple[Profile, Profile]:
    """Return both versions' predictions as the endpoint counts them: over the edges of the live one's first rows."""
    edges = build(SHARES, _packed(live[:500]))
    first, second = (count(edges, SHARES, _packed(values)) for values in (live, canary))
    return first, second


def _packed(values: np.ndarray) -> Packed:
    return Packed(values[:, None].astype(np.float64), np.empty((len(values), 0), object))


def latency(seconds: np.ndarray) -> tuple[int, ...]:
    places = np.where(seconds <= FIRST_EDGE_S, 0, 1 + np.floor(np.log(seconds / FIRST_EDGE_S) / np.log(STEP)))
    return tuple(np.bincount(np.minimum(places, N_EDGES).astype(int), minlength=N_EDGES + 1).tolist())


def version(
    n: int, *, n_failed: int = 0, ms: float = 3.0, predictions: Profile | None = None, deff: float = 1.0
) -> VersionFigures:
    """Return the figures of n requests of one row each, with latencies around so many milliseconds."""
    return VersionFigures(
        n_requests=n,
        n_failed=n_failed,
        n_rows=n,
        latency=latency(ms / 1000 * DRAW.lognormal(0, 0.3, n - n_failed)),
        squares=deff * n,
        predictions=predictions,
    )


def figures(live: VersionFigures, canary: VersionFigures) -> Figures:
    return Figures(since=3, at=0.0, live=live, beside=canary)


def healthy(n_live: int = 4500, n_canary: int = 500) -> Figures:
    first, second = profiles(DRAW.uniform(0, 1, n_live), DRAW.uniform(0, 1, n_canary))
    return figures(version(n_live, n_failed=2, predictions=first), version(n_canary, predictions=second))


def test_a_canary_as_good_as_the_live_version_is_promoted_after_its_requests_and_its_time() -> None:
    found = healthy()
    assert decide(found, age_s=60.0).what == "promote"
    early = decide(found, age_s=20.0)
    assert early.what == "wait" and early.reason.startswith("20 of 60 s; failed 0 of 500, live 2 of 4,500; p95 ")
    few = decide(found, age_s=60.0, min_requests=1000)
    assert few.what == "wait" and "500 of 1,000 requests" in few.reason
    assert decide(found, age_s=0.5, min_requests=100, min_seconds=0.5).what == "promote"
    assert "PSI 0.0" in decide(found, age_s=60.0).reason


def test_nothing_is_promoted_without_a_live_version_to_compare_with() -> None:
    found = decide(figures(version(20), version(900)), age_s=600.0)
    assert found.what == "wait" and "20 of 50 requests of the live version" in found.reason


def test_one_that_fails_oftener_is_rolled_back_at_once() -> None:
    found = decide(figures(version(900), version(60, n_failed=6)), age_s=4.0)
    assert (found.what, found.reason) == (
        "roll back",
        "It fails oftener: 6 of 60 requests, 0 of 900 of the live version.",
    )
    assert decide(figures(version(900), version(60, n_failed=4)), age_s=4.0).what == "wait", "four may be chance"
    both = decide(figures(version(900, n_failed=90), version(100, n_failed=11)), age_s=4.0)
    assert both.what == "wait", "the live version fails as often"


def test_one_that_is_slower_is_rolled_back() -> None:
    found = decide(figures(version(900, ms=20), version(100, ms=60)), age_s=4.0)
    assert found.what == "roll back" and found.reason.startswith("It is slower: p95 ")
    assert decide(figures(version(900, ms=20), version(99, ms=60)), age_s=4.0).what == "wait", "too few"
    assert decide(figures(version(900, ms=1), version(100, ms=3)), age_s=4.0).what == "wait", "within 5 ms"
    assert decide(figures(version(900, ms=20), version(100, ms=24)), age_s=4.0).what == "wait", "within half"


def test_one_that_predicts_something_else_is_rolled_back() -> None:
    first, second = profiles(DRAW.uniform(0, 1, 4500), DRAW.beta(2, 4, 500))
    found = decide(figures(version(4500, predictions=first), version(500, predictions=second)), age_s=4.0)
    assert found.what == "roll back" and "predicts something else: PSI 0." in found.reason
    little = DRAW.uniform(0, 1, 500) ** 1.1
    first, second = profiles(DRAW.uniform(0, 1, 4500), little)
    assert decide(figures(version(4500, predictions=first), version(500, predictions=second)), age_s=60.0).what == (
        "promote"
    )


def test_rows_of_few_keys_do_not_count_as_drift() -> None:
    few = np.repeat(DRAW.uniform(0, 1, 10), 50)  # ten users, fifty rows each
    first, second = profiles(DRAW.uniform(0, 1, 4500), few)
    live = version(4500, predictions=first)
    found = decide(figures(live, version(500, predictions=second, deff=50.0)), age_s=60.0)
    assert found.what == "promote" and "predictions not compared: 10 of 300 rows" in found.reason
    assert decide(figures(live, version(500, predictions=second)), age_s=60.0).what == "roll back", "had they been many"


def test_a_shadow_is_described_by_how_far_both_agree() -> None:
    found = msgspec.structs.replace(healthy(), n_compared=500, n_agreed=490, n_dropped=7)
    assert describe_shadow(found).startswith("500 requests mirrored; 7 dropped; it says the same in 98.0% of 500 rows")


def test_columns_that_differ_are_named() -> None:
    ours = Schema(columns=(Column(name="age", kind="number"), Column(name="sex", kind="string")), classes=("a", "b"))
    check(ours, msgspec.structs.replace(ours, columns=ours.columns[::-1]), names=("Net@1", "Net@2"))
    other = msgspec.structs.replace(
        ours, columns=(Column(name="age", kind="string"), Column(name="bmi", kind="number")), classes=("a", "c")
    )
    with pytest.raises(LeptonError) as caught:
        check(ours, other, names=("Net@1", "Net@2"))
    assert caught.value.message == (
        "Net@2 cannot stand beside Net@1: column 'age' is number, then string; column 'sex' is gone; "
        "column 'bmi' is new; classes: a, b, then a, c."
    )
    named = msgspec.structs.replace(ours, id_column="patient", dropped=("patient", "remark"))
    with pytest.raises(LeptonError, match="column 'patient' is passed over, then not known"):
        check(named, ours, names=("Net@1", "Net@2"))
    check(ours, named, names=("Net@1", "Net@2"))


def test_flags_that_cannot_go_together_are_refused() -> None:
    with pytest.raises(LeptonError, match="not both"):
        check_flags(canary=0.1, requests=None, seconds=None, is_shadow=True)
    with pytest.raises(LeptonError, match="mean nothing without --canary"):
        check_flags(canary=None, requests=10, seconds=None, is_shadow=True)


def test_failures_are_judged_by_fishers_exact_test() -> None:
    for n_failed, n, n_failed_other, n_other in itertools.product((5, 9, 30), (60, 500), (1, 40, 200), (900, 9000)):
        table = [[n_failed, n - n_failed], [n_failed_other, n_other - n_failed_other]]
        expected = stats.fisher_exact(table, alternative="greater").pvalue < ALPHA
        live = VersionFigures(n_requests=n_other, n_failed=n_failed_other)
        assert fails_oftener(live, VersionFigures(n_requests=n, n_failed=n_failed)) is bool(expected)


def test_chance_rolls_back_less_than_one_canary_in_fifty() -> None:
    """Each canary is looked at fifty times on its way, as the clock does, and is like the live version in all."""
    draw = np.random.default_rng(11)
    n_wrong = 0
    for _ in range(150):
        live_failed, failed = (np.cumsum(draw.random(n) < 0.02) for n in (4500, 500))
        live_ms, ms = (draw.lognormal(1, 0.8, n) / 1000 for n in (4500, 500))
        live_p, p = (draw.beta(1, 3, n) for n in (4500, 500))
        for n in range(10, 501, 10):
            first, second = profiles(live_p[: 9 * n], p[:n]) if n % 50 == 0 else (None, None)
            live = VersionFigures(
                n_requests=9 * n, n_failed=int(live_failed[9 * n - 1]), n_rows=9 * n, squares=9 * n,
                latency=latency(live_ms[: 9 * n]) if n % 50 == 0 else (), predictions=first,
            )  # fmt: skip
            canary = VersionFigures(
                n_requests=n, n_failed=int(failed[n - 1]), n_rows=n, squares=n,
                latency=latency(ms[:n]) if n % 50 == 0 else (), predictions=second,
            )  # fmt: skip
            if decide(figures(live, canary), age_s=1.0).what == "roll back":
                n_wrong += 1
                break
    assert n_wrong <= 3


def test_drift_is_not_judged_before_predictions_are_binned() -> None:
    live = version(900, predictions=profiles(DRAW.random(600), DRAW.random(600))[0])
    assert drift(live, version(400)) is None and drift(version(900), version(400)) is None


def test_a_duration_lies_between_the_edges_of_its_place() -> None:
    for seconds in (0.0, 1e-4, 1.05e-4, 0.0123, 1.0, 59.0):
        place = place_of(seconds)
        assert edge_s(place) <= seconds * (1 + 1e-9) and seconds <= edge_s(place + 1) * (1 + 1e-9)
    assert place_of(1e9) == N_EDGES
