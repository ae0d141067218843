"""The contract of every framework that is registered: a new one is tested by being listed, with a model to show."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jupyter.stages.deploy.scoring import LoadedModel
from lepton_jupyter.stages.train.frameworks.registry import FRAMEWORKS, framework_of, load_framework
from lepton_jupyter.stages.train.saving import save

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


def _torch() -> tuple[Any, np.ndarray]:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    return model, model(torch.from_numpy(X)).detach().numpy()[:, 0]


def _sklearn() -> tuple[Any, np.ndarray]:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(X, X @ np.array([1.0, 2.0, 3.0]))
    return model, model.predict(X)


def _boosted(package: str, kind: str) -> tuple[Any, np.ndarray]:
    model = getattr(pytest.importorskip(package), kind)(n_estimators=5).fit(X, X @ np.array([1.0, 2.0, 3.0]))
    return model, model.predict(X)


def _keras() -> tuple[Any, np.ndarray]:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    return model, model.predict(X, verbose=0)[:, 0]


SHOWN: dict[str, Callable[[], tuple[Any, np.ndarray]]] = {
    "keras": _keras,
    "torch": _torch,
    "sklearn": _sklearn,
    "xgboost": partial(_boosted, "xgboost", "XGBRegressor"),
    "lightgbm": partial(_boosted, "lightgbm", "LGBMRegressor"),
}


@pytest.mark.parametrize(("package", "place"), FRAMEWORKS, ids=[package for package, _ in FRAMEWORKS])
def test_a_registered_framework_recognises_its_models_and_ships_them_unchanged(
    package: str, place: str, tmp_path: Path
) -> None:
    model, expected = SHOWN[package]()
    framework = load_framework(place)
    assert framework.recognises(model)
    assert not framework.recognises("a text")
    assert framework_of(model, "shown").name == framework.name
    bundle = save(model=model, name="shown", run_id="0" * 12, folder=tmp_path, dataset=None, example=X)
    assert bundle.card.is_deployable, bundle.card.why_not
    loaded = LoadedModel(bundle)
    answer = loaded.predict([{f"x{place}": float(value) for place, value in enumerate(row)} for row in X])
    np.testing.assert_allclose(answer["prediction"].to_numpy(), expected, atol=1e-5)
    assert loaded.weights
