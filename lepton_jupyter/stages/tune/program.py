"""Train many trials of one module as one program: one step for all, each with numbers of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lepton_jupyter.stages.train.batches import Batch, InMemory
from lepton_jupyter.stages.train.checkpoints import State
from lepton_jupyter.stages.train.feed import Rows
from lepton_jupyter.stages.train.frameworks.torch import TorchFitted
from lepton_jupyter.stages.train.job import History, Job
from lepton_jupyter.stages.train.judged import Judge
from lepton_jupyter.stages.train.losses import Loss
from lepton_jupyter.stages.train.optimizers import check_optimizer
from lepton_jupyter.stages.train.pace import Pace
from lepton_jupyter.stages.train.precision import Precision
from lepton_jupyter.stages.train.schedules import make_schedule
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.torch_names import optimizer_class
from lepton_jupyter.stages.tune.stacked import Forward, Table, losses_of

# T trials, B rows, P weights of one module, S steps of an epoch

# of a pass without gradients, over all trials; on the CPU the pages of larger tensors would be new each time
ROWS_AT_ONCE = {"cpu": 2**13, "cuda": 2**18}
STOP_STEPS = 8  # between two looks at whether the run is to stop


@dataclass
class Kit:
    """What all trials of a program share.

    Attributes
    ----------
    fitted : TorchFitted
        Of the first module that was made: preprocessing, feed and head.
    rows : Rows
        The training split on the device.
    batch_size : int
    """

    job: Job
    fitted: TorchFitted
    loss: Loss
    judge: Judge
    rows: Rows
    batch_size: int
    validation: Rows | None
    precision: Precision
    forward: Forward

    def batches(self, seed: int) -> InMemory:
        """Return the batches of a trial with this seed."""
        return InMemory(self.rows, self.batch_size, seed, self.precision.device)


@dataclass
class Member:
    """A trial of a program.

    Attributes
    ----------
    best : float or None
        The best epoch's value.
    """

    number: int
    training: Train
    module: nn.Module
    history: History = field(default_factory=dict)
    best: float | None = None
    best_epoch: int = 0


class Steps:
    """Optimizers of T trials that step as one.

    Of these optimizers, a step is the learning rate times something that does not depend on it. That something is
    what torch's own fused optimizer leaves in a table of zeros at the rate 1.
    """

    def __init__(self, spec: Train, table: Table, members: Sequence[Member]) -> None:
        chosen: Any = optimizer_class(spec.optimizer)
        self._is_decoupled = chosen is torch.optim.AdamW
        default = float(inspect.signature(chosen).parameters["weight_decay"].default)
        arguments = check_optimizer(spec) | {"lr": 1.0, "weight_decay": 0.0, "fused": True}
        trainings = [member.training for member in members]
        decays = [one.weight_decay if one.weight_decay is not None else default for one in trainings]
        self.rates = table.flat.new_tensor([[one.lr] for one in trainings])
        self._decays = table.flat.new_tensor([[decay] for decay in decays])
        self._has_decay = any(decays)
        self._clip = spec.clip
        self._make = lambda weights: chosen([weights], **arguments)
        self._step = nn.Parameter(torch.zeros_like(table.flat))
        self._optimizer = self._make(self._step)

    def run(self, table: Table, gradients: Sequence[torch.Tensor], share: float) -> None:
        """Step all weights by their gradients, at this share of each trial's rate."""
        flat = table.flat
        gradient = torch.cat([part.reshape(len(flat), -1) for part in gradients], 1)
        with torch.no_grad():
            if self._clip is not None:
                norm = gradient.norm(dim=1, keepdim=True)
                gradient *= (self._clip / (norm + 1e-6)).clamp(max=1.0)
            if self._has_decay and not self._is_decoupled:
                gradient.addcmul_(flat, self._decays)
            self._step.zero_()
            self._step.grad = gradient
            self._optimizer.step()
            rates = self.rates * share
            if self._has_decay and self._is_decoupled:
                flat.mul_(1 - rates * self._decays)
            flat.addcmul_(self._step, rates)

    def keep(self, places: torch.Tensor) -> None:
        """Let all other trials go."""
        state = self._optimizer.state[self._step]
        is_row = {key: torch.is_tensor(one) and one.shape == self._step.shape for key, one in state.items()}
        kept = {key: one[places].clone() if is_row[key] else one for key, one in state.items()}
        self.rates, self._decays = self.rates[places], self._decays[places]
        self._step = nn.Parameter(self._step.detach()[places].clone())
        self._optimizer = self._make(self._step)
        self._optimizer.state[self._step] = kept


