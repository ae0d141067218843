"""One thread or all: what the steps show, and what is given up at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lepton_jupyter.stages.tune.pace import Pace


class Machine:
    """Steps that take so long on one thread and on two, by a clock of their own."""

    def __init__(self, one_s: float, two_s: float) -> None:
        self.now, self.took = 0.0, {1: one_s, 2: two_s}
        self.pace = Pace(2, lambda: self.now)
        self.used: list[int] = []

    def epoch(self, number: int, n_steps: int = 40) -> list[int]:
        """Return the threads of each step."""
        self.pace.epoch(number)
        self.used = []
        for place in range(n_steps):
            self.pace.begin(place)
            self.used.append(torch.get_num_threads())
            self.now += self.took[self.used[-1]]
            self.pace.end(place)
        return self.used


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_all_threads_are_taken_where_they_are_faster() -> None:
    machine = Machine(1.0, 0.6)
    assert machine.epoch(1) == [1] * 8 + [2] * 32
    assert machine.pace.n_most == 2
    assert machine.epoch(3) == [2] * 40


def test_one_thread_is_kept_where_others_gain_little_and_tried_again_later() -> None:
    machine = Machine(1.0, 0.95)
    assert machine.epoch(1) == [1] * 8 + [2] * 6 + [1] * 26
    assert machine.pace.n_most == 1
    machine.took[2] = 0.5
    assert machine.epoch(3) == [1] * 40
    assert machine.epoch(4)[-1] == 2


def test_threads_are_given_up_within_a_few_steps_once_somebody_has_their_cores() -> None:
    machine = Machine(1.0, 0.6)
    machine.epoch(1)
    machine.took[2] = 2.5
    assert machine.epoch(3)[4:] == [1] * 36


@pytest.mark.parametrize("n_steps", [1, 5, 9, 12])
def test_epochs_too_short_to_choose_in_do_no_harm(n_steps: int) -> None:
    machine = Machine(1.0, 2.5)
    for number in range(1, 9):
        machine.epoch(number, n_steps)
    assert machine.epoch(9)[-1] == 1


def test_with_one_thread_there_is_nothing_to_choose() -> None:
    machine = Machine(1.0, 0.1)
    machine.pace.n_all = 1
    assert machine.epoch(1) == [1] * 40
