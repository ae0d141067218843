"""LightGBM: its estimators, and boosters that were trained by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.plan import OrdinalStep
from lepton_jupyter.stages.train.frameworks.boosting import BoostingFramework, Facts, Native, refuse_objective
from lepton_jupyter.stages.train.frameworks.score_graph import Link
from lepton_jupyter.stages.train.frameworks.sklearn import SklearnFitted
from lepton_jupyter.stages.train.frameworks.trees import Forest, Segments, Tree, before, cut, of_categories

LINKS: dict[str, Link] = {
    "binary": "binary",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "cross_entropy": "sigmoid",
}
CATEGORICAL, DEFAULT_LEFT = 1, 2  # bits of a decision
MISSING_IS_ZERO, MISSING_IS_NAN = 1, 2  # the two bits above them
ZERO = float(np.float32(1e-35))  # a value that is no farther from zero than this is zero

Block = dict[str, str]


class NativeLightGBM(Native):
    """A `lightgbm.Booster`. It answers with its best round where it stopped early."""

    def predict(self, given: Any) -> npt.NDArray[Any]:
        """Return what it says of a DataFrame, or of an array where its features have no names."""
        return np.asarray(self.booster.predict(given))

    @property
    def feature_importances_(self) -> npt.NDArray[Any]:
        """Return how much each feature gained, float [F]."""
        return np.asarray(self.booster.feature_importance("gain"))


class LightGBMFramework(BoostingFramework):
    """Train LightGBM's estimators, and take over its boosters."""

    name = "lightgbm"
    native = NativeLightGBM

    def learn(self, fitted: SklearnFitted, given: Any, target: npt.NDArray[Any]) -> None:
        """Fit the estimator; codes of our plan are categories."""
        assert fitted.plan is not None
        places = [place for place, step in enumerate(fitted.plan.steps) if isinstance(step, OrdinalStep)]
        fitted.estimator.fit(given, target, **({"categorical_feature": places} if places else {}))

    def facts(self, model: Any) -> Facts:
        """Return features, classes and categories of a trained model."""
        booster = _booster(model)
        head, _ = _read(booster)
        names = tuple(booster.feature_name())
        n = booster.num_feature()
        objective = head.get("objective", "").partition(" ")[0]
        n_classes = 2 if objective == "binary" else int(head["num_class"]) if "multiclass" in objective else 0
        categories = [tuple(texts) for texts in booster.pandas_categorical or []]
        is_set = [not info.startswith("[") and info != "none" for info in head["feature_infos"].split(" ")]
        of_sets = [name for name, found in zip(names, is_set, strict=True) if found]
        # It keeps the categories in the order of their columns, not whose they are
        known = dict(zip(of_sets, categories, strict=True)) if len(of_sets) == len(categories) else {}
        of_text = {name: texts for name, texts in known.items() if all(isinstance(text, str) for text in texts)}
        is_named = names != tuple(f"Column_{place}" for place in range(n))
        return Facts(names if is_named else (), n, n_classes, of_text)


def _booster(model: Any) -> Any:
    return model.booster_ if hasattr(model, "fit") else model


def _read(booster: Any) -> tuple[Block, list[Block]]:
    """Return the booster's own text as its head and its trees, up to the best round."""
    text = booster.model_to_string().partition("\nend of trees")[0]
    head, *trees = (
        {key: value for key, _, value in (line.partition("=") for line in part.splitlines())}
        for part in text.split("\nTree=")
    )
    return head, trees