class Program:
    """T trials in training."""

    def __init__(self, kit: Kit, members: Sequence[Member], pace: Pace) -> None:
        device = kit.precision.device
        self.kit = kit
        self.pace = pace
        self.members = list(members)
        self.table = Table([member.module for member in members], device)
        self.best = self.table.flat.clone()
        self._steps = Steps(kit.job.spec, self.table, members)
        self._losses_of = losses_of(kit.loss)
        self._batches = {seed: kit.batches(seed) for seed in {member.training.seed for member in members}}
        self._dummy = torch.optim.SGD([torch.zeros(1)], lr=1.0)  # its rate is the share of each trial's own
        self._schedule = make_schedule(kit.job, self._dummy, next(iter(self._batches.values())).n_batches)

    def step(self, batch: Batch, *, is_shared: bool) -> torch.Tensor:
        """Make one step of every trial; return their losses [T]."""
        inputs, target = batch
        with self.kit.precision.context():
            losses, gradients = self.kit.forward.gradients(
                self.table.weights,
                list(self.table.leaves),
                inputs,
                lambda outputs: self._losses_of(outputs, target, is_shared),
                is_shared=is_shared,
            )
        self._steps.run(self.table, gradients, float(self._dummy.param_groups[0]["lr"]))
        self._schedule.step()
        return losses

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield an epoch's batches: shared where all trials have one seed, else one for each trial, laid together."""
        if self.is_shared:
            yield from self._batches[self.members[0].training.seed].epoch(epoch)
            return
        order = [member.training.seed for member in self.members]
        kinds = list(dict.fromkeys(order))
        places = torch.tensor([kinds.index(seed) for seed in order], device=self.kit.rows.targets.device)
        for found in zip(*(self._batches[seed].epoch(epoch) for seed in kinds), strict=True):
            inputs = tuple(torch.stack(parts)[places] for parts in zip(*(one[0] for one in found), strict=True))
            yield inputs, torch.stack([one[1] for one in found])[places]

    @property
    def is_shared(self) -> bool:
        """Whether all trials see the same batches."""
        return len({member.training.seed for member in self.members}) == 1

    def epoch(self, number: int) -> bool:
        """Train an epoch and judge it; return False where it was torn by a stop.

        Every member's history gets an entry; whose epoch was its best has its weights kept.
        """
        is_shared, losses, sizes = self.is_shared, [], []
        rate = float(self._dummy.param_groups[0]["lr"])
        self.pace.stretch(is_probing=number & (number - 1) == 0)  # in the epochs 1, 2, 4, 8 …
        for place, batch in enumerate(self.batches(number)):
            self.pace.begin(place)
            losses.append(self.step(batch, is_shared=is_shared))
            self.pace.end(place)
            sizes.append(batch[0][0].shape[0 if is_shared else 1])
            if place % STOP_STEPS == 0 and self.kit.job.session.should_stop():
                return False
        shares = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
        means = (shares @ torch.stack(losses).double().cpu()).tolist()  # NaN, and infinite, stay what they are
        self._judge(number, means, rate)
        return True

    def _judge(self, number: int, means: list[float], rate: float) -> None:
        judge, better = self.kit.judge, []
        found = self._metrics(range(len(self.members)))
        for place, member in enumerate(self.members):
            metrics = {"train_loss": means[place], **found[place]}
            values = {"epoch": float(number), **metrics, "lr": rate * member.training.lr}
            for key, value in values.items():
                member.history.setdefault(key, []).append(value)
            judged = judge.judged(metrics)
            if judge.is_better(judged, member.best):
                member.best, member.best_epoch = judged, number
                better.append(place)
        if better:
            self.best[better] = self.table.flat[better]

    def _metrics(self, places: Sequence[int]) -> list[dict[str, float]]:
        """Return every trial's metrics over the validation split: all where it is judged by one, else the loss."""
        held, judge = self.kit.validation, self.kit.judge
        if held is None:
            return [{} for _ in places]
        outputs, losses = self._outputs(held)
        if outputs is None:
            return [{"val_loss": losses[place]} for place in places]
        decode = judge.head.decode
        return [judge.metrics(decode(outputs[place]), held.values, losses[place]) for place in places]

    def _outputs(self, held: Rows) -> tuple[torch.Tensor | None, list[float]]:
        """Return the outputs [T, N, …] on held-out rows where a metric wants them, and each trial's mean loss."""
        size = max(64, ROWS_AT_ONCE[held.targets.device.type] // len(self.members))
        outputs, losses = [], torch.zeros(len(self.members), dtype=torch.float64)
        with torch.no_grad(), self.kit.precision.context():
            for start in range(0, len(held), size):
                inputs = tuple(tensor[start : start + size] for tensor in held.inputs)
                target = held.targets[start : start + size]
                output = self.kit.forward(self.table.weights, inputs, is_shared=True, is_training=False)
                losses += self._losses_of(output, target, True).double().cpu() * len(target)
                if self.kit.judge.metric is not None:
                    outputs.append(output.float())
        return torch.cat(outputs, 1) if outputs else None, (losses / len(held)).tolist()

    def best_of(self, place: int) -> tuple[State, dict[str, float]]:
        """Return a trial's best weights under the module's own names, and all metrics of that epoch."""
        member = self.members[place]
        parts = self.table.parts(self.best[place : place + 1])
        state = {name: part[0].detach().cpu().clone().contiguous() for name, part in parts.items()}
        at = member.best_epoch - 1
        metrics = {key: values[at] for key, values in member.history.items() if key != "epoch"}
        held, judge = self.kit.validation, self.kit.judge
        if held is not None and judge.metric is None:
            weights = {name: part.detach() for name, part in parts.items()}
            rates = {name: rate[:1] for name, rate in self.table.rates.items()}
            with torch.no_grad():
                output = self.kit.forward(weights | rates, held.inputs, is_shared=True, is_training=False)[0]
            metrics |= judge.metrics(judge.head.decode(output), held.values, metrics["val_loss"])
        return state, metrics

    def keep(self, places: Sequence[int]) -> None:
        """Let all other trials go."""
        if len(places) == len(self.members) or not places:
            self.members = [self.members[place] for place in places]
            return
        index = torch.tensor(list(places), device=self.table.flat.device)
        self.members = [self.members[place] for place in places]
        self.table.keep(index)
        self.best = self.best[index]
        self._steps.keep(index)
