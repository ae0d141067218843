"""Reports say of prose how many words it has."""

from __future__ import annotations

import numpy as np

from lepton_jupyter.formats import profile as profiles
from lepton_jupyter.formats.monitor import ColumnReport
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import Column, Schema
from lepton_jupyter.stages.monitor.compare import Compared
from lepton_jupyter.stages.monitor.drift import cells_of, judge
from lepton_jupyter.stages.monitor.effective import dependence
from lepton_jupyter.stages.monitor.text import of_column

SCHEMA = Schema(columns=(Column(name="review", kind="text"),))
NOTHING = profiles.Profile(n_rows=0, numbers={}, texts={})


def written(lengths: list[int]) -> Packed:
    texts = np.array([["so " * n] for n in lengths], object)
    return Packed(np.empty((len(lengths), 0)), texts)


def test_longer_texts_are_a_drift_that_is_told_in_words() -> None:
    before, after = written([8, 9, 10, 11, 12] * 200), written([38, 39, 40, 41, 42] * 100)
    reference = profiles.build(SCHEMA, before)
    window = profiles.count(reference, SCHEMA, after)
    judged = judge([(reference, window)], deff={})
    assert judged["review"].has_drifted
    seen = dependence(cells_of(reference, SCHEMA, after), None)
    compared = Compared(reference, window, NOTHING, NOTHING, seen, 500.0, judged)
    report = ColumnReport(
        name="review",
        kind="number",
        psi=judged["review"].psi,
        noise=judged["review"].noise,
        p=judged["review"].p,
        has_drifted=True,
        missing=0.0,
        missing_before=0.0,
        has_more_missing=False,
        unseen=0.0,
        n_outside=0,
    )
    said = of_column(report, compared, prose={"review"})
    assert said.endswith("its mean is 40 words, 10 in training.")
