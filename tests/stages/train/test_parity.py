from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.stages.train.parity import UNSEEN, Probe, check_parity, planted_probes

SCHEMA = Schema(
    columns=(Column(name="a", kind="number"), Column(name="b", kind="number"), Column(name="t", kind="string"))
)


def graph(kind: str) -> bytes:
    """A graph of num [N, 2]: its rows' sum, or that over the batch's sum."""
    nodes = [helper.make_node("ReduceSum", ["num", "axis"], ["sum"], keepdims=1)]
    if kind == "mixing":
        nodes += [
            helper.make_node("ReduceSum", ["sum"], ["all"]),
            helper.make_node("Div", ["sum", "all"], ["prediction"]),
        ]
    else:
        nodes += [helper.make_node("Identity", ["sum"], ["prediction"])]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("num", TensorProto.DOUBLE, ["N", 2])],
        [helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["N", 1])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model.SerializeToString()


def rows(n: int = 10) -> Packed:
    return Packed(np.arange(2.0 * n).reshape(n, 2) + 1, np.full((n, 1), "x", dtype=object))


def total(given: Any) -> npt.NDArray[np.float64]:
    return given.num.sum(1, keepdims=True)


def real(given: Packed) -> Probe:
    return Probe(given, [f"row {place} of test" for place in range(given.n_rows)])


def test_equal_answers_are_equal() -> None:
    parity = check_parity(total, graph("sum"), [real(rows())])
    assert parity.is_equal and parity.worst == 0 and parity.rows == 10 + 10 + 64


def test_the_worst_row_is_named_with_both_answers() -> None:
    def live(given: Any) -> npt.NDArray[np.float64]:
        answers = total(given)
        answers[3] += 0.5
        return answers

    parity = check_parity(live, graph("sum"), [real(rows())])
    assert not parity.is_equal
    assert parity.message == (
        "The graph is off by 0.323 (at most 1e-05 is allowed) at row 3 of test: the live model says 15.5, the graph 15."
    )


def test_a_graph_whose_rows_depend_on_their_batch_is_caught() -> None:
    def live(given: Any) -> npt.NDArray[np.float64]:
        return total(given) / total(given).sum()

    parity = check_parity(live, graph("mixing"), [real(rows())])
    assert "alone" in parity.message


def test_a_number_where_the_model_says_nan_is_a_difference() -> None:
    def live(given: Any) -> npt.NDArray[np.float64]:
        return np.full((given.n_rows, 1), np.nan)

    assert "off by inf" in check_parity(live, graph("sum"), [real(rows())]).message
    missing = Packed(np.full((3, 2), np.nan), rows(3).txt)
    assert check_parity(live, graph("sum"), [real(missing)]).is_equal


def test_a_difference_is_measured_in_the_targets_deviation() -> None:
    def live(given: Any) -> npt.NDArray[np.float64]:
        return total(given) + 1e-3

    assert not check_parity(live, graph("sum"), [real(rows())]).is_equal
    assert check_parity(live, graph("sum"), [real(rows())], scale=np.array([1000.0])).is_equal


def test_a_large_answer_may_differ_by_the_last_bits_of_a_float32() -> None:
    def live(given: Any) -> npt.NDArray[np.float64]:
        return np.float32(total(given)).astype(np.float64)

    large = Packed(rows().num + 12_345_678.9, rows().txt)
    parity = check_parity(live, graph("sum"), [real(large)])
    assert parity.is_equal and 0 < parity.worst < 1e-6
    assert not check_parity(lambda given: 1.0001 * live(given), graph("sum"), [real(large)]).is_equal


def test_planted_rows_hold_holes_unseen_words_and_thresholds() -> None:
    probes = planted_probes(SCHEMA, rows(3), {"b": [2.5]})
    by_label = {probe.labels[0]: probe.rows for probe in probes}
    missing = by_label["a planted row with 'a' missing"]
    assert isinstance(missing, Packed) and np.isnan(missing.num[:, 0]).all() and not np.isnan(missing.num[:, 1]).any()
    unseen = by_label["a planted row with 't' never seen"]
    assert isinstance(unseen, Packed) and set(unseen.txt[:, 0]) == {UNSEEN}
    nothing = by_label["a planted row with nothing known"]
    assert isinstance(nothing, Packed) and np.isnan(nothing.num).all() and set(nothing.txt[:, 0]) == {SENTINEL}
    edge = probes[-1].rows
    assert isinstance(edge, Packed)
    below, at, above = edge.num[:, 1]
    assert at == 2.5 and np.float32(below) == np.nextafter(np.float32(2.5), np.float32(0)) and above > at


def test_what_the_live_model_refuses_is_only_passed_over_where_it_was_planted() -> None:
    def live(given: Any) -> npt.NDArray[np.float64]:
        if np.isnan(given.num).any():
            raise ValueError("Input contains NaN")
        return total(given)

    probes = [real(rows()), *planted_probes(SCHEMA, rows(), {})]
    assert check_parity(live, graph("sum"), probes).is_equal
