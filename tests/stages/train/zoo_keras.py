"""Models of Keras on its torch backend, trained by their own fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lepton_jupyter.stages.data.store import Dataset
from tests.stages.train.families import Case


def trained(layers: Callable[[Any, int], list[Any]], dataset: Dataset) -> Any:
    """Return a model trained a little on the raw rows; its answers are logits or numbers."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    keras.utils.set_random_seed(0)
    schema = dataset.schema
    rows: Any = dataset.tensors("train") if schema.tensor_shape is not None else dataset.packed("train").num
    x = np.ascontiguousarray(rows, dtype=np.float32)
    model = keras.Sequential([keras.layers.Input(x.shape[1:]), *layers(keras.layers, len(schema.classes) or 1)])
    loss = "mse" if schema.task == "regression" else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(x, dataset.targets("train"), epochs=2, batch_size=64, verbose=0)
    return model


def mlp(kind: Any, n_outputs: int) -> list[Any]:
    """Return layers with statistics and dropout, which must be off in an endpoint."""
    return [kind.BatchNormalization(), kind.Dense(16, activation="relu"), kind.Dropout(0.3), kind.Dense(n_outputs)]


def cnn(kind: Any, n_outputs: int) -> list[Any]:
    """Return layers over images, whose channels Keras has last."""
    return [
        kind.Reshape((8, 8, 1)),
        kind.Conv2D(8, 3, padding="same", activation="relu"),
        kind.MaxPooling2D(2),
        kind.Flatten(),
        kind.Dense(n_outputs),
    ]


def lstm(kind: Any, n_outputs: int) -> list[Any]:
    """Return layers that read an image row by row."""
    return [kind.Reshape((8, 8)), kind.LSTM(16), kind.Dense(n_outputs)]


def _case(name: str, data: str, layers: Callable[[Any, int], list[Any]]) -> Case:
    return Case(name, data, partial(trained, layers), needs="keras", is_saved=True)


CASES = (
    _case("Keras, MLP with BatchNormalization and Dropout", "tumours", mlp),
    _case("Keras, one number", "diabetes", mlp),
    _case("Keras, CNN", "digits", cnn),
    _case("Keras, LSTM", "digits", lstm),
)
