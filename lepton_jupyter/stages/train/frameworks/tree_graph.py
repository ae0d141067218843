"""A forest as an ONNX graph that decides as its library does (`trees` says how)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from lepton_jupyter.stages.train.frameworks.score_graph import ScoreGraph
from lepton_jupyter.stages.train.frameworks.trees import Floats, Forest, Tree, pruned

# M nodes of a tree, T raw scores


def forest_graph(forest: Forest, n_features: int, *, is_double: bool) -> onnx.ModelProto:
    """Return a forest as a model; parameters and outputs are those of `ScoreGraph`."""
    graph = ScoreGraph(n_features, is_double=is_double)
    trees = [pruned(tree) for tree in forest.trees]
    raw = (_added_single if forest.adds_single else _added)(graph, forest, trees)
    return graph.finish(raw, len(forest.base), link=forest.link, slope=forest.slope)


def _added(graph: ScoreGraph, forest: Forest, trees: list[Tree]) -> str:
    """Return the raw scores, added up in float64."""
    leaves, base = _centered(trees, forest.base)
    values = graph.doubles(is_single=forest.is_single)
    attributes = _attributes(trees, leaves) | {
        "nodes_values_as_tensor": _tensor(np.concatenate([tree.threshold for tree in trees])),
        "target_weights_as_tensor": _tensor(_weights(trees, leaves)[0]),
    }
    raw = graph.add("TreeEnsembleRegressor", values, domain="ai.onnx.ml", **attributes)
    return graph.add("Add", graph.add("Cast", raw, to=TensorProto.DOUBLE), graph.constant(base))


def _added_single(graph: ScoreGraph, forest: Forest, trees: list[Tree]) -> str:
    """Return the raw scores, added up in float32 in the trees' order: the first is a leaf that holds the base."""
    none = np.full(1, -1)
    trees = [Tree(none, np.zeros(1), none, none, np.zeros(1, np.bool_), forest.base[None, :]), *trees]
    leaves = [np.where(tree.feature[:, None] < 0, tree.value, 0.0) for tree in trees]
    attributes = _attributes(trees, leaves) | {
        "nodes_values": _rounded_down(np.concatenate([tree.threshold for tree in trees])).tolist(),
        "target_weights": _weights(trees, leaves)[0].tolist(),
    }
    raw = graph.add("TreeEnsembleRegressor", graph.singles(), domain="ai.onnx.ml", **attributes)
    return graph.add("Cast", raw, to=TensorProto.DOUBLE)


def _rounded_down(values: Floats) -> npt.NDArray[np.float32]:
    """Return the largest float32 that is not above each value: for a float32 x, ``x <= value`` stays as it is."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _centered(trees: list[Tree], base: Floats) -> tuple[list[Floats], Floats]:
    """Return each tree's values less the mean of its leaves, and the base that makes up for it.

    The operator sums in double and gives float32: a sum near its middle loses less than one that carries the base.
    Where a leaf is zero it stays so: the values lie around it, and zeros need not be written.
    """
    values = []
    for tree in trees:
        is_leaf = tree.feature < 0
        leaves = tree.value[is_leaf]
        middle = np.where((leaves != 0).all(axis=0), leaves.mean(axis=0), 0.0)
        values.append(np.where(is_leaf[:, None], tree.value - middle, 0.0))
        base = base + middle
    return values, base


def _attributes(trees: list[Tree], leaves: list[Floats]) -> dict[str, Any]:
    """Return trees, with the values [M, T] of each, as `TreeEnsembleRegressor` takes them, but for its numbers."""
    sizes = [len(tree.feature) for tree in trees]
    tree_of = np.repeat(np.arange(len(trees)), sizes)
    node_of = np.concatenate([np.arange(size) for size in sizes])
    feature = np.concatenate([tree.feature for tree in trees])
    is_leaf = feature < 0
    _, at, target = _weights(trees, leaves)
    return {
        "n_targets": leaves[0].shape[1],
        "aggregate_function": "SUM",
        "post_transform": "NONE",
        "nodes_treeids": tree_of.tolist(),
        "nodes_nodeids": node_of.tolist(),
        "nodes_featureids": np.where(is_leaf, 0, feature).tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.where(is_leaf, 0, np.concatenate([tree.left for tree in trees])).tolist(),
        "nodes_falsenodeids": np.where(is_leaf, 0, np.concatenate([tree.right for tree in trees])).tolist(),
        "nodes_missing_value_tracks_true": np.concatenate([tree.missing_left for tree in trees]).astype(int).tolist(),
        "target_treeids": tree_of[at].tolist(),
        "target_nodeids": node_of[at].tolist(),
        "target_ids": target.tolist(),
    }


def _weights(trees: list[Tree], leaves: list[Floats]) -> tuple[Floats, npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the values that are written, and the node (of all) and the score of each.

    All but zeros, and the first of every leaf, for one it must have.
    """
    values = np.concatenate(leaves)
    kept = values != 0
    kept[:, 0] |= ~kept.any(axis=1)
    kept &= np.concatenate([tree.feature for tree in trees])[:, None] < 0
    at, target = np.nonzero(kept)
    return values[at, target], at, target


def _tensor(values: Floats) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values, np.float64))
