"""Profiles: bins, merging, and how far two sets of rows differ."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.profile import Profile, build, count, merge, psi
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema

SCHEMA = Schema(
    columns=(
        Column(name="x", kind="number"),
        Column(name="k", kind="integer"),
        Column(name="s", kind="string"),
    )
)


def _rows(n: int, *, seed: int = 0, shift: float = 0.0) -> Packed:
    rng = np.random.default_rng(seed)
    num = np.column_stack([rng.lognormal(shift, 1, n), rng.poisson(0.1, n)]).astype(float)
    num[rng.random(num.shape) < 0.05] = np.nan
    txt = rng.choice(np.array(["u", "v", "w", SENTINEL], dtype=object), (n, 1), p=[0.6, 0.3, 0.05, 0.05])
    return Packed(num, txt)


def test_counts_add_up_and_bins_are_even() -> None:
    packed = _rows(10_000)
    profile = build(SCHEMA, packed)
    column = profile.numbers["x"]
    assert len(column.edges) == 63
    assert sum(column.counts) + column.missing == profile.n_rows == 10_000
    assert max(column.counts) - min(column.counts) <= 2
    assert len(column.merged_bins()) == 9
    present = packed.num[~np.isnan(packed.num[:, 0]), 0]
    assert (column.minimum, column.maximum) == (present.min(), present.max())
    assert column.mean == pytest.approx(present.mean())
    assert column.std == pytest.approx(present.std())
    below = (present < column.edges[30]).sum()
    assert sum(column.counts[:31]) == below
    assert profile.texts["s"].categories == ("u", "v", "w") or profile.texts["s"].categories[:2] == ("u", "v")
    assert profile.texts["s"].missing == (packed.txt == SENTINEL).sum()


def test_few_values_have_a_bin_each() -> None:
    column = build(SCHEMA, _rows(5_000)).numbers["k"]
    assert column.edges == tuple(float(i) for i in range(1, len(column.edges) + 1))


def test_a_profile_survives_json() -> None:
    profile = build(SCHEMA, _rows(100))
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile


def test_an_empty_column_and_no_rows_have_a_profile() -> None:
    packed = Packed(np.full((5, 2), np.nan), np.full((5, 1), SENTINEL, dtype=object))
    profile = build(SCHEMA, packed)
    assert (profile.numbers["x"].missing, profile.numbers["x"].mean, profile.numbers["x"].counts) == (5, None, (0,))
    assert all(np.isfinite(shift.psi) for shift in psi(profile, count(profile, SCHEMA, _rows(100))).values())
    none = count(profile, SCHEMA, Packed(packed.num[:0], packed.txt[:0]))
    assert psi(profile, none)["x"].psi == 0.0
    assert merge(profile, none) == profile


def test_merging_counts_is_counting_everything() -> None:
    reference = build(SCHEMA, _rows(1_000))
    parts = [_rows(300, seed=seed, shift=0.3 * seed) for seed in (1, 2, 3)]
    merged = count(reference, SCHEMA, parts[0])
    for part in parts[1:]:
        merged = merge(merged, count(reference, SCHEMA, part))
    whole = count(reference, SCHEMA, Packed(*(np.concatenate([part[i] for part in parts]) for i in (0, 1))))
    assert merged.numbers["x"].counts == whole.numbers["x"].counts
    assert merged.texts == whole.texts
    assert merged.numbers["x"].mean == pytest.approx(whole.numbers["x"].mean)
    assert merged.numbers["x"].std == pytest.approx(whole.numbers["x"].std)


def test_profiles_over_other_edges_are_not_mixed() -> None:
    first, second = build(SCHEMA, _rows(500)), build(SCHEMA, _rows(500, seed=1))
    with pytest.raises(ValueError, match="different edges"):
        merge(first, second)
    with pytest.raises(ValueError, match="different edges"):
        psi(first, second)


def test_psi_is_its_formula_on_a_worked_example() -> None:
    schema = Schema(columns=(Column(name="s", kind="string"),))
    ours, theirs = (
        Packed(np.empty((n, 0)), np.array([["u"]] * a + [["v"]] * (n - a), dtype=object))
        for n, a in ((100, 50), (200, 150))
    )
    reference = build(schema, ours)
    shift = psi(reference, count(reference, schema, theirs))["s"]
    assert shift.psi == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))
    assert shift.noise == pytest.approx(1 / 100 + 1 / 200)
    from scipy.stats import chi2_contingency

    assert shift.chi2 == pytest.approx(chi2_contingency([[50, 50], [150, 50]], correction=False)[0])
    assert shift.dof == 1


def test_chance_gives_about_the_noise_and_a_shift_gives_more() -> None:
    reference = build(SCHEMA, _rows(2_000))
    same = [psi(reference, count(reference, SCHEMA, _rows(1_000, seed=seed)))["x"] for seed in range(1, 41)]
    assert np.mean([shift.psi for shift in same]) == pytest.approx(same[0].noise, rel=0.4)
    moved = psi(reference, count(reference, SCHEMA, _rows(1_000, seed=9, shift=0.5)))
    assert moved["x"].psi - moved["x"].noise > 0.15
    assert moved["k"].psi - moved["k"].noise < 0.05
    gone = _rows(1_000, seed=9)
    gone.num[::3, 0] = np.nan
    assert psi(reference, count(reference, SCHEMA, gone))["x"].psi > 0.1
