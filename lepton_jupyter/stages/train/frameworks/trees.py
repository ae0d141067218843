"""Trees of every library as one table, whose only comparison is the graph's.

A graph's comparison is ``x <= threshold`` in float64 here, whatever the library compares: a float32 below another is
one that is at most its predecessor, a set of categories is a row of intervals, and a missing value takes the way that
the library recorded. Converters that round thresholds to float32, or forget where a missing value goes, answer another
leaf's value for such rows without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lepton_jupyter.stages.data.plan import NumberStep, Plan, width_of
from lepton_jupyter.stages.train.frameworks.score_graph import Link

# M nodes of a tree, T raw scores

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tree:
    """One tree; node 0 is the root. A row goes left where ``x[feature] <= threshold``.

    Attributes
    ----------
    feature : int64 [M]
        -1 at a leaf.
    threshold : float64 [M]
    left, right : int64 [M]
        Nodes. Several may share a left one, none a right one.
    missing_left : bool [M]
        Whether a missing value goes left.
    value : float64 [M, T]
        What a leaf adds to the raw scores.
    """

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: npt.NDArray[np.bool_]
    value: Floats


@dataclass(frozen=True)
class Forest:
    """Trees whose leaves add up.

    Attributes
    ----------
    trees : list of Tree
    base : float64 [T]
        What the sum begins with.
    link : str
        From raw scores to answers.
    slope : float
        What the scores are multiplied by first.
    is_single : bool
        Whether the library rounds features to float32 before it compares them.
    adds_single : bool
        Whether it also adds up in float32, tree after tree, the base first: of a thousand trees the rounding shows.
    """

    trees: list[Tree]
    base: Floats
    link: Link = "identity"
    slope: float = 1.0
    is_single: bool = True
    adds_single: bool = False


@dataclass(frozen=True)
class Segments:
    """A feature's line cut in pieces, each of which goes one way.

    Attributes
    ----------
    bounds : list of float
        Rising; a piece ends with its bound. The last piece has none.
    is_left : list of bool
        One more than bounds.
    missing_left : bool
    """

    bounds: list[float]
    is_left: list[bool]
    missing_left: bool


def before(value: float) -> float:
    """Return the largest float64 below a value: ``x < value`` is ``x <= before(value)``."""
    return float(np.nextafter(value, -np.inf))


def of_categories(
    sides: Mapping[int, bool], *, other: bool, missing_left: bool, floor: float = before(0.0)
) -> Segments:
    """Return the pieces of a split by category codes.

    Parameters
    ----------
    sides : mapping of int to bool
        Whether a code goes left. A value counts as the whole number it begins with.
    other : bool
        Whether all others go left.
    floor : float
        The largest value that does not count as code 0.
    """
    bounds: list[float] = []
    is_left: list[bool] = []
    for code in sorted(sides):
        low = before(code) if code > 0 else floor
        if not bounds or bounds[-1] < low:
            bounds.append(low)
            is_left.append(other)
        bounds.append(before(code + 1.0))
        is_left.append(sides[code])
    return Segments(bounds, [*is_left, other], missing_left)


def cut(tree: Tree, pieces: Mapping[int, Segments]) -> Tree:
    """Return the tree with some of its splits replaced: each becomes a chain of nodes, the first in its place."""
    feature, threshold = tree.feature.tolist(), tree.threshold.tolist()
    left, right, missing = tree.left.tolist(), tree.right.tolist(), tree.missing_left.tolist()
    for node, given in pieces.items():
        segments = _merged(given)
        ways = {True: left[node], False: right[node]}
        is_open = segments.missing_left != segments.is_left[-1]  # else it falls through to the last piece
        at = node
        for place, (bound, is_left) in enumerate(zip(segments.bounds, segments.is_left, strict=False)):
            if place:
                right[at] = len(feature)
                at = len(feature)
                for column in (feature, threshold, left, right, missing):
                    column.append(0)
            feature[at], threshold[at], left[at] = feature[node], bound, ways[is_left]
            missing[at] = is_open and is_left == segments.missing_left
            is_open = is_open and not missing[at]
        right[at] = ways[segments.is_left[-1]]
    value = np.zeros((len(feature), tree.value.shape[1]))
    value[: len(tree.value)] = tree.value
    return Tree(
        np.array(feature, np.int64),
        np.array(threshold, np.float64),
        np.array(left, np.int64),
        np.array(right, np.int64),
        np.array(missing, np.bool_),
        value,
    )


def pruned(tree: Tree) -> Tree:
    """Return the tree without nodes that no row reaches; a runtime may take their values for those of the root."""
    is_reached = np.zeros(len(tree.feature), np.bool_)
    layer = np.zeros(1, np.int64)
    while len(layer):
        is_reached[layer] = True
        inner = layer[tree.feature[layer] >= 0]
        below = np.unique(np.concatenate([tree.left[inner], tree.right[inner]]))
        layer = below[~is_reached[below]]
    if is_reached.all():
        return tree
    number = np.cumsum(is_reached) - 1
    return Tree(
        tree.feature[is_reached],
        tree.threshold[is_reached],
        number[tree.left[is_reached]],
        number[tree.right[is_reached]],
        tree.missing_left[is_reached],
        tree.value[is_reached],
    )


def _merged(segments: Segments) -> Segments:
    """Return the pieces without bounds between two that go the same way; one bound at least."""
    pairs = zip(segments.bounds, segments.is_left, segments.is_left[1:], strict=False)
    kept = [(bound, way) for bound, way, following in pairs if way != following]
    if not kept:  # only a missing value may go another way; nothing is at most minus infinity
        kept = [(-np.inf, segments.missing_left)]
    return Segments(
        [bound for bound, _ in kept], [*(way for _, way in kept), segments.is_left[-1]], segments.missing_left
    )


def plan_thresholds(forest: Forest, plan: Plan) -> dict[str, list[float]]:
    """Return the raw values at which trees split, by number column of a plan whose features they take."""
    columns: dict[int, NumberStep] = {}
    place = 0
    for step in plan.steps:
        if isinstance(step, NumberStep):
            columns[place] = step
        place += width_of(step)
    found: dict[str, list[float]] = {}
    for tree in forest.trees:
        for feature, threshold in zip(tree.feature.tolist(), tree.threshold.tolist(), strict=True):
            numbers = columns.get(feature)
            if numbers is not None and np.isfinite(threshold):
                found.setdefault(numbers.column, []).append(numbers.raw(threshold))
    return found
