"""Schedules of the learning rate, compared with torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.optimizers import make_optimizer
from lepton_jupyter.stages.train.schedules import Schedule, make_schedule
from lepton_jupyter.stages.train.state_file import read_state, write_state
from lepton_jupyter.stages.train.torch_names import SCHEDULERS

SOFTMAX, SIGMOID = Head("softmax", 2, positive_index=1), Head("sigmoid", 2, positive_index=1)


def rates(schedule: Schedule, optimizer: torch.optim.Optimizer, *, epochs: int, n_steps: int) -> list[float]:
    """Return the rate of every step."""
    found = []
    for _ in range(epochs):
        for _ in range(n_steps):
            found.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            if schedule.is_per_step:
                schedule.step()
        schedule.epoch(1.0)
    return found


def test_cosine_goes_down_step_by_step_from_the_rate_to_nothing(job: Callable[..., Job]) -> None:
    one = job(lr=0.4, epochs=3)
    optimizer = make_optimizer(one, nn.Linear(2, 2))
    found = rates(make_schedule(one, optimizer, 4), optimizer, epochs=3, n_steps=4)
    assert found == pytest.approx([0.2 * (1 + math.cos(math.pi * step / 12)) for step in range(12)])
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0)


@pytest.mark.parametrize("word", ["cosine", "constant", "step", "exponential", "plateau"])
def test_a_warm_up_rises_in_a_straight_line_before_any_schedule(job: Callable[..., Job], word: str) -> None:
    one = job(lr=1.0, epochs=4, lr_scheduler=word, warmup=0.25)
    optimizer = make_optimizer(one, nn.Linear(2, 2))
    found = rates(make_schedule(one, optimizer, 8), optimizer, epochs=4, n_steps=8)
    assert found[:8] == pytest.approx([(step + 1) / 8 for step in range(8)])
    assert found[8] <= 1.0


def test_a_warm_up_leaves_torchs_schedule_where_it_would_be_without(job: Callable[..., Job]) -> None:
    after = []
    for warmup in (0.0, 0.3):  # until the middle of the second epoch of four
        one = job(lr=1.0, epochs=4, lr_scheduler="exponential", warmup=warmup)
        optimizer = make_optimizer(one, nn.Linear(2, 2))
        after.append(rates(make_schedule(one, optimizer, 5), optimizer, epochs=4, n_steps=5)[6:])
    assert after[0] == pytest.approx(after[1])


@pytest.mark.parametrize(("warmup", "share"), [(0.0, 0.3), (0.5, 0.5)])
def test_one_cycle_is_torchs_step_by_step(job: Callable[..., Job], warmup: float, share: float) -> None:
    one = job(lr=0.1, epochs=5, lr_scheduler="one-cycle", warmup=warmup)
    optimizer = make_optimizer(one, nn.Linear(2, 2))
    found = rates(make_schedule(one, optimizer, 7), optimizer, epochs=5, n_steps=7)
    plain = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=0.1)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        plain, max_lr=0.1, total_steps=35, pct_start=share, cycle_momentum=False
    )
    wanted = []
    for _ in range(35):
        wanted.append(plain.param_groups[0]["lr"])
        plain.step()
        torchs.step()
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("word", ["cosine", "one-cycle", "constant"])
@pytest.mark.parametrize("n_steps", [1, 2, None])
def test_a_schedule_of_very_few_steps_stays_between_nothing_and_the_rate(
    job: Callable[..., Job], word: str, n_steps: int | None
) -> None:
    one = job(lr=1.0, epochs=2, lr_scheduler=word, warmup=0.4)
    optimizer = make_optimizer(one, nn.Linear(2, 2))
    schedule = make_schedule(one, optimizer, n_steps)
    assert schedule.is_per_step == (n_steps is not None)
    assert all(0 <= rate <= 1 for rate in rates(schedule, optimizer, epochs=3, n_steps=n_steps or 2))


def test_plateau_follows_the_metric_in_its_own_direction(job: Callable[..., Job]) -> None:
    for metric, values, is_lowered in [
        ("val_loss", [3, 2, 1, 0.5], False),
        ("val_loss", [1, 2, 3, 4], True),
        ("val_accuracy", [0.1, 0.2, 0.3, 0.4], False),
        ("val_accuracy", [0.4, 0.3, 0.2, 0.1], True),
    ]:
        one = job(lr=1.0, epochs=4, lr_scheduler="plateau", metric=metric)
        optimizer = make_optimizer(one, nn.Linear(2, 2))
        schedule = make_schedule(one, optimizer, 3)
        for value in values:
            optimizer.step()
            schedule.epoch(value)
        assert (optimizer.param_groups[0]["lr"] < 1) == is_lowered, metric


@pytest.mark.parametrize("word", sorted([*(value.__name__ for value in SCHEDULERS.values()), "cosine", "one-cycle"]))
def test_every_schedule_goes_on_from_a_file_as_if_it_had_not_been_interrupted(
    job: Callable[..., Job], word: str, tmp_path: Path
) -> None:
    def at_work() -> tuple[torch.optim.Optimizer, Schedule]:
        one = job(lr=0.1, epochs=8, lr_scheduler=word, warmup=0.2, optimizer="sgd", optimizer_args={"momentum": 0.5})
        optimizer = make_optimizer(one, nn.Linear(2, 2))
        return optimizer, make_schedule(one, optimizer, 5)

    optimizer, schedule = at_work()
    before = rates(schedule, optimizer, epochs=8, n_steps=5)
    optimizer, schedule = at_work()
    rates(schedule, optimizer, epochs=3, n_steps=5)
    write_state(tmp_path / "state", {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})
    state = read_state(tmp_path / "state")
    optimizer, schedule = at_work()
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    optimizer.step()  # as torch's schedules want it said
    assert rates(schedule, optimizer, epochs=5, n_steps=5) == before[15:]


def test_a_schedule_of_the_notebook_must_be_one(job: Callable[..., Job]) -> None:
    one = job(lr_scheduler="mine", names={"lr_scheduler": lambda optimizer: 3})
    with pytest.raises(LeptonError, match="'mine' gave a int, not a schedule"):
        make_schedule(one, make_optimizer(one, nn.Linear(2, 2)), 5)
