"""One thread or all: what the steps show, and what is given up at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lepton_jupyter.stages.train.pace import N_FIRST, N_PROBED, N_PROBING, Pace


class Machine:
    """Steps that take so long on one thread and on two, by a clock of their own."""

    def __init__(self, one_s: float, two_s: float) -> None:
        self.now, self.took = 0.0, {1: one_s, 2: two_s}
        self.pace = Pace(2, lambda: self.now)
        self.used: list[int] = []

    def stretch(self, n_steps: int = 60, *, is_probing: bool = False) -> list[int]:
        """Return the threads of each step."""
        self.pace.stretch(is_probing=is_probing)
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


N_REST = 60 - N_PROBING


def test_all_threads_are_taken_where_they_are_faster() -> None:
    machine = Machine(1.0, 0.6)
    assert machine.stretch(is_probing=True) == [1] * (N_FIRST + N_PROBED) + [2] * (N_PROBED + N_REST)
    assert machine.pace.n_most == 2
    assert machine.stretch() == [2] * 60
    machine.pace.close()
    assert torch.get_num_threads() == 1


def test_one_thread_is_kept_where_others_gain_little_and_tried_again_later() -> None:
    machine = Machine(1.0, 0.98)
    wanted = [1] * (N_FIRST + N_PROBED) + [2] * N_PROBED + [1] * N_REST
    assert machine.stretch(is_probing=True) == wanted
    assert machine.pace.n_most == 1
    machine.took[2] = 0.5
    assert machine.stretch() == [1] * 60
    assert machine.stretch(is_probing=True)[-1] == 2


def test_threads_are_given_up_within_a_few_steps_once_somebody_has_their_cores() -> None:
    machine = Machine(1.0, 0.6)
    machine.stretch(is_probing=True)
    machine.took[2] = 2.5
    assert machine.stretch()[N_PROBED:] == [1] * (60 - N_PROBED)


def test_one_step_that_is_stuck_is_enough_and_the_next_probings_are_fewer() -> None:
    machine = Machine(1.0, 100.0)
    probed = [machine.stretch(is_probing=True).count(2) for _ in range(12)]
    assert probed == [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    machine.took[2] = 0.5
    while machine.stretch(is_probing=True)[-1] == 1:
        pass
    assert machine.stretch() == [2] * 60


@pytest.mark.parametrize("n_steps", [1, 5, N_FIRST + N_PROBED + 1, N_PROBING])
def test_stretches_too_short_to_choose_in_do_no_harm(n_steps: int) -> None:
    machine = Machine(1.0, 2.5)
    for _ in range(8):
        machine.stretch(n_steps, is_probing=True)
    assert machine.stretch()[-1] == 1


def test_with_one_thread_there_is_nothing_to_choose() -> None:
    machine = Machine(1.0, 0.1)
    machine.pace.n_all = 1
    assert machine.stretch(is_probing=True) == [1] * 60
