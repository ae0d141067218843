"""Trees as a graph: every value goes the way that the library would send it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from lepton_jupyter.stages.train.frameworks.tree_graph import forest_graph
from lepton_jupyter.stages.train.frameworks.trees import Forest, Segments, Tree, before, cut, of_categories
from lepton_jupyter.stages.train.graph import serialise

EDGES = [-2.0, -1.0, -0.5, before(0.0), 0.0, 0.5, before(1.0), 1.0, 1.5, 2.0, 2.5, 3.0, 31.0, 32.0]
VALUES = np.array([*EDGES, 1e9, np.nan])


def stump(*, threshold: float = 0.0, missing_left: bool = False, left: float = 1.0, right: float = 2.0) -> Tree:
    return Tree(
        np.array([0, -1, -1]),
        np.array([threshold, 0.0, 0.0]),
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        np.array([missing_left, False, False]),
        np.array([[0.0], [left], [right]]),
    )


def answers(forest: Forest, x: NDArray[np.float64], *, is_double: bool = True) -> NDArray[np.float64]:
    model = forest_graph(forest, x.shape[1], is_double=is_double)
    session = ort.InferenceSession(serialise(model), providers=["CPUExecutionProvider"])
    given = x if is_double else x.astype(np.float32)
    together = session.run(None, {"features": given})[0]
    alone = np.concatenate([session.run(None, {"features": given[[place]]})[0] for place in range(len(x))])
    np.testing.assert_array_equal(alone, together)
    return together


def ways(tree: Tree, x: NDArray[np.float64] = VALUES) -> list[str]:
    found = answers(Forest([tree], np.zeros(1), is_single=False), x[:, None])
    return ["left" if value == 1.0 else "right" for value in found[:, 0].tolist()]


@pytest.mark.parametrize("missing_left", [False, True])
def test_a_value_on_a_threshold_goes_left_and_a_missing_one_its_own_way(missing_left: bool) -> None:
    edge = 0.1 + 0.2
    x = np.array([before(edge), edge, np.nextafter(edge, 1.0), float(np.float32(edge)), np.nan])
    expected = ["left", "left", "right", "right", "left" if missing_left else "right"]
    assert ways(stump(threshold=edge, missing_left=missing_left), x) == expected


CATEGORIES: dict[str, tuple[Segments, Callable[[float], bool]]] = {
    "a set goes left": (
        of_categories({0: True, 2: True, 31: True}, other=False, missing_left=False),
        lambda x: x >= 0 and int(x) in {0, 2, 31},
    ),
    "a set goes right, missing left": (
        of_categories({1: False, 2: False}, other=True, missing_left=True),
        lambda x: np.isnan(x) or not (1 <= x < 3),
    ),
    "a set goes left, missing too": (
        of_categories({3: True}, other=False, missing_left=True),
        lambda x: np.isnan(x) or 3 <= x < 4,
    ),
    "unknown ones go as missing ones do": (
        of_categories({0: False, 1: True, 2: False}, other=True, missing_left=True),
        lambda x: np.isnan(x) or x < 0 or 1 <= x < 2 or x >= 3,
    ),
    "what truncates to zero is zero": (
        of_categories({0: True}, other=False, missing_left=False, floor=-1.0),
        lambda x: -1 < x < 1,
    ),
    "only a missing value goes left": (of_categories({}, other=False, missing_left=True), lambda x: bool(np.isnan(x))),
    "nothing goes left": (of_categories({}, other=False, missing_left=False), lambda x: False),
}


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_split_by_categories_is_a_row_of_intervals(name: str) -> None:
    pieces, goes_left = CATEGORIES[name]
    expected = ["left" if goes_left(value) else "right" for value in VALUES.tolist()]
    assert ways(cut(stump(), {0: pieces})) == expected


def test_splits_by_random_sets_of_categories_agree_with_the_sets() -> None:
    rng = np.random.default_rng(0)
    x = np.append(np.arange(-2.0, 70.0), np.nan)
    for _ in range(20):
        codes = rng.choice(64, rng.integers(1, 40), replace=False).tolist()
        other, missing_left = (bool(rng.integers(2)) for _ in range(2))
        pieces = of_categories(dict.fromkeys(codes, not other), other=other, missing_left=missing_left)
        expected = [
            "left" if (missing_left if np.isnan(value) else (value in codes) != other) else "right" for value in x
        ]
        assert ways(cut(stump(), {0: pieces}), x) == expected


def test_a_library_of_float32_rounds_before_it_compares() -> None:
    tree = stump(threshold=float(np.float32(0.1)))
    x = np.array([[0.1], [np.nextafter(np.float32(0.1), 1).astype(float)]])
    assert float(np.float32(0.1)) > 0.1
    between = np.array([[before(float(np.float32(0.1)))], [np.nextafter(float(np.float32(0.1)), 1.0)]])
    assert answers(Forest([tree], np.zeros(1)), between)[:, 0].tolist() == [1.0, 1.0]
    assert answers(Forest([tree], np.zeros(1), is_single=False), between)[:, 0].tolist() == [1.0, 2.0]
    assert answers(Forest([tree], np.zeros(1)), x, is_double=False)[:, 0].tolist() == [1.0, 2.0]


def test_a_large_base_costs_no_digits() -> None:
    trees = [stump(left=1e6 + 0.25, right=1e6 + 0.5)] * 3
    found = answers(Forest(trees, np.array([1e8])), np.array([[-1.0], [1.0]]))
    np.testing.assert_allclose(found[:, 0], [103_000_000.75, 103_000_001.5], atol=1e-6)


def test_a_library_that_adds_in_float32_rounds_after_every_tree() -> None:
    values = np.float32(np.random.default_rng(0).normal(size=500))
    trees = [stump(left=float(value), right=0.0, threshold=before(1.0)) for value in values]
    total = np.float32(4321.0)
    for value in values:
        total += value
    assert float(total) != 4321.0 + float(values.astype(np.float64).sum())
    forest = Forest(trees, np.array([4321.0]), adds_single=True)
    x = np.array([[0.0], [before(1.0)], [1.0]])  # in float32, which such a library takes, the second is 1
    assert answers(forest, x)[:, 0].tolist() == [float(total), 4321.0, 4321.0]


def test_links_turn_scores_into_answers() -> None:
    x = np.array([[-1.0], [1.0]])
    one = [stump(left=-0.5, right=2.0)]
    expected = {
        "identity": [[-0.5], [2.0]],
        "exp": [[np.exp(-0.5)], [np.exp(2.0)]],
        "sigmoid": [[1 / (1 + np.exp(1.0))], [1 / (1 + np.exp(-4.0))]],
        "binary": [[1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(1.0))], [1 / (1 + np.exp(4.0)), 1 / (1 + np.exp(-4.0))]],
        "signed square": [[-0.25], [4.0]],
    }
    for link, wanted in expected.items():
        slope = 2.0 if link in ("sigmoid", "binary") else 1.0
        np.testing.assert_allclose(answers(Forest(one, np.zeros(1), link, slope), x), wanted, atol=1e-6)  # type: ignore[arg-type]


def test_scores_of_several_classes_add_up_by_class_and_leaves_of_zeros_stay() -> None:
    wide = [
        Tree(t.feature, t.threshold, t.left, t.right, t.missing_left, np.pad(t.value, ((0, 0), (at, 2 - at))))
        for at, t in enumerate([stump(left=0.0, right=1.0), stump(left=3.0, right=0.0), stump(left=1.0, right=2.0)])
    ]
    found = answers(Forest(wide, np.array([0.0, 0.0, 1.0])), np.array([[-1.0], [1.0]]))
    np.testing.assert_allclose(found, [[0.0, 3.0, 2.0], [1.0, 0.0, 3.0]], atol=1e-6)
