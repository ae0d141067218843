"""torch.compile is tried where there is time to earn it back, and what was decided is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from tests.stages.train.test_loop import fit
from tests.stages.train.test_resume import CutError, cut_at


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's own tracing stand for the whole compiler, which takes half a minute."""
    monkeypatch.setattr("lepton_jupyter.stages.train.compiling.BACKEND", "eager")
    monkeypatch.setattr("lepton_jupyter.stages.train.compiling.LEAST_LEFT_S", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.compiling.LEAST_GAIN", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.loop.N_SHOWING", 0)


def test_a_compiled_model_trains_as_it_would_uncompiled(new_session: Any, two_blobs: Dataset) -> None:
    session = new_session()
    compiled = fit(session, Net, two_blobs, epochs=4)
    assert session.notes["compiled"].startswith("yes: a step takes")
    plain = fit(new_session(), Net, two_blobs, epochs=4, compile="no")
    assert compiled.outcome.history["val_loss"] == pytest.approx(plain.outcome.history["val_loss"], rel=1e-4)


def test_a_run_that_goes_on_takes_the_decision_over(
    new_session: Any, two_blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lepton_jupyter.stages.train.strides.STRIDE_S", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.checkpoints.PAUSE_S", 0.0)
    monkeypatch.setattr("lepton_jupyter.stages.train.checkpoints.COST_SHARE", 1e9)
    monkeypatch.setattr("lepton_jupyter.stages.train.loop.PAUSE_S", 0.0)
    session = new_session()
    cut_at(session, 8)
    with pytest.raises(CutError):
        fit(session, Net, two_blobs, epochs=6)
    session.stop_when, session.notes["compiled"] = (lambda: False), "as before"
    fit(session, Net, two_blobs, epochs=6)
    assert session.notes["compiled"] == "as before"  # nothing was tried again


def test_a_short_training_is_not_compiled(session: Any, two_blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lepton_jupyter.stages.train.compiling.LEAST_LEFT_S", 600.0)
    fit(session, Net, two_blobs, epochs=2)
    assert session.notes["compiled"].startswith("no: the training takes")


def test_a_model_that_cannot_be_compiled_trains_on_unless_it_was_asked_for(
    new_session: Any, two_blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = new_session()
    monkeypatch.setattr("lepton_jupyter.stages.train.compiling.BACKEND", "no such backend")
    fitted = fit(session, Net, two_blobs, epochs=2)
    assert fitted.outcome.epochs == 2 and session.notes["compiled"].startswith("no: it cannot be compiled")
    with pytest.raises(LeptonError, match="--compile yes: the model cannot be compiled"):
        fit(new_session(), Net, two_blobs, epochs=2, compile="yes")
