"""scikit-learn's trees, forests and boosted trees as a `Forest`; those of other packages by that package's file."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from lepton_jupyter.stages.train.frameworks.score_graph import Link
from lepton_jupyter.stages.train.frameworks.trees import Floats, Forest, Segments, Tree, cut, of_categories

MAKERS = {  # the package of an estimator, and the function that makes a `Forest` of it
    "xgboost": "lepton_jupyter.stages.train.frameworks.xgboost:forest_of",
    "lightgbm": "lepton_jupyter.stages.train.frameworks.lightgbm:forest_of",
}
LINKS: dict[str, tuple[Link, float]] = {  # scikit-learn's links, and the slope of their sigmoid
    "IdentityLink": ("identity", 1.0),
    "LogLink": ("exp", 1.0),
    "LogitLink": ("binary", 1.0),
    "HalfLogitLink": ("binary", 2.0),
    "MultinomialLogit": ("softmax", 1.0),
}
CODES = 256  # of a category of HistGradientBoosting, at most

_SINGLE = (DecisionTreeClassifier, DecisionTreeRegressor)
_AVERAGED = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
_BOOSTED = (GradientBoostingClassifier, GradientBoostingRegressor)
_BAGGED = (BaggingClassifier, BaggingRegressor)
_BINNED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)


def forest_of(estimator: Any) -> Forest | None:
    """Return the trees of a fitted estimator; None where it is not made of trees that add up.

    Raises
    ------
    LeptonError
        With code ``refused`` where it is, but does something with them that a graph of ours cannot say.
    """
    packages = {base.__module__.partition(".")[0] for base in type(estimator).__mro__}
    place = next((place for package, place in MAKERS.items() if package in packages), None)
    if place is not None:
        module, _, name = place.partition(":")
        found: Forest = getattr(importlib.import_module(module), name)(estimator)
        return found
    if getattr(estimator, "n_outputs_", 1) > 1 and is_classifier(estimator):
        return None
    if isinstance(estimator, _SINGLE):
        return _averaged([estimator])
    if isinstance(estimator, _AVERAGED):
        return _averaged(estimator.estimators_)
    if isinstance(estimator, _BOOSTED):
        return _boosted(estimator)
    if isinstance(estimator, _BINNED):
        return _binned(estimator)
    if isinstance(estimator, _BAGGED):
        return _bagged(estimator)
    return None


def forests_in(estimator: Any) -> list[Forest]:
    """Return the trees of an estimator, or those of its parts where it is an ensemble of others."""
    forest = forest_of(estimator)
    if forest is not None:
        return [forest]
    parts = getattr(estimator, "estimators_", None)
    if parts is None:
        return []
    return [forest for part in np.asarray(parts, dtype=object).ravel() for forest in forests_in(part)]


def _averaged(estimators: list[Any]) -> Forest:
    share = 1.0 / len(estimators)
    trees = [_tree(one.tree_, share * _values(one.tree_)) for one in estimators]
    return Forest(trees, np.zeros(trees[0].value.shape[1]))


def _bagged(estimator: Any) -> Forest | None:
    """Return the average of parts that are averages themselves; None where one is something else."""
    if len({len(getattr(part, "classes_", ())) for part in estimator.estimators_}) > 1:
        return None  # a part that never saw a class
    parts = [forest_of(part) for part in estimator.estimators_]
    share = 1.0 / len(parts)
    trees = []
    for part, features in zip(parts, estimator.estimators_features_, strict=True):
        if part is None or part.link != "identity" or part.base.any() or not part.is_single:
            return None
        of_all = np.append(np.asarray(features, np.int64), -1)  # the last is a leaf's
        trees += [replace(tree, feature=of_all[tree.feature], value=share * tree.value) for tree in part.trees]
    return Forest(trees, np.zeros(trees[0].value.shape[1]))


def _values(tree: Any) -> Floats:
    """Return a leaf's class shares [M, K] or targets [M, T]: scikit-learn keeps [M, 1, K] and [M, T, 1]."""
    return np.asarray(tree.value, np.float64).reshape(tree.node_count, -1)


def _tree(tree: Any, value: Floats) -> Tree:
    return Tree(
        np.where(tree.children_left < 0, -1, tree.feature).astype(np.int64),
        np.asarray(tree.threshold, np.float64),
        np.asarray(tree.children_left, np.int64),
        np.asarray(tree.children_right, np.int64),
        np.asarray(tree.missing_go_to_left, np.bool_),
        value,
    )


def _boosted(estimator: Any) -> Forest | None:
    stages = np.asarray(estimator.estimators_, dtype=object)  # [stages, T]
    n = stages.shape[1]
    if isinstance(estimator.init_, (DummyClassifier, DummyRegressor)):
        base = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32))[0]
    elif isinstance(estimator.init_, str):  # "zero"
        base = np.zeros(n)
    else:
        return None  # it begins with another estimator's answer
    trees = [
        _tree(stage.tree_, _at(place % n, n, estimator.learning_rate * _values(stage.tree_)))
        for place, stage in enumerate(stages.ravel())
    ]
    link, slope = LINKS[type(estimator._loss.link).__name__]
    return Forest(trees, base, "identity" if not is_classifier(estimator) else link, slope)


def _at(place: int, n: int, values: Floats) -> Floats:
    """Return values [M, 1] in one of n columns."""
    wide = np.zeros((len(values), n))
    wide[:, place] = values[:, 0]
    return wide


def _binned(estimator: Any) -> Forest | None:
    link = LINKS.get(type(estimator._loss.link).__name__)
    if link is None:
        return None
    known, place_of = estimator._bin_mapper.make_known_categories_bitsets()
    n = estimator.n_trees_per_iteration_
    trees = [
        _binned_tree(predictor, known, place_of, place=place, n=n)
        for stage in estimator._predictors
        for place, predictor in enumerate(stage)
    ]
    return Forest(trees, np.asarray(estimator._baseline_prediction, np.float64).ravel(), *link, is_single=False)


def _binned_tree(predictor: Any, known: Any, place_of: Any, *, place: int, n: int) -> Tree:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(bool)
    tree = Tree(
        np.where(is_leaf, -1, nodes["feature_idx"]).astype(np.int64),
        nodes["num_threshold"].astype(np.float64),
        nodes["left"].astype(np.int64),
        nodes["right"].astype(np.int64),
        nodes["missing_go_to_left"].astype(bool),
        _at(place, n, np.where(is_leaf, nodes["value"], 0.0)[:, None]),
    )
    pieces: dict[int, Segments] = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~is_leaf).tolist():
        to_left = _codes(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
        all_known = _codes(known[place_of[nodes["feature_idx"][node]]])
        missing_left = bool(nodes["missing_go_to_left"][node])
        sides = dict.fromkeys(all_known, False) | dict.fromkeys(to_left, True)
        pieces[node] = of_categories(sides, other=missing_left, missing_left=missing_left)
    return cut(tree, pieces)


def _codes(bits: Any) -> list[int]:
    """Return the codes in a set of `CODES` bits, eight words of 32."""
    return [code for code in range(CODES) if bits[code // 32] >> np.uint32(code % 32) & np.uint32(1)]
