"""A window beside its training, column by column: the counts, and what the tests say of them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.predicted import pack_predictions, schema_of_predictions
from lepton_jupyter.formats.profile import Profile, count
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.monitor.drift import FEWEST_EFFECTIVE, Judged, cells_of, judge
from lepton_jupyter.stages.monitor.effective import Dependence, dependence
from lepton_jupyter.stages.monitor.window import MonitorWindow

_NOTHING = Profile(n_rows=0, numbers={}, texts={})


class Compared(NamedTuple):
    """Profiles over the same edges, and the tests.

    Attributes
    ----------
    reference, window : Profile
        The inputs, in training and in the window.
    predicted_before, predicted : Profile
        The predictions; without columns where the version has no profile of them or answered no row.
    dependence : Dependence
    n_effective : float
        Independent rows that the window's are worth.
    judged : dict of Judged
        Inputs and predictions for which there were enough rows.
    """

    reference: Profile
    window: Profile
    predicted_before: Profile
    predicted: Profile
    dependence: Dependence
    n_effective: float
    judged: dict[str, Judged]

    @property
    def names(self) -> list[str]:
        """Every column, the predictions last."""
        sides = (self.reference, self.predicted_before)
        return [name for side in sides for name in (*side.numbers, *side.texts)]

    def sides(self, name: str) -> tuple[Profile, Profile]:
        """Return the profiles, before and now, that have a column."""
        is_input = name in self.reference.numbers or name in self.reference.texts
        return (self.reference, self.window) if is_input else (self.predicted_before, self.predicted)


def compare(window: MonitorWindow) -> Compared | None:
    """Count a window over the edges of its training, and test it; None where no row was scored."""
    if not window.n_rows:
        return None
    reference = _without(window.reference, window.withheld) if window.reference else _NOTHING
    schema, packed = _kept(window) if window.reference else _kept(window, is_none=True)
    counts = count(reference, schema, packed)
    columns = schema_of_predictions(window.schema)
    is_ours = _rows_of_version(window)
    has_both = window.predicted is not None and bool(is_ours.any())
    before = window.predicted if window.predicted is not None and has_both else _NOTHING
    outputs = pack_predictions(window.schema, window.outputs[0][is_ours])
    now = count(before, columns, outputs) if has_both else _NOTHING
    cells = cells_of(reference, schema, packed) | (cells_of(before, columns, outputs) if has_both else {})
    seen = dependence(cells, window.ids)
    n_effective = window.n_rows / seen.deff
    judged = judge([(reference, counts), (before, now)], deff=seen.by_column) if n_effective >= FEWEST_EFFECTIVE else {}
    return Compared(reference, counts, before, now, seen, n_effective, judged)


def _without(profile: Profile, names: frozenset[str]) -> Profile:
    numbers, texts = (
        {name: column for name, column in columns.items() if name not in names}
        for columns in (profile.numbers, profile.texts)
    )
    return msgspec.structs.replace(profile, numbers=numbers, texts=texts)


def _kept(window: MonitorWindow, *, is_none: bool = False) -> tuple[Schema, Packed]:
    """Return the columns whose values the log has, and the rows with these alone."""
    schema = window.schema
    names = () if is_none else [column.name for column in schema.columns if column.name not in window.withheld]
    num, txt = ([column.name in names for column in columns] for columns in (schema.num, schema.txt))
    columns = tuple(column for column in schema.columns if column.name in names)
    packed = Packed(window.packed.num[:, np.asarray(num, bool)], window.packed.txt[:, np.asarray(txt, bool)])
    return msgspec.structs.replace(schema, columns=columns), packed


def _rows_of_version(window: MonitorWindow) -> NDArray[np.bool_]:
    """Return which rows the version answered that the endpoint serves now, bool [N]."""
    is_ours = (window.requests["version"] == window.version).to_numpy()
    return is_ours[window.request]
