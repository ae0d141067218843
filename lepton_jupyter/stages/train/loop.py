"""The training loop: strides of steps, and between two of them all that is not a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.augment import make_augment
from lepton_jupyter.stages.train.average import Average
from lepton_jupyter.stages.train.batches import Batches, generator_of
from lepton_jupyter.stages.train.checkpoints import BEST, PAUSE_S, Checkpoints, read_checkpoint, restore, snapshot
from lepton_jupyter.stages.train.feed import Feed, Rows, Tensors
from lepton_jupyter.stages.train.heads import Head, first_tensor
from lepton_jupyter.stages.train.job import Job, Outcome
from lepton_jupyter.stages.train.judged import make_judge
from lepton_jupyter.stages.train.losses import Loss
from lepton_jupyter.stages.train.optimizers import make_optimizer
from lepton_jupyter.stages.train.precision import Precision
from lepton_jupyter.stages.train.randomness import random_state, set_random_state
from lepton_jupyter.stages.train.schedules import make_schedule
from lepton_jupyter.stages.train.standing import Parts, Standing, capture, put_back
from lepton_jupyter.stages.train.strides import LossOf, Strides
from lepton_jupyter.stages.train.validation import validate

TELL_S = 1.0  # between two pieces of telemetry


@dataclass
class Loop:
    """One training, from its first step, or from its last checkpoint, to its end.

    Attributes
    ----------
    going_on : dict or None
        The state that it goes on from.
    each_stride : callable
        Called between strides.
    """

    job: Job
    module: nn.Module
    feed: Feed
    head: Head
    loss: Loss
    batches: Batches
    validation: Rows | Batches | None
    checkpoints: Checkpoints
    precision: Precision
    each_stride: Callable[[], None]
    going_on: dict[str, Any] | None = None
    outcome: Outcome = field(default_factory=Outcome)

    def run(self) -> Outcome:
        """Train; the module ends with its best weights.

        Raises
        ------
        LeptonError
            If the loss becomes NaN or infinite; epoch, step and layer are named.
        """
        __tracebackhide__ = True
        self._make()
        if self.going_on is not None:
            self._go_on(self.going_on)
        self._note()
        while not self.is_stopped and not self._is_over():
            is_whole = self._epoch()
            if is_whole or not self.standing.best_epoch:  # a torn epoch counts only where no whole one went before
                self._close_epoch(is_torn=not is_whole)
        self._end()
        return self.outcome

    def _make(self) -> None:
        spec, job = self.job.spec, self.job
        optimizer = make_optimizer(job, self.module)
        schedule = make_schedule(job, optimizer, self.batches.n_batches)
        device = self.precision.device
        generator = torch.Generator(device).manual_seed(generator_of(spec.seed, 0).initial_seed())
        average = Average(self.module, spec.ema) if spec.ema is not None else None
        self.judge = make_judge(job, self.head, has_validation=self.validation is not None)
        self.parts = Parts(self.module, optimizer, schedule, generator, average, device)
        self.strides = Strides(
            [weight for group in optimizer.param_groups for weight in group["params"]],
            loss_function(self.module, self.module, feed=self.feed, loss=self.loss, precision=self.precision),
            optimizer,
            schedule,
            n_parts=spec.accumulate,
            clip=spec.clip,
            average=average,
            augment=make_augment(job, self.feed, self.head),
            generator=generator,
        )
        self.standing = Standing(history=self.outcome.history)
        self.is_stopped = False
        self._told_at = -math.inf
        self._captured: dict[str, Any] | None = None

    def _go_on(self, state: dict[str, Any]) -> None:
        """Take up a state, and the best weights that were kept with it or after it."""
        self.standing = put_back(self.parts, state)
        standing = self.standing
        self.outcome.history, self.outcome.metrics = standing.history, standing.metrics
        self.strides.n_parts = state["settled"]["parts"]
        found = read_checkpoint(self.checkpoints.folder)
        if found is not None and not found[1].get("is_torn"):
            self.checkpoints.best, about = found
            if about["epoch"] > standing.best_epoch:  # it was written, then the state that tells of it was not
                standing.best_epoch, standing.metrics = about["epoch"], about["metrics"]
                standing.best = self.judge.judged(about["metrics"])
                self.outcome.metrics = about["metrics"]
        self.job.session.note("resumed", {"epoch": standing.epoch, "step": standing.step})

    def _note(self) -> None:
        spec = self.job.spec
        self.settled = {
            "threads": torch.get_num_threads(),
            "batch_size": self.batches.batch_size,
            "parts": self.strides.n_parts,
            "precision": self.precision.name,
        }
        notes = {
            "threads": self.settled["threads"],
            "seed": spec.seed,
            "device": str(self.precision.device),
            "loss": self.loss.name,
            "optimizer": type(self.parts.optimizer).__name__,
            "lr_scheduler": spec.lr_scheduler,
            "batch_size": self.batches.batch_size,
            "precision": self.precision.name,
        }
        self.outcome.notes |= notes
        for key, value in notes.items():
            self.job.session.note(key, value)
        self.job.session.progress(self.standing.epoch - 1, spec.epochs, "epochs")

    # -- an epoch

    def _epoch(self) -> bool:
        """Train what is left of an epoch; return False where a stop was asked in its middle."""
        __tracebackhide__ = True
        standing, strides, n_batches = self.standing, self.strides, self.batches.n_batches
        self.module.train()
        now = random_state(self.precision.device) if standing.step else None
        if now is None:
            standing.lr = float(self.parts.optimizer.param_groups[0]["lr"])
            standing.at_start = random_state(self.precision.device)
        else:
            set_random_state(standing.at_start, self.precision.device)  # a loader draws its order from them
        strides.losses, strides.sizes = standing.losses, standing.sizes
        batches = self.batches.epoch(standing.epoch, standing.step)
        if now is not None:
            set_random_state(now, self.precision.device)
        self._began_at, self._n_before = perf_counter(), sum(standing.sizes)
        while n_batches is None or standing.step < n_batches:
            done, asked = strides.run(batches), strides.n_asked
            standing.step += done
            if done:
                self._check(done)
                self._tell()
            self.each_stride()
            self.is_stopped = self.job.session.should_stop()
            if self.is_stopped and standing.step != n_batches:
                self._save()
                return False
            if done < asked:
                break
            if self.checkpoints.due(self.job.spec.checkpoint_every_s):
                self._save()
        return True

    def _check(self, n_steps: int) -> None:
        """Raise where one of the last steps gave no finite loss."""
        __tracebackhide__ = True
        losses = self.strides.losses
        for place in range(len(losses) - n_steps, len(losses)):
            if not math.isfinite(losses[place]):
                raise self._diverged(losses[place], place + 1)

    def _diverged(self, value: float, step: int) -> LeptonError:
        word = "NaN" if math.isnan(value) else "infinite"
        n_steps = self.batches.n_batches
        of = f" of {n_steps}" if n_steps is not None else ""
        hint = f"Try a smaller rate, such as --lr {self.job.spec.lr / 10:g}, or --scale-target for a regression."
        inputs, _ = next(self.batches.epoch(self.standing.epoch, step - 1))
        if not all(bool(torch.isfinite(tensor).all()) for tensor in inputs if tensor.is_floating_point()):
            hint = "The features hold missing or infinite values: leave --preprocess at auto, or fill them."
        return LeptonError(
            f"The loss became {word} at step {step}{of} in epoch {self.standing.epoch} of {self.job.spec.epochs}.",
            hint,
            code="failed",
        )

    def _tell(self) -> None:
        """Tell how it goes: at the first step, then once a second at most."""
        if (now := monotonic()) - self._told_at < TELL_S:
            return
        self._told_at = now
        standing, strides = self.standing, self.strides
        n_batches, seconds = self.batches.n_batches, perf_counter() - self._began_at
        n_rows = sum(standing.sizes) - self._n_before
        gradients = [weight.grad for weight in strides.weights if weight.grad is not None]
        norm = strides.norm if strides.norm is not None else nn.utils.get_total_norm(gradients)
        self.job.session.telemetry(
            epoch=standing.epoch - 1 + (standing.step / n_batches if n_batches else 0.0),
            loss=standing.losses[-1],
            lr=float(self.parts.optimizer.param_groups[0]["lr"]),
            grad_norm=float(norm),
            rows_per_s=n_rows / seconds,
            steps_per_s=strides.n_done / max(strides.seconds, 1e-9),
        )

    def _close_epoch(self, *, is_torn: bool) -> None:
        """Judge an epoch, and keep it where it is the best."""
        __tracebackhide__ = True
        standing, spec = self.standing, self.job.spec
        epoch, seconds = standing.epoch, perf_counter() - self._began_at
        rows_per_s = (sum(standing.sizes) - self._n_before) / max(seconds, 1e-9)
        metrics = {"train_loss": float(np.average(standing.losses, weights=standing.sizes))}
        average = self.parts.average
        if average is None:
            self._judge(metrics, {"lr": standing.lr, "rows_per_s": rows_per_s}, is_torn=is_torn)
        else:
            with average.shown():
                self._judge(metrics, {"lr": standing.lr, "rows_per_s": rows_per_s}, is_torn=is_torn)
        self.job.session.progress(epoch, spec.epochs, "epochs")
        standing.epoch, standing.step, standing.losses, standing.sizes = epoch + 1, 0, [], []
        if not is_torn:
            self.parts.schedule.epoch(self.judge.judged(self._latest))
            if self.checkpoints.due(min(PAUSE_S, spec.checkpoint_every_s)) or self.is_stopped or self._is_over():
                self._save()

    def _judge(self, metrics: dict[str, float], more: dict[str, float], *, is_torn: bool) -> None:
        __tracebackhide__ = True
        standing = self.standing
        if self.validation is not None:
            metrics |= validate(
                self.module,
                self.validation,
                feed=self.feed,
                loss=self.loss,
                judge=self.judge,
                precision=self.precision,
            )
        metrics |= more
        self._latest = metrics
        for key, value in {"epoch": float(standing.epoch), **metrics}.items():
            standing.history.setdefault(key, []).append(value)
        self.job.session.log(step=standing.epoch, **metrics)
        judged = self.judge.judged(metrics)
        if self.judge.is_better(judged, standing.best) or self.checkpoints.best is None:
            standing.best, standing.best_epoch, standing.metrics = judged, standing.epoch, metrics
            self.outcome.metrics = metrics
            about = {"epoch": standing.epoch, "metrics": metrics, "history": standing.history, "is_torn": is_torn}
            self.checkpoints.keep(BEST, snapshot(self.module), about)

    # -- between epochs

    def _is_over(self) -> bool:
        standing, patience = self.standing, self.job.spec.patience
        if standing.epoch > self.job.spec.epochs:
            return True
        is_waiting = patience is not None and not self.judge.is_blind and standing.step == 0
        return is_waiting and standing.epoch - 1 - standing.best_epoch >= (patience or 0)

    def _save(self) -> None:
        """Write a checkpoint of this moment."""
        since = monotonic()
        self._captured = capture(self.parts, self.standing, self.settled)
        self.checkpoints.save(self._captured, since=since)

    def _end(self) -> None:
        self.checkpoints.flush()
        if self.checkpoints.error:
            self.job.session.note("checkpoint_error", self.checkpoints.error)
        assert self.checkpoints.best is not None  # one epoch at least was run
        restore(self.module, self.checkpoints.best)
        self.module.eval()
        outcome = self.outcome
        outcome.best_epoch = self.standing.best_epoch
        outcome.epochs = len(outcome.history["epoch"])
        outcome.stopped_at = outcome.epochs if self.is_stopped else None
        self.job.session.note("best_epoch", outcome.best_epoch)


def loss_function(module: nn.Module, called: nn.Module, *, feed: Feed, loss: Loss, precision: Precision) -> LossOf:
    """Return what gives the loss of a training batch: the module's own step where it has one.

    Parameters
    ----------
    called : Module
        Stands for the module in a forward pass: itself, or what was made of it.
    """
    own: Callable[..., Any] = getattr(module, "training_step", None)  # type: ignore[assignment]

    def of_own(inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        __tracebackhide__ = True
        answer = own((*inputs, target))
        return answer["loss"] if isinstance(answer, dict) else answer

    def of_output(inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        __tracebackhide__ = True
        return loss(first_tensor(feed.call(called, inputs)), target)

    plain = of_own if own is not None else of_output
    if precision.name == "fp32":
        return plain

    def lower(inputs: Tensors, target: torch.Tensor) -> torch.Tensor:
        __tracebackhide__ = True
        with precision.context():
            return plain(inputs, target)

    return lower