def forest_of(model: Any) -> Forest:
    """Return the trees of a booster or an estimator, up to its best round where it stopped early.

    Raises
    ------
    LeptonError
        With code ``refused`` for linear trees and objectives that are not known.
    """
    head, told = _read(_booster(model))
    said = head.get("objective", "custom")
    objective, *settings = said.split(" ")
    if objective not in LINKS:
        raise refuse_objective(said, "LightGBM")
    if any(tree.get("is_linear", "0") != "0" for tree in told):
        raise LeptonError(
            "A LightGBM model with linear trees cannot be exported.", "Train with linear_tree=False.", code="refused"
        )
    n = int(head["num_tree_per_iteration"])
    share = n / len(told) if "average_output" in head else 1.0
    trees = [_tree(tree, place=number % n, n=n, share=share) for number, tree in enumerate(told)]
    link: Link = "signed square" if "sqrt" in settings else LINKS[objective]
    slope = next((float(word.partition(":")[2]) for word in settings if word.startswith("sigmoid:")), 1.0)
    return Forest(trees, np.zeros(n), link, slope, is_single=False)


def _tree(told: Block, *, place: int, n: int, share: float) -> Tree:
    """Return a tree: its inner nodes, then its leaves, which its text counts from -1 downwards."""
    leaves = _floats(told, "leaf_value")
    n_inner = int(told["num_leaves"]) - 1
    n_nodes = n_inner + len(leaves)

    def inner(values: npt.NDArray[Any], rest: Any) -> npt.NDArray[Any]:
        return np.concatenate([values[:n_inner], np.full(len(leaves), rest, values.dtype)])

    def children(key: str) -> npt.NDArray[np.int64]:
        found = _ints(told, key)[:n_inner]
        return inner(np.where(found < 0, n_inner + ~found, found), -1)

    decisions = _ints(told, "decision_type")[:n_inner]
    thresholds = _floats(told, "threshold")[:n_inner]
    default_left = (decisions & DEFAULT_LEFT) > 0
    is_nan = (decisions >> 2 & 3) == MISSING_IS_NAN
    value = np.zeros((n_nodes, n))
    value[n_inner:, place] = share * leaves
    tree = Tree(
        inner(_ints(told, "split_feature"), -1),
        inner(_beside_zero(thresholds), 0.0),
        children("left_child"),
        children("right_child"),
        inner(np.where(is_nan, default_left, thresholds >= 0.0), False),  # else a missing value counts as zero
        value,
    )
    pieces = {
        node: _set(told, int(thresholds[node]))
        if decision & CATEGORICAL
        else _zero_is_missing(float(thresholds[node]), bool(decision & DEFAULT_LEFT))
        for node, decision in enumerate(decisions.tolist())
        if decision & CATEGORICAL or decision >> 2 & 3 == MISSING_IS_ZERO
    }
    return cut(tree, pieces) if pieces else tree


def _set(told: Block, number: int) -> Segments:
    """Return a split by categories: those of its set go left, all others and missing ones right."""
    bounds, words = _ints(told, "cat_boundaries"), _ints(told, "cat_threshold")
    bits = words[bounds[number] : bounds[number + 1]].tolist()
    codes = [32 * place + bit for place, word in enumerate(bits) for bit in range(32) if word >> bit & 1]
    return of_categories(dict.fromkeys(codes, True), other=False, missing_left=False, floor=-1.0)


def _zero_is_missing(threshold: float, default_left: bool) -> Segments:
    """Return a split by a number where zero means missing."""
    bounds = sorted({threshold, before(-ZERO), ZERO})
    is_left = [default_left if -ZERO <= bound <= ZERO else bound <= threshold for bound in bounds]
    return Segments(bounds, [*is_left, False], default_left)


def _beside_zero(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return thresholds with those among the values that count as zero put behind them, or before."""
    moved = np.where((thresholds >= 0) & (thresholds <= ZERO), ZERO, thresholds)
    return np.where((moved < 0) & (moved >= -ZERO), before(-ZERO), moved)


def _ints(told: Block, key: str) -> npt.NDArray[np.int64]:
    return np.array(told.get(key, "").split(), np.int64)


def _floats(told: Block, key: str) -> npt.NDArray[np.float64]:
    return np.array(told.get(key, "").split(), np.float64)
