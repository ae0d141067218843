"""Where trees decide: values that parity plants, because float32 and float64 part ways there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lepton_jupyter.stages.data.plan import NumberStep, Plan, width_of


def tree_thresholds(estimator: Any, plan: Plan) -> dict[str, list[float]]:
    """Return the raw values at which an estimator's trees split, by number column; empty where it has no trees.

    Parameters
    ----------
    estimator : fitted estimator
    plan : Plan
        Its features.
    """
    columns: dict[int, NumberStep] = {}
    place = 0
    for step in plan.steps:
        if isinstance(step, NumberStep):
            columns[place] = step
        place += width_of(step)
    found: dict[str, list[float]] = {}
    for tree in _trees(estimator):
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
            numbers = columns.get(int(feature))
            if numbers is not None:
                found.setdefault(numbers.column, []).append(float(threshold) * numbers.scale + numbers.center)
    return found


def _trees(estimator: Any) -> Iterator[Any]:
    if hasattr(estimator, "tree_"):
        yield estimator.tree_
        return
    parts = getattr(estimator, "estimators_", None)
    if parts is None:
        return
    for part in np.asarray(parts, dtype=object).ravel():
        if hasattr(part, "tree_"):
            yield part.tree_
