"""Predictions as columns of a profile: what a version says of known rows, against which its answers are held."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import Column, Schema

PREDICTION = "(prediction)"  # in brackets: a column of the data may be called prediction


def schema_of_predictions(schema: Schema) -> Schema:
    """Return the columns that predictions make: a text of classes, or one number a target."""
    if is_classes(schema):
        return Schema(columns=(Column(name=PREDICTION, kind="string"),))
    names = [f"(prediction of {target})" for target in schema.targets] if len(schema.targets) > 1 else [PREDICTION]
    return Schema(columns=tuple(Column(name=name, kind="number") for name in names))


def pack_predictions(schema: Schema, predictions: NDArray[Any]) -> Packed:
    """Pack predictions: labels as text [N], or numbers [N, T]."""
    n_rows = len(predictions)
    if is_classes(schema):
        return Packed(np.empty((n_rows, 0)), np.asarray(predictions, dtype=object).reshape(n_rows, 1))
    width = len(schema_of_predictions(schema).columns)
    numbers = np.asarray(predictions, dtype=np.float64).reshape(n_rows, width)
    return Packed(numbers, np.empty((n_rows, 0), dtype=object))


def decide(schema: Schema, probability: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of the predicted class, int64 [N], for probabilities [N, K].

    Of a binary task the positive class, where its probability reaches the schema's threshold; else the most probable.
    """
    if len(schema.classes) != 2:
        return probability.argmax(axis=1)
    positive = schema.positive_index
    reaches = is_positive(probability[:, positive], schema.threshold)
    return np.where(reaches, positive, 1 - positive).astype(np.int64)


def is_positive(probability: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Return whether probabilities reach a threshold: as float32, in which graphs give them, wherever that is asked."""
    return np.asarray(probability, np.float32) >= np.float32(threshold)


def is_classes(schema: Schema) -> bool:
    """Whether the model predicts classes."""
    return bool(schema.classes)
