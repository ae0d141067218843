"""The number of threads is measured, and the model is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_jupyter.stages.train import threads
from lepton_jupyter.stages.train.feed import Feed
from lepton_jupyter.stages.train.threads import are_alike, settle_threads


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads to begin with, and no step so small that it is not measured."""
    monkeypatch.setattr(threads, "SMALL_STEP", 0)
    monkeypatch.setattr(threads, "_others_s", lambda: 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def settle(monkeypatch: pytest.MonkeyPatch, *, one: float, two: float) -> int:
    """Settle with a clock that says how long a step takes."""
    monkeypatch.setattr(threads, "_seconds", lambda step: (step(), two if torch.get_num_threads() == 2 else one)[1])
    monkeypatch.setattr(threads, "MEASURE_S", 0.001)
    settle_threads(nn.Linear(3, 2), Feed(("features",)), (torch.zeros(4, 3),), batch_size=8)
    return torch.get_num_threads()


@pytest.mark.parametrize(
    ("one", "two", "wanted"),
    [(0.0005, 0.0001, 1), (0.1, 0.05, 2), (0.1, 0.095, 1), (0.1, 0.2, 1), (3.0, 2.0, 2)],
    ids=["short", "faster", "hardly faster", "slower", "very long"],
)
def test_several_threads_are_taken_where_they_pay(
    monkeypatch: pytest.MonkeyPatch, one: float, two: float, wanted: int
) -> None:
    assert settle(monkeypatch, one=one, two=two) == wanted


@pytest.mark.parametrize(("one", "wanted"), [(0.02, 2), (0.002, 1)], ids=["long", "short"])
def test_on_a_busy_machine_a_long_step_takes_all_threads(
    monkeypatch: pytest.MonkeyPatch, one: float, wanted: int
) -> None:
    counter = iter(range(0, 1_000_000, 1000))
    monkeypatch.setattr(threads, "_others_s", lambda: float(next(counter)))
    assert settle(monkeypatch, one=one, two=one) == wanted


def test_a_small_step_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SMALL_STEP", 1000)
    monkeypatch.setattr(threads, "_seconds", lambda step: pytest.fail("it was measured"))
    settle_threads(nn.Linear(3, 2), Feed(("features",)), (torch.zeros(4, 3),), batch_size=8)
    assert torch.get_num_threads() == 1


def test_measuring_changes_neither_weights_nor_random_numbers() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + float(np.random.normal()))

    module = nn.Sequential(Noisy(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.manual_seed(5)
    np.random.seed(5)
    wanted = float(torch.rand(1)), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    settle_threads(module, Feed(("features",)), (torch.ones(4, 3),), batch_size=8)
    assert (float(torch.rand(1)), np.random.rand()) == wanted
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not module.training


def test_a_model_that_cannot_be_copied_goes_by_its_size() -> None:
    class Uncopied(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("not me")

    settle_threads(Uncopied(3, 2), Feed(("features",)), (torch.zeros(4, 3),), batch_size=8)
    assert torch.get_num_threads() == 1


def test_gradients_that_differ_with_the_threads_are_told_from_those_that_do_not() -> None:
    layer, x = nn.Linear(30, 20), torch.randn(64, 30)
    assert are_alike(layer, lambda twin: twin(x).sum(), 2)
    assert not are_alike(layer, lambda twin: twin(x).sum() * torch.get_num_threads(), 2)
    assert not are_alike(layer, lambda twin: twin(x[:, 1:]).sum(), 2)
    assert torch.get_num_threads() == 2 and layer.weight.grad is None
