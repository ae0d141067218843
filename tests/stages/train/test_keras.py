"""Keras: what is refused before anything is written. What is taken over is among the families."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.saving import save
from lepton_jupyter.stages.train.spec import Train

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

X = np.zeros((5, 3), np.float32)


def saved(model: Any, folder: Path) -> None:
    save(model=model, name="mine", run_id="abc", folder=folder / "bundle", dataset=None, example=X)


def test_training_is_left_to_its_own_fit(session: Any, two_blobs: Dataset) -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(LeptonError, match="'model' is a Keras model, which is trained by a fit of its own"):
        train(session, model, two_blobs, Train(model="model", data=two_blobs.ref))


def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match="'mine' is not built yet"):
        saved(keras.Sequential([keras.layers.Dense(2)]), tmp_path)


def test_a_model_that_ends_in_probabilities_is_refused(tmp_path: Path) -> None:
    layers = [keras.layers.Input((3,)), keras.layers.Dense(3, activation="softmax")]
    with pytest.raises(LeptonError, match="'mine' ends in softmax: its outputs are probabilities"):
        saved(keras.Sequential(layers), tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_another_backend_is_refused_with_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")  # jax itself is 350 MB
    with pytest.raises(LeptonError, match="on the backend 'jax'; only models on torch"):
        saved(model, tmp_path)
