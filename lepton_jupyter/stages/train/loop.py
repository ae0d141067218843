"""The training loop: tensors on the device, batches by permuted index, no Python per sample."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.checkpoints import Checkpoints, restore, snapshot
from lepton_jupyter.stages.train.feed import Feed, Rows, Tensors, auto_batch_size, batch_bounds, chunks
from lepton_jupyter.stages.train.heads import Head, first_tensor
from lepton_jupyter.stages.train.job import Job, Outcome
from lepton_jupyter.stages.train.losses import Loss
from lepton_jupyter.stages.train.optimizers import make_optimizer, make_scheduler, step_scheduler

SMALL_MODEL = 1_000_000  # weights; below, one thread is as fast as several, and leaves the others to others


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)  # the user's own code may draw from it
    torch.manual_seed(seed)


def settle_threads(module: nn.Module) -> int:
    """Set torch's number of threads for this model, and return it. Equal metrics need equal threads."""
    n_weights = sum(parameter.numel() for parameter in module.parameters())
    if n_weights < SMALL_MODEL:
        torch.set_num_threads(1)
    return torch.get_num_threads()


@dataclass
class Loop:
    """One training, from its first step to its last."""

    job: Job
    module: nn.Module
    feed: Feed
    head: Head
    loss: Loss
    train: Rows
    validation: Rows | None
    checkpoints: Checkpoints
    each_step: Callable[[], None]
    outcome: Outcome = field(default_factory=Outcome)

    def run(self) -> Outcome:
        """Train; the module ends with its best weights.

        Raises
        ------
        LeptonError
            If the loss becomes NaN or infinite; the epoch and step are named.
        """
        spec, session = self.job.spec, self.job.session
        optimizer = make_optimizer(self.job, self.module)
        scheduler = make_scheduler(self.job, optimizer)
        size = auto_batch_size(len(self.train)) if spec.batch_size == "auto" else spec.batch_size
        order = torch.Generator().manual_seed(spec.seed)
        self._note(type(optimizer).__name__, size)
        best, best_epoch, is_stopped = math.inf, 0, False
        for epoch in range(1, spec.epochs + 1):
            lr = optimizer.param_groups[0]["lr"]
            started = perf_counter()
            loss, is_stopped = self._epoch(optimizer, batch_bounds(len(self.train), size), order, epoch)
            rows_per_s = len(self.train) / max(perf_counter() - started, 1e-9)
            if is_stopped and self.checkpoints.best is not None:
                break  # a torn epoch counts for nothing where a whole one went before
            metrics = {"train_loss": loss} | self._validate() | {"lr": lr, "rows_per_s": rows_per_s}
            self._record(epoch, metrics)
            judged = metrics.get("val_loss", -float(epoch))  # no validation split: the last epoch is the best
            about = {"epoch": epoch, "metrics": metrics, "history": self.outcome.history}
            state = snapshot(self.module)
            if judged < best or self.checkpoints.best is None:
                best, best_epoch = judged, epoch
                self.outcome.metrics = metrics
                self.checkpoints.keep("best", state, about)
            self.checkpoints.keep("last", state, about)
            session.progress(epoch, spec.epochs, "epochs")
            if is_stopped or self._is_patience_over(epoch, best_epoch):
                break
            step_scheduler(scheduler, metrics.get("val_loss", loss))
        self._end(best_epoch, is_stopped=is_stopped)
        return self.outcome

    def _note(self, optimizer: str, batch_size: int) -> None:
        spec = self.job.spec
        notes = {
            "threads": torch.get_num_threads(),
            "seed": spec.seed,
            "device": str(self.train.targets.device),
            "loss": self.loss.name,
            "optimizer": optimizer,
            "lr_scheduler": spec.lr_scheduler,
            "batch_size": batch_size,
        }
        self.outcome.notes |= notes
        for key, value in notes.items():
            self.job.session.note(key, value)

    def _epoch(
        self, optimizer: torch.optim.Optimizer, bounds: list[tuple[int, int]], order: torch.Generator, epoch: int
    ) -> tuple[float, bool]:
        """Train one epoch; return the mean loss over its rows, and whether a stop was asked."""
        __tracebackhide__ = True
        self.module.train()
        device = self.train.targets.device
        permutation = torch.randperm(len(self.train), generator=order).to(device)
        total, n_done = 0.0, 0
        for step, (start, end) in enumerate(bounds, 1):
            inputs, target = self.train.take(permutation[start:end])
            optimizer.zero_grad(set_to_none=True)
            loss = self._loss(inputs, target, "training_step")
            value = loss.item()
            if not math.isfinite(value):
                raise self._diverged(value, epoch, step, len(bounds))
            loss.backward()
            optimizer.step()
            total += value * (end - start)
            n_done += end - start
            self.each_step()
            if self.job.session.should_stop():
                return total / n_done, True
        return total / n_done, False

    def _loss(self, inputs: Tensors, target: torch.Tensor, own: str) -> torch.Tensor:
        """Return the loss of a batch: the module's own step where it has one."""
        __tracebackhide__ = True
        step = getattr(self.module, own, None)
        if step is None:
            return self.loss(first_tensor(self.feed.call(self.module, inputs)), target)
        answer = step((*inputs, target))
        return answer["loss"] if isinstance(answer, dict) else answer

    def _diverged(self, value: float, epoch: int, step: int, n_steps: int) -> LeptonError:
        word = "NaN" if math.isnan(value) else "infinite"
        if not all(bool(torch.isfinite(x).all()) for x in self.train.inputs if x.is_floating_point()):
            hint = "The features hold missing or infinite values: leave --preprocess at auto, or fill them."
        else:
            hint = f"Try a smaller rate, such as --lr {self.job.spec.lr / 10:g}, or --scale-target for a regression."
        return LeptonError(
            f"The loss became {word} at step {step} of {n_steps} in epoch {epoch} of {self.job.spec.epochs}.",
            hint,
            code="failed",
        )

    def _validate(self) -> dict[str, float]:
        """Return loss and headline metric over the validation split, in original units."""
        __tracebackhide__ = True
        if self.validation is None:
            return {}
        self.module.eval()
        losses, sizes, decoded = [], [], []
        start = 0
        with torch.no_grad():
            for inputs in chunks(self.validation.inputs):
                n = len(inputs[0])
                target = self.validation.targets[start : start + n]
                output = first_tensor(self.feed.call(self.module, inputs))
                decoded.append(self.head.decode(output))
                if hasattr(self.module, "validation_step"):
                    losses.append(float(self._loss(inputs, target, "validation_step")))
                else:
                    losses.append(float(self.loss(output, target)))
                sizes.append(n)
                start += n
        return {
            "val_loss": float(np.average(losses, weights=sizes)),
            **headline(np.concatenate(decoded), self.validation.values, self.head, prefix="val_"),
        }

    def _record(self, epoch: int, metrics: dict[str, float]) -> None:
        for key, value in {"epoch": float(epoch), **metrics}.items():
            self.outcome.history.setdefault(key, []).append(value)
        self.job.session.log(step=epoch, **metrics)

    def _is_patience_over(self, epoch: int, best_epoch: int) -> bool:
        patience = self.job.spec.patience
        return patience is not None and self.validation is not None and epoch - best_epoch >= patience

    def _end(self, best_epoch: int, *, is_stopped: bool) -> None:
        self.checkpoints.flush()
        if self.checkpoints.error:
            self.job.session.note("checkpoint_error", self.checkpoints.error)
        assert self.checkpoints.best is not None  # one epoch at least was run
        restore(self.module, self.checkpoints.best)
        self.module.eval()
        outcome = self.outcome
        outcome.best_epoch = best_epoch
        outcome.epochs = len(outcome.history["epoch"])
        outcome.stopped_at = outcome.epochs if is_stopped else None
        self.job.session.note("best_epoch", best_epoch)


def headline(
    decoded: npt.NDArray[np.float64], values: npt.NDArray[Any], head: Head, *, prefix: str = ""
) -> dict[str, float]:
    """Return the one metric that a person reads first: accuracy of classes, RMSE of numbers.

    Parameters
    ----------
    decoded : NDArray
        Probabilities [N, K] or predictions [N, T], float64.
    values : NDArray
        int64 codes [N] or float64 [N, T] in original units.
    """
    if head.kind == "identity":
        return {prefix + "rmse": float(np.sqrt(np.mean((decoded - values) ** 2)))}
    if head.n_outputs == 2:
        guesses = np.where(decoded[:, head.positive_index] >= 0.5, head.positive_index, 1 - head.positive_index)
    else:
        guesses = decoded.argmax(1)
    return {prefix + "accuracy": float(np.mean(guesses == values))}
