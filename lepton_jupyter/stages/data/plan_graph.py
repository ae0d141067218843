"""A plan as an ONNX graph: packed columns in, features out, equal to `plan.apply_plan`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lepton_jupyter.formats.schema import SENTINEL, Schema
from lepton_jupyter.stages.data.plan import (
    CodeStep,
    LevelsStep,
    MissingStep,
    NumberStep,
    OneHotStep,
    OrdinalStep,
    Plan,
    Step,
    ordinal_table,
)

IR_VERSION = 10  # what torch's exporter writes with opset 20
ML_OPSET = 3


class _Graph:
    """Nodes and constants as they come, with names of their own."""

    def __init__(self, schema: Schema, kind: int) -> None:
        self.kind = kind
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.num = {column.name: place for place, column in enumerate(schema.num)}
        self.txt = {column.name: place for place, column in enumerate(schema.categorical)}

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"plan_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, array: NDArray[Any]) -> str:
        name = f"plan_c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def numbers(self, columns: Sequence[str]) -> str:
        """Return ``num``'s columns: double [N, len(columns)]."""
        places = np.array([self.num[column] for column in columns], np.int64)
        if list(places) == list(range(len(self.num))):
            return "num"
        return self.add("Gather", "num", self.constant(places), axis=1)

    def text(self, column: str) -> str:
        """Return one column of ``txt``: string [N, 1]."""
        return self.add("Gather", "txt", self.constant(np.array([self.txt[column]], np.int64)), axis=1)

    def fill(self, values: str, fills: Sequence[float | None]) -> str:
        """Return the values with NaN replaced where a fill is said."""
        if all(fill is None for fill in fills):
            return values
        row = np.array([[np.nan if fill is None else fill for fill in fills]], np.float64)
        return self.add("Where", self.add("IsNaN", values), self.constant(row), values)

    def scale(self, values: str, centers: Sequence[float], scales: Sequence[float]) -> str:
        """Return ``(values - center) / scale`` in double."""
        if any(centers):
            values = self.add("Sub", values, self.constant(np.array([centers], np.float64)))
        if any(scale != 1.0 for scale in scales):
            values = self.add("Div", values, self.constant(np.array([scales], np.float64)))
        return values

    def codes(self, column: str, categories: Sequence[str], places: Sequence[int], missing: int, other: int) -> str:
        """Return the place of each text: int64 [N, 1]."""
        return self.add(
            "LabelEncoder",
            self.text(column),
            domain="ai.onnx.ml",
            keys_strings=[*categories, SENTINEL],
            values_int64s=[*places, missing],
            default_int64=other,
        )

    def cast(self, values: str, kind: int) -> str:
        return self.add("Cast", values, to=kind)

    def feature(self, values: str) -> str:
        """Return computed values as a feature: float32, or double as they are."""
        return values if self.kind == TensorProto.DOUBLE else self.cast(values, self.kind)


