"""A graph of our own: from features through raw scores in float64 to answers."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_jupyter.stages.train.graph import IR_VERSION, OPSET, OPSET_ML

# N rows, F features, T raw scores

Link: TypeAlias = Literal["identity", "exp", "sigmoid", "binary", "softmax", "signed square"]


class ScoreGraph:
    """Nodes and float64 constants as they come, with names of their own.

    Parameters
    ----------
    n_features : int
        F.
    is_double : bool
        Whether the input ``features`` [N, F] is float64; else float32.
    """

    def __init__(self, n_features: int, *, is_double: bool) -> None:
        self.is_double = is_double
        self._n_features = n_features
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def singles(self) -> str:
        """Return the features in float32."""
        return self.add("Cast", "features", to=TensorProto.FLOAT) if self.is_double else "features"

    def doubles(self, *, is_single: bool = False) -> str:
        """Return the features in float64; `is_single`: after they were rounded to float32."""
        values = self.singles() if is_single else "features"
        return self.add("Cast", values, to=TensorProto.DOUBLE) if is_single or not self.is_double else values

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        name = f"score_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Add a float64 constant, and return its name."""
        name = f"score_c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, np.float64), name))
        return name

    def finish(self, raw: str, n_scores: int, *, link: Link, slope: float = 1.0) -> onnx.ModelProto:
        """Return the model.

        Parameters
        ----------
        raw : str
            Raw scores, double [N, T].
        n_scores : int
            T.
        link : str
            ``binary`` gives both classes of one score's sigmoid; the others keep the width.
        slope : float
            What the scores are multiplied by first.

        Returns
        -------
        onnx.ModelProto
            Its output ``answers`` is float64 [N, T], or [N, 2] of the link ``binary``.
        """
        answers = self._linked(raw if slope == 1.0 else self.add("Mul", raw, self.constant(slope)), link)
        self._nodes.append(helper.make_node("Identity", [answers], ["answers"], name="score_answers"))
        kind = TensorProto.DOUBLE if self.is_double else TensorProto.FLOAT
        width = 2 if link == "binary" else n_scores
        made = helper.make_graph(
            self._nodes,
            "scores",
            [helper.make_tensor_value_info("features", kind, ["N", self._n_features])],
            [helper.make_tensor_value_info("answers", TensorProto.DOUBLE, ["N", width])],
            initializer=self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
        model = helper.make_model(made, opset_imports=opsets)
        model.ir_version = IR_VERSION
        return model

    def _linked(self, raw: str, link: Link) -> str:
        if link == "binary":
            positive = self.add("Sigmoid", raw)
            return self.add("Concat", self.add("Sub", self.constant(1.0), positive), positive, axis=1)
        if link == "signed square":
            return self.add("Mul", raw, self.add("Abs", raw))
        if link == "softmax":
            return self.add("Softmax", raw, axis=1)
        return self.add({"identity": "Identity", "exp": "Exp", "sigmoid": "Sigmoid"}[link], raw)
