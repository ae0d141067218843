"""What is wrong is named by the first batch, before the first epoch."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.spec import Train


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Softmaxed(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.layer(x), dim=1)


class Sigmoided(nn.Module):
    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Squeezed(Sigmoided):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).squeeze(1)


class ByHand(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positive = self.layer(x).exp()
        return positive / positive.sum(1, keepdim=True)


class WrongShape(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).repeat(1, 3)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(31, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class NoTensor(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return "nothing"


def second_line(function: Any) -> int:
    return inspect.getsourcelines(function)[1] + 1


def failing(
    session: Any, model: Any, dataset: Dataset, *, names: dict[str, Any] | None = None, **flags: Any
) -> LeptonError:
    spec = Train(model=getattr(model, "__name__", "model"), data=dataset.ref, epochs=1, **flags)
    with pytest.raises(LeptonError) as caught:
        train(session, model, dataset, spec, names=names)
    assert not (session.folder / "bundle").exists()
    assert session.metrics == []
    return caught.value


def test_a_model_that_ends_in_softmax_is_refused_with_the_line_to_change(session: Any, two_blobs: Dataset) -> None:
    error = failing(session, Softmaxed, two_blobs)
    assert error.message == "'Softmaxed' ends in softmax: its outputs are probabilities, and logits are wanted."
    assert f"line {second_line(Softmaxed.forward)} of test_first_batch.py" in error.hint
    assert "`return torch.softmax(self.layer(x), dim=1)`: return the value before softmax." in error.hint


def test_a_model_that_ends_in_sigmoid_is_refused_with_the_line_to_change(session: Any, two_blobs: Dataset) -> None:
    error = failing(session, Sigmoided, two_blobs)
    assert "ends in sigmoid" in error.message
    assert "nn.Sigmoid()" in error.hint


@pytest.mark.parametrize(("model", "word"), [(Squeezed, "sigmoid"), (ByHand, "softmax")])
def test_probabilities_are_seen_through_reshaping_and_by_their_sums(
    session: Any, two_blobs: Dataset, model: Any, word: str
) -> None:
    assert f"ends in {word}" in failing(session, model, two_blobs).message


def test_a_wrong_shape_names_the_shape_wanted_and_the_users_line(session: Any, two_blobs: Dataset) -> None:
    error = failing(session, WrongShape, two_blobs)
    assert "gives [36, 6] for 36 rows" in error.message
    assert "[36, 2] (a logit for each class) or [36, 1] (one logit) is wanted" in error.message
    place = f"forward, line {second_line(WrongShape.forward)} of test_first_batch.py"
    assert f"{place}: `return self.layer(x).repeat(1, 3)`" in error.message


def test_a_forward_that_returns_no_tensor_is_named(session: Any, two_blobs: Dataset) -> None:
    assert "forward of 'NoTensor' gives str" in failing(session, NoTensor, two_blobs).message


def test_an_error_in_forward_passes_as_the_users_own_with_what_was_given(session: Any, two_blobs: Dataset) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        train(session, Broken, two_blobs, Train(model="Broken", data="few"))
    assert any(frame.name == "forward" and frame.path.name == "test_first_batch.py" for frame in caught.traceback)
    assert any("float32 tensor [36, 3]" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(("loss", "instead"), [("bceloss", "BCEWithLogitsLoss"), ("NLLLoss", "CrossEntropyLoss")])
def test_a_loss_of_probabilities_is_refused_with_the_loss_to_use(
    session: Any, two_blobs: Dataset, loss: str, instead: str
) -> None:
    assert f"Use --loss {instead}" in failing(session, Net, two_blobs, loss=loss).hint


def test_a_loss_object_of_probabilities_is_refused_too(session: Any, two_blobs: Dataset) -> None:
    error = failing(session, Net, two_blobs, loss="mine", names={"loss": nn.BCELoss()})
    assert "BCELoss takes probabilities" in error.message


def test_a_loss_of_numbers_does_not_fit_classes(session: Any, two_blobs: Dataset) -> None:
    assert "MSELoss does not fit a binary task" in failing(session, Net, two_blobs, loss="mse").message


@pytest.mark.parametrize(
    ("flag", "value", "guess"),
    [
        ("optimizer", "adamv", "Adam"),
        ("loss", "CrosEntropyLoss", "CrossEntropyLoss"),
        ("lr_scheduler", "cosin", "cosine"),
    ],
)
def test_an_unknown_name_of_torch_brings_a_guess(
    session: Any, two_blobs: Dataset, flag: str, value: str, guess: str
) -> None:
    error = failing(session, Net, two_blobs, **{flag: value})
    assert f"'{value}'" in error.message
    assert "Known: " in error.message
    assert f"Did you mean '{guess}" in error.message


def test_flags_of_a_regression_mean_nothing_for_classes(session: Any, two_blobs: Dataset) -> None:
    assert "--scale-target means nothing" in failing(session, Net, two_blobs, scale_target=True).message


def test_a_factory_of_something_else_is_named(session: Any, two_blobs: Dataset) -> None:
    def factory(n_features: int) -> Any:
        return {"n": n_features}

    assert "'factory' gives a dict, not a torch.nn.Module" in failing(session, factory, two_blobs).message


def test_something_that_is_no_model_is_named(session: Any, two_blobs: Dataset) -> None:
    assert "'model' is a int, which is no model" in failing(session, 3, two_blobs).message


def test_text_columns_with_preprocess_none_are_named(session: Any, penguins: Dataset) -> None:
    assert "island, sex" in failing(session, Net, penguins, preprocess="none").message


def test_a_dataset_without_a_target_is_refused(session: Any, make_dataset: Any) -> None:
    dataset = make_dataset({"a": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}, split="none")
    assert "has no target column" in failing(session, Net, dataset).message