def plan_graph(plan: Plan, schema: Schema, *, opset: int, is_double: bool = False) -> onnx.ModelProto:
    """Return the plan as a model.

    Parameters
    ----------
    plan : Plan
    schema : Schema
        Says which place each column has in the inputs.
    opset : int
        Of the default domain, 13 or later; ``ai.onnx.ml`` is 3, the IR version 10.
    is_double : bool
        Whether features stay float64: for a model that is given the table's own columns, never rounded.

    Returns
    -------
    onnx.ModelProto
        Inputs ``num`` double [N, k], ``txt`` string [N, m] of the categories and ``tokens`` int64 [N, n, T] of the
        prose (each absent where there are no such columns); outputs ``numeric`` float32 (or double) [N, Fn] and, where
        there are such, ``codes`` int64 [N, Fc] and ``prose`` int64 [N, T], or [N, n, T] of several columns.
    """
    kind = TensorProto.DOUBLE if is_double else TensorProto.FLOAT
    graph = _Graph(schema, kind)
    numeric = [_numeric(graph, step, list(steps)) for step, steps in groupby(plan.steps, type) if step is not CodeStep]
    if numeric:
        _join(graph, numeric, "numeric")
    else:  # a model of codes only still names its numeric input: [N, 0]
        source = "num" if schema.num else "txt" if schema.categorical else "tokens"
        n = graph.add("Gather", graph.add("Shape", source), graph.constant(np.array([0], np.int64)), axis=0)
        shape = graph.add("Concat", n, graph.constant(np.array([0], np.int64)), axis=0)
        nothing = helper.make_tensor("nothing", kind, [1], [0.0])
        made_empty = helper.make_node("ConstantOfShape", [shape], ["numeric"], name="plan_numeric", value=nothing)
        graph.nodes.append(made_empty)
    codes = [_embedding_codes(graph, step) for step in plan.steps if isinstance(step, CodeStep)]
    outputs = [helper.make_tensor_value_info("numeric", kind, ["N", plan.n_features])]
    if codes:
        _join(graph, codes, "codes")
        outputs.append(helper.make_tensor_value_info("codes", TensorProto.INT64, ["N", len(codes)]))
    inputs = []
    if schema.num:
        inputs.append(helper.make_tensor_value_info("num", TensorProto.DOUBLE, ["N", len(schema.num)]))
    if schema.categorical:
        inputs.append(helper.make_tensor_value_info("txt", TensorProto.STRING, ["N", len(schema.categorical)]))
    if schema.prose:
        shape_of_text = _add_prose(graph, schema)
        inputs.append(
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", len(schema.prose), schema.max_tokens])
        )
        outputs.append(helper.make_tensor_value_info("prose", TensorProto.INT64, shape_of_text))
    made = helper.make_graph(graph.nodes, "plan", inputs, outputs, initializer=graph.constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(made, opset_imports=opsets, producer_name="lepton_jupyter")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _add_prose(graph: _Graph, schema: Schema) -> list[str | int | None]:
    """Give the tokens on, those of one column alone without a dimension for it; return their shape."""
    if len(schema.prose) > 1:
        graph.nodes.append(helper.make_node("Identity", ["tokens"], ["prose"], name="plan_prose"))
        return ["N", len(schema.prose), schema.max_tokens]
    axis = graph.constant(np.array([1], np.int64))
    graph.nodes.append(helper.make_node("Squeeze", ["tokens", axis], ["prose"], name="plan_prose"))
    return ["N", schema.max_tokens]


def _join(graph: _Graph, parts: list[str], name: str) -> None:
    one = helper.make_node("Identity", parts, [name], name=f"plan_{name}") if len(parts) == 1 else None
    graph.nodes.append(one or helper.make_node("Concat", parts, [name], name=f"plan_{name}", axis=1))


def _numeric(graph: _Graph, kind: type, steps: list[Any]) -> str:
    """Return the features of neighbouring steps of one kind: float [N, width]."""
    if kind is NumberStep:
        return _numbers(graph, steps)
    if kind is MissingStep:
        missing = graph.add("IsNaN", graph.numbers([step.column for step in steps]))
        values = graph.cast(missing, TensorProto.DOUBLE)
        scaled = graph.scale(values, [step.center for step in steps], [step.scale for step in steps])
        return graph.feature(scaled)
    parts = [_one(graph, step) for step in steps]
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _one(graph: _Graph, step: Step) -> str:
    if isinstance(step, LevelsStep):
        return _levels(graph, step)
    if isinstance(step, OneHotStep):
        return _onehot(graph, step)
    if isinstance(step, OrdinalStep):
        return _ordinal(graph, step)
    raise TypeError(type(step).__name__)


def _numbers(graph: _Graph, steps: list[NumberStep]) -> str:
    values = graph.fill(graph.numbers([step.column for step in steps]), [step.fill for step in steps])
    scaled = graph.scale(values, [step.center for step in steps], [step.scale for step in steps])
    if any(step.factor != 1.0 or step.shift for step in steps):
        scaled = graph.add("Mul", scaled, graph.constant(np.array([[step.factor for step in steps]])))
        scaled = graph.add("Add", scaled, graph.constant(np.array([[step.shift for step in steps]])))
    return graph.feature(scaled)


def _levels(graph: _Graph, step: LevelsStep) -> str:
    values = graph.fill(graph.numbers([step.column]), [step.fill])
    parts = [
        graph.add("IsNaN", values)
        if level is None
        else graph.add("Equal", values, graph.constant(np.array([[level]], np.float64)))
        for level in step.levels
    ]
    cast = [graph.cast(part, graph.kind) for part in parts]
    return cast[0] if len(cast) == 1 else graph.add("Concat", *cast, axis=1)


def _onehot(graph: _Graph, step: OneHotStep) -> str:
    # OneHot reads a negative index from the end, so 'no feature' is an index behind the last one
    codes = graph.codes(step.column, step.categories, step.places, step.missing, step.other)
    flat = graph.add("Squeeze", codes, graph.constant(np.array([1], np.int64)))
    depth = graph.constant(np.array([step.width], np.int64))
    found = graph.add("OneHot", flat, depth, graph.constant(np.array([0.0, 1.0], np.float32)), axis=-1)
    return found if graph.kind == TensorProto.FLOAT else graph.cast(found, graph.kind)


def _ordinal(graph: _Graph, step: OrdinalStep) -> str:
    n = len(step.categories)
    codes = graph.codes(step.column, step.categories, range(n), n, n + 1)
    values = graph.add("Gather", graph.constant(ordinal_table(step)), codes, axis=0)
    scaled = graph.scale(graph.fill(values, [step.fill]), [step.center], [step.scale])
    return graph.feature(scaled)


def _embedding_codes(graph: _Graph, step: Step) -> str:
    if not isinstance(step, CodeStep):
        raise TypeError(type(step).__name__)
    n = len(step.categories)
    return graph.codes(step.column, step.categories, range(n), n, n + 1)
