"""Several processes that train as one: each takes its share of every batch, and the step is that of the whole batch.

The kernel of a run starts them (`train_in_ranks`), the run's payload tells each what to train (`train_as_rank`), and
the checkpoint that the first one writes is that of one process: a run may go on with another number of devices.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.session import Session
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.batches import Batch, generator_of
from lepton_jupyter.stages.train.checkpoints import read_checkpoint, restore
from lepton_jupyter.stages.train.checks import untouched
from lepton_jupyter.stages.train.dynamo import spare_wrapper
from lepton_jupyter.stages.train.engine import make_job
from lepton_jupyter.stages.train.examples import Example
from lepton_jupyter.stages.train.feed import Tensors
from lepton_jupyter.stages.train.frameworks.registry import framework_of
from lepton_jupyter.stages.train.job import Job, Outcome
from lepton_jupyter.stages.train.norms import share_statistics
from lepton_jupyter.stages.train.randomness import random_state, seed_everything, set_random_state
from lepton_jupyter.stages.train.sharding import shard
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.strides import LossOf
from lepton_jupyter.stages.train.team import Team

OUTCOME = "outcome.json"


def train_in_ranks(module: nn.Module, job: Job, *, each_look: Callable[[], None]) -> Outcome:
    """Let the ranks train a module; it ends with the best weights. Called in the kernel.

    Parameters
    ----------
    module : Module
        As the ranks make it from the same payload.
    job : Job
        Its `ranks` starts them and waits.
    each_look : callable
        Called some times a second meanwhile.

    Raises
    ------
    LeptonError
        If the ranks fail, or their weights found no room on the disk. What the user's code raised passes.
    """
    __tracebackhide__ = True
    assert job.ranks is not None
    path = job.session.folder / "checkpoints" / OUTCOME
    path.unlink(missing_ok=True)
    job.ranks(each_look)
    job.session.should_stop()  # from here on an interrupt raises nothing, as after a loop in this process
    outcome = Outcome(**json.loads(path.read_bytes()))
    found = read_checkpoint(path.parent)
    if found is None or found[1]["epoch"] != outcome.best_epoch:
        raise LeptonError(
            f"The best weights, of epoch {outcome.best_epoch}, could not be written to {path.parent}.",
            "Make room there, and train again.",
            code="failed",
        )
    restore(module, found[0])
    return outcome


def train_as_rank(
    session: Session, model: Any, dataset: Dataset | Example, spec: Train, *, names: Mapping[str, object]
) -> None:
    """Train this rank's share; the first leaves checkpoints and outcome. Called in a rank's process.

    Parameters are those of `engine.train`.
    """
    __tracebackhide__ = True
    team = Ranks(session.devices, seed=spec.seed, is_sharded=spec.shard)
    model, _, job = make_job(session, model, dataset, spec, names=names, team=team, is_trial=True)
    fitted = framework_of(model, spec.model).fit(model, job)
    fitted.close()
    if team.is_first:
        content = json.dumps(asdict(fitted.outcome)).encode()
        write_atomic(session.folder / "checkpoints" / OUTCOME, content, is_durable=False)
    dist.barrier()  # nobody leaves before the files are there


class Ranks(Team):
    """One of several processes, started with torchrun's variables set.

    Parameters
    ----------
    devices : tuple of str
        Those of the run, one a rank: ``cpu-0``, or a GPU's UUID.
    seed : int
        Of the run.
    is_sharded : bool
        Whether weights and the optimizer's state are laid out over the devices.
    """

    def __init__(self, devices: tuple[str, ...], *, seed: int, is_sharded: bool = False) -> None:
        self.rank, self.n = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.is_sharded, self._seed = is_sharded, seed
        is_cpu = not devices or devices[self.rank].startswith("cpu-")
        # The run sees its own GPUs only, in the order of `devices`.
        self.device = torch.device("cpu") if is_cpu else torch.device("cuda", self.rank)
        if not is_cpu:
            torch.cuda.set_device(self.device)
        dist.init_process_group("gloo" if is_cpu else "cpu:gloo,cuda:nccl")
        self._factor: torch.Tensor | float = 1.0  # of the batch's loss
        self._fewest = 1  # rows that a rank has of the batch
        self._function: object = None
        self._step: nn.Module | None = None

    # -- the model

    def prepare(self, module: nn.Module) -> nn.Module:
        """Return a module whose BatchNorm sees whole batches, sharded where asked; each rank draws its own numbers."""
        assert self.device is not None
        self.seed()
        module = share_statistics(module, self.device)
        if self.is_sharded:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), 0)
            shard(module, self.device, self.n)
        return module

    def loss_of(self, module: nn.Module, plain: LossOf, function: object) -> LossOf:
        """Return what gives the loss of a share, weighted so that the mean over ranks is that of the batch."""
        self._function = function
        if self.is_sharded:
            self._step = module

            def of_share(inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
                __tracebackhide__ = True
                return plain(inputs, target) * self._factor

            return of_share
        step = _Step(self, module, plain)

        def of_group(inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
            __tracebackhide__ = True
            if self._step is None:
                is_partial = self.any(_has_idle_weights(module, plain, inputs, target))
                with spare_wrapper():
                    self._step = DistributedDataParallel(step, find_unused_parameters=is_partial)
            loss: torch.Tensor = self._step(inputs, target)
            return loss

        return of_group

    # -- a step

    def share(self, inputs: Tensors, target: torch.Tensor) -> Batch:
        """Return this rank's rows of a batch: contiguous, as many as the others have or one more.

        Where a batch has fewer rows than there are ranks, some take its first row, which then counts nothing.
        """
        n_rows = len(target)
        start, end = n_rows * self.rank // self.n, n_rows * (self.rank + 1) // self.n
        is_idle, self._fewest = start == end, max(1, n_rows // self.n)
        mine = slice(0, 1) if is_idle else slice(start, end)
        share = target[mine]
        self._factor = 0.0 if is_idle else _weight(self._function, share, target) * self.n
        return tuple(tensor[mine] for tensor in inputs), share

    def parts(self, n_rows: int, n_parts: int) -> list[tuple[int, int]]:
        """Return even slices, as many in every rank: shares may differ by a row."""
        n = min(n_parts, self._fewest)
        return [(n_rows * i // n, n_rows * (i + 1) // n) for i in range(n)]

    def part(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Return what a part runs in."""
        if self.is_sharded:
            self._step.set_requires_gradient_sync(is_last)  # type: ignore[union-attr, operator]
        elif not is_last and isinstance(self._step, DistributedDataParallel):
            return self._step.no_sync()
        return nullcontext()

    # -- what is agreed on

    def losses(self, found: torch.Tensor) -> list[float]:
        """Return the losses of whole batches: the mean of the weighted shares."""
        values = found.double().cpu()
        dist.all_reduce(values)
        means: list[float] = (values / self.n).tolist()
        return means

    def first(self, value: float) -> float:
        """Return the first rank's number."""
        return self._most(value if self.is_first else -float("inf"))

    def any(self, flag: bool) -> bool:
        """Whether it holds in one of them."""
        return self._most(float(flag)) > 0

    def _most(self, value: float) -> float:
        number = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return float(number)

    def told(self, values: dict[str, float]) -> dict[str, float]:
        """Return the first rank's values."""
        box = [values]
        dist.broadcast_object_list(box, 0)
        return box[0]

    # -- a pass without gradients

    def dealt(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
        """Yield every n-th batch; where the last round has none for this rank, the round's first."""
        each = iter(batches)
        while dealt := list(islice(each, self.n)):
            is_mine = self.rank < len(dealt)
            yield dealt[self.rank if is_mine else 0], is_mine

    def collected(self, *lists: list[Any]) -> tuple[list[Any], ...] | None:
        """Return what all found, in the order of the batches."""
        own = [[item.cpu().clone() if torch.is_tensor(item) else item for item in items] for items in lists]
        gathered: list[Any] | None = [None] * self.n if self.is_first else None
        dist.gather_object(own, gathered, 0)
        if gathered is None:
            return None
        return tuple(
            [columns[i % self.n][i // self.n] for i in range(sum(map(len, columns)))]
            for columns in zip(*gathered, strict=True)
        )

    # -- random numbers

    def seed(self, *numbers: int) -> None:
        """Let each rank but the first draw other numbers than the first: dropout shall differ from row to row."""
        if not self.is_first:
            seed_everything(generator_of(self._seed, self.rank, *numbers).initial_seed() % 2**32)

    def random_states(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the states of all ranks' generators, in the first rank; nothing in the others."""
        states: list[Any] | None = [None] * self.n if self.is_first else None
        dist.gather_object(own, states, 0)
        return states or []


class _Step(nn.Module):
    """A share's loss as one forward pass, so that torch's wrapper sees a ``training_step`` of the user's, too."""

    def __init__(self, team: Ranks, module: nn.Module, plain: LossOf) -> None:
        super().__init__()
        self.module = module
        self._team, self._plain = team, plain

    def forward(self, inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        """Return the weighted loss of a share."""
        __tracebackhide__ = True
        return self._plain(inputs, target) * self._team._factor


def _weight(function: object, share: torch.Tensor, whole: torch.Tensor) -> torch.Tensor | float:
    """Return how much a share counts in the loss of its batch: its part of what the loss takes the mean over.

    torch's losses take it over rows, with class weights over these; a sum counts whole.
    """
    if getattr(function, "reduction", "mean") == "sum":
        return 1.0
    weight = getattr(function, "weight", None)
    is_weighted = isinstance(function, nn.CrossEntropyLoss | nn.NLLLoss) and isinstance(weight, torch.Tensor)
    if is_weighted and not whole.is_floating_point():
        assert weight is not None
        return weight[share].sum() / weight[whole].sum()
    return len(share) / len(whole)


def _has_idle_weights(module: nn.Module, plain: LossOf, inputs: Tensors, target: torch.Tensor) -> bool:
    """Whether some weights have no part in the loss: torch's wrapper must know before the first step."""
    __tracebackhide__ = True
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    before = random_state(target.device)
    with untouched(module, is_training=True), torch.enable_grad():
        plain(inputs, target).backward()
        is_idle = any(weight.grad is None for weight in weights)
    set_random_state(before, target.device)
    for weight in weights:
        weight.grad = None
    return is_idle
