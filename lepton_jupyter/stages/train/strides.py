"""The hot path: steps one after the other, and nothing between them that waits for the device or for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from time import perf_counter

import torch
from torch import nn

from lepton_jupyter.stages.train.augment import Augment
from lepton_jupyter.stages.train.average import Average
from lepton_jupyter.stages.train.batches import Batch
from lepton_jupyter.stages.train.feed import Tensors
from lepton_jupyter.stages.train.memory import free_memory, is_out_of_memory, no_room, no_room_here
from lepton_jupyter.stages.train.pace import N_PROBING, Pace
from lepton_jupyter.stages.train.schedules import Schedule
from lepton_jupyter.stages.train.team import ALONE, Team

PROBE_EVERY = 8  # strides: neighbours come and go
STRIDE_S = 0.1  # what a stop waits for at most, but for a step that takes longer

LossOf = Callable[[Tensors, torch.Tensor], torch.Tensor]


class Strides:
    """Run steps; keep the losses of an epoch.

    Attributes
    ----------
    n_parts : int
        Parts in which a batch goes through the model, its gradients added up; more where memory asks for it.
    losses : list of float
        Of the epoch's steps so far.
    sizes : list of int
        Rows of each of its batches.
    norm : Tensor or None
        Norm of the last gradient before it was clipped, where it is.
    n_steps, n_rows : int
        Taken since this process began, and their rows.
    spent_s : float
        Seconds that they took, waiting for their batches included.
    pace : Pace or None
        What chooses the threads of each step.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        loss_of: LossOf,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        n_parts: int = 1,
        clip: float | None = None,
        average: Average | None = None,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
        team: Team = ALONE,
    ) -> None:
        self.weights = list(weights)
        self.loss_of, self.optimizer, self.schedule = loss_of, optimizer, schedule
        self.n_parts, self.clip, self.average = n_parts, clip, average
        self.augment, self.generator, self.team = augment, generator, team
        self.losses: list[float] = []
        self.sizes: list[int] = []
        self.norm: torch.Tensor | None = None
        self.n_next = 1  # steps of the next stride
        self.n_asked = self.n_done = 0  # of the last one
        self.seconds = 0.0
        self.n_steps, self.n_rows, self.spent_s = 0, 0, 0.0  # of all strides
        self.pace: Pace | None = None
        self._n_strides = 0

    def run(self, batches: Iterator[Batch]) -> int:
        """Take a stride; return how many steps it was: fewer than were asked for only at the end of the epoch.

        How many are asked for next is settled anew each time, so that it takes about `STRIDE_S`.
        """
        __tracebackhide__ = True
        self.n_asked, found = self.n_next, []
        self._n_strides += 1
        step = self.step if self.pace is None else self._paced(self.pace)
        started = perf_counter()
        for batch in islice(batches, self.n_asked):
            found.append(step(batch))
            self.sizes.append(len(batch[1]))
        if found:
            self.losses += self.team.losses(torch.stack(found))  # the only wait for the device
        self.seconds = perf_counter() - started
        self.n_done = len(found)
        if found:
            self.n_steps += self.n_done
            self.n_rows += sum(self.sizes[-self.n_done :])
            self.spent_s += self.seconds
            fitting = int(self.n_done * STRIDE_S / max(self.seconds, 1e-6))
            self.n_next = int(self.team.first(max(1, min(2 * self.n_done, fitting))))
        return self.n_done

    def _paced(self, pace: Pace) -> Callable[[Batch], torch.Tensor]:
        """Return what makes the steps of this stride, each on as many threads as the pace says."""
        places = count()
        pace.stretch(is_probing=self.n_asked > N_PROBING and self._n_strides % PROBE_EVERY == 0)

        def step(batch: Batch) -> torch.Tensor:
            __tracebackhide__ = True
            place = next(places)
            pace.begin(place)
            loss = self.step(batch)
            pace.end(place)
            return loss

        return step

    def step(self, batch: Batch) -> torch.Tensor:
        """Make one step; return its loss, a scalar on the device."""
        __tracebackhide__ = True
        inputs, target = batch
        if self.augment is not None:
            assert self.generator is not None
            inputs, target = self.augment(inputs, target, self.generator)
        inputs, target = self.team.share(inputs, target)
        loss = self.gradients(inputs, target)
        if self.clip is not None:
            self.norm = nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimizer.step()
        if self.schedule.is_per_step:
            self.schedule.step()
        if self.average is not None:
            self.average.update()
        return loss

    def gradients(self, inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        """Leave a batch's gradients in the weights; return its loss, detached.

        Where memory is too small, the batch goes in twice as many parts from now on: the gradient stays the same.

        Raises
        ------
        LeptonError
            If there is no room for a single row.
        """
        __tracebackhide__ = True
        while True:
            try:
                return self._gradients(inputs, target)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.team.n > 1:  # the others are in the middle of an exchange
                    raise no_room_here(target.device, len(target), self.n_parts) from error
                if self.n_parts >= len(target):
                    raise no_room(target.device, "take a step") from error
            self.n_parts = min(2 * self.n_parts, len(target))
            free_memory()

    def _gradients(self, inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        __tracebackhide__ = True
        for weight in self.weights:
            weight.grad = None
        if self.n_parts == 1:
            loss = self.loss_of(inputs, target)
            loss.backward()
            return loss.detach().reshape(())
        n_rows = len(target)
        total = torch.zeros((), device=target.device)
        for start, end in self.team.parts(n_rows, self.n_parts):
            with self.team.part(is_last=end == n_rows):
                loss = self.loss_of(tuple(tensor[start:end] for tensor in inputs), target[start:end])
                loss = loss * ((end - start) / n_rows)  # so that the sum is the mean over the batch
                loss.backward()
            total += loss.detach().reshape(())
        return total
