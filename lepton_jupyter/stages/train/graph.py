"""One ONNX graph from packed raw columns to outputs: joined, cleared of everything but the computation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from lepton_jupyter.stages.train.heads import Head

OPSET = 20  # what torch's exporter writes; the other graphs are brought to it
OPSET_ML = 3
IR_VERSION = 10
PREFIX = "model/"


def align(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model at our opsets and IR version. skl2onnx declares a domain twice."""
    versions: dict[str, int] = {}
    for found in model.opset_import:
        versions[found.domain] = max(found.version, versions.get(found.domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(versions.items()))
    if versions.get("", OPSET) != OPSET:
        model = version_converter.convert_version(model, OPSET)
    others = [found for found in model.opset_import if found.domain not in ("", "ai.onnx.ml")]
    ours = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML), *others]
    del model.opset_import[:]
    model.opset_import.extend(ours)
    model.ir_version = IR_VERSION
    return model


def join(plan: onnx.ModelProto, model: onnx.ModelProto, names: Iterable[tuple[str, str]]) -> onnx.ModelProto:
    """Return one graph: outputs of the plan flow into inputs of the model.

    Parameters
    ----------
    plan : ModelProto
        From ``num`` and ``txt`` to features.
    model : ModelProto
        From features to ``probability`` or ``prediction``.
    names : pairs of str
        Output of the plan, input of the model.
    """
    pairs = [(source, PREFIX + target) for source, target in names]
    outputs = [PREFIX + output.name for output in model.graph.output]
    model = align(model)
    _prefix(model.graph)
    plan = align(plan)
    joined = compose.merge_models(plan, model, io_map=pairs, outputs=outputs)
    return rename_outputs(joined, {name: name.removeprefix(PREFIX) for name in outputs})


def _prefix(graph: onnx.GraphProto) -> None:
    """Put `PREFIX` before every name of a graph.

    `onnx.compose.add_prefix` leaves out what a loop's body takes from around it, as in torch's EmbeddingBag.
    """
    for thing in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        thing.name = PREFIX + thing.name
    for sparse in graph.sparse_initializer:
        sparse.values.name = PREFIX + sparse.values.name
    for node in graph.node:
        node.name = PREFIX + node.name
        for names in (node.input, node.output):
            names[:] = [PREFIX + name if name else "" for name in names]  # an empty one is left out
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _prefix(inner)


def rename_outputs(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """Rename tensors that a graph gives out."""
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            node.output[place] = names.get(name, name)
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    for output in model.graph.output:
        output.name = names.get(output.name, output.name)
    return model


def add_head(model: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    """Append to a model with one raw output what `Head.decode` does; its output is then the graph's."""
    graph = model.graph
    raw = graph.output[0].name
    builder = _Tail(graph)
    if head.kind == "softmax":
        builder.node("Softmax", [raw], "probability", axis=1)
    elif head.kind == "sigmoid":
        column = builder.node("Reshape", [raw, builder.constant("column", np.array([-1, 1]))], "head_column")
        positive = builder.node("Sigmoid", [column], "head_positive")
        negative = builder.node("Sub", [builder.constant("one", np.ones(1, np.float32)), positive], "head_negative")
        parts = [negative, positive] if head.positive_index == 1 else [positive, negative]
        builder.node("Concat", parts, "probability", axis=1)
    else:
        shape = builder.constant("shape", np.array([-1, head.n_outputs]))
        value = builder.node("Reshape", [raw, shape], "head_reshaped")
        scale = np.array(head.scale or (1.0,) * head.n_outputs)
        offset = np.array(head.offset or (0.0,) * head.n_outputs)
        value = builder.node("Cast", [value], "head_double", to=TensorProto.DOUBLE)
        value = builder.node("Mul", [value, builder.constant("scale", scale)], "head_scaled")
        builder.node("Add", [value, builder.constant("offset", offset)], "prediction")
    set_output(model, "prediction" if head.kind == "identity" else "probability", head.n_outputs)
    return model


def add_classes(model: onnx.ModelProto, places: list[int], n_classes: int) -> onnx.ModelProto:
    """Make a classifier's probabilities the only output, in the order of all classes.

    Parameters
    ----------
    model : ModelProto
        Its last output: probabilities float32 or float64 [N, len(places)]. skl2onnx writes a label before them.
    places : list of int
        For each class that the estimator knows, its place among all.
    n_classes : int
    """
    builder = _Tail(model.graph)
    output = model.graph.output[-1]
    found = output.name
    if output.type.tensor_type.elem_type == TensorProto.DOUBLE:
        found = builder.node("Cast", [found], "head_single", to=TensorProto.FLOAT)
    if places == list(range(n_classes)):
        builder.node("Identity", [found], "probability")
    else:
        choose = np.zeros((len(places), n_classes), np.float32)
        choose[np.arange(len(places)), places] = 1.0
        builder.node("MatMul", [found, builder.constant("places", choose)], "probability")
    set_output(model, "probability", n_classes)
    _prune(model.graph)
    return model


def _prune(graph: onnx.GraphProto) -> None:
    """Remove nodes that lead to no output, such as those of a label."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [one for one in graph.initializer if one.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def set_output(model: onnx.ModelProto, name: str, width: int) -> None:
    """Make a tensor the only output: probabilities are float32 [N, K], predictions float64 [N, T]."""
    kind = TensorProto.FLOAT if name == "probability" else TensorProto.DOUBLE
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, kind, ["N", width]))


class _Tail:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph

    def constant(self, name: str, value: Any) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), "head_of_" + name))
        return "head_of_" + name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.graph.node.append(helper.make_node(kind, inputs, [output], name=output + "_node", **attributes))
        return output


def serialise(model: onnx.ModelProto) -> bytes:
    """Return the model's bytes: without paths, traces and names of tools; equal in every folder and process."""
    model.producer_name, model.producer_version, model.domain = "lepton_jupyter", "", ""
    model.doc_string = ""
    del model.metadata_props[:]
    _clear_graph(model.graph)
    model.graph.name = "model"
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        del function.value_info[:]
        _clear_nodes(function.node)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _clear_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]  # shapes of one export; onnxruntime infers them again
    for thing in (*graph.input, *graph.output, *graph.initializer):
        thing.doc_string = ""
        del thing.metadata_props[:]
    _clear_nodes(graph.node)


def _clear_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            attribute.doc_string = ""
            if attribute.type == onnx.AttributeProto.GRAPH:
                _clear_graph(attribute.g)
            for graph in attribute.graphs:
                _clear_graph(graph)
