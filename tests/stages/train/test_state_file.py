"""A training's state as one file."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.state_file import read_state, write_state


@pytest.mark.parametrize("name", ["Adam", "SGD", "LBFGS", "RMSprop", "Adagrad"])
def test_an_optimizers_state_comes_back_to_the_last_bit(tmp_path: Path, name: str) -> None:
    module = nn.Linear(3, 2)
    optimizer = getattr(torch.optim, name)(module.parameters(), lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = module(torch.ones(4, 3)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    write_state(tmp_path / "s", {"optimizer": optimizer.state_dict(), "step": (1, 2.5)})
    found = read_state(tmp_path / "s")
    assert found["step"] == (1, 2.5)
    again = getattr(torch.optim, name)(nn.Linear(3, 2).parameters(), lr=0.1)
    again.load_state_dict(found["optimizer"])
    assert str(again.state_dict()) == str(optimizer.state_dict())


def test_random_states_come_back(tmp_path: Path) -> None:
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    write_state(tmp_path / "s", state)
    expected = (random.random(), np.random.random(), torch.rand(1))
    found = read_state(tmp_path / "s")
    random.setstate(found["python"])
    np.random.set_state(found["numpy"])
    torch.set_rng_state(found["torch"])
    assert (random.random(), np.random.random(), torch.rand(1)) == expected


def test_what_cannot_be_kept_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(LeptonError, match=r"state\.nets\.0: it is a Linear"):
        write_state(tmp_path / "s", {"nets": [nn.Linear(1, 1)]})
    assert not (tmp_path / "s").exists()
