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
from lepton_jupyter.stages.train.batches import Batches, InMemory, generator_of
from lepton_jupyter.stages.train.checkpoints import (
    BESIDE_BYTES,
    BEST,
    PAUSE_S,
    Checkpoints,
    read_checkpoint,
    restore,
    size_of,
    snapshot,
)
from lepton_jupyter.stages.train.compiling import Decided, for_whole_batches, is_worth_trying, try_compiled
from lepton_jupyter.stages.train.divergence import layer_of
from lepton_jupyter.stages.train.feed import Feed, Rows
from lepton_jupyter.stages.train.forward import loss_function
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job, Outcome
from lepton_jupyter.stages.train.judged import make_judge
from lepton_jupyter.stages.train.losses import Loss
from lepton_jupyter.stages.train.optimizers import make_optimizer
from lepton_jupyter.stages.train.pace import Pace
from lepton_jupyter.stages.train.precision import Precision, placed
from lepton_jupyter.stages.train.randomness import random_state, set_random_state
from lepton_jupyter.stages.train.schedules import make_schedule
from lepton_jupyter.stages.train.sharding import whole
from lepton_jupyter.stages.train.standing import Parts, Standing, capture, is_finite, put_back
from lepton_jupyter.stages.train.strides import Strides
from lepton_jupyter.stages.train.threads import are_alike
from lepton_jupyter.stages.train.validation import Validation

N_SHOWING = 20  # steps by which one tells how long the training takes
TELL_S = 1.0  # between two pieces of telemetry


@dataclass
class Loop:
    """One training, from its first step, or from its last checkpoint, to its end.

    Attributes
    ----------
    each_stride : callable
        Called between strides.
    going_on : dict or None
        The state that it goes on from.
    n_threads : int
        That its steps may take, where it takes one.
    is_repeated : bool
        Whether it only looks for what made an earlier one fail.
    diverged_at : (epoch, step) or None
        Where the loss stopped being a number.
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
    n_threads: int = 1
    outcome: Outcome = field(default_factory=Outcome)
    is_repeated: bool = False
    diverged_at: tuple[int, int] | None = field(default=None, init=False)

    def run(self) -> Outcome:
        """Train; the module ends with its best weights.

        Raises
        ------
        LeptonError
            If the loss becomes NaN or infinite; epoch, step and layer are named.
        """
        __tracebackhide__ = True
        self.module = self.job.team.prepare(placed(self.module, self.precision, is_alone=self.job.team.n == 1))
        self._make()
        if self.going_on is not None:
            self._go_on(self.going_on)
        pace = self._pace()
        self._note(pace)
        self.strides.pace = pace
        is_small = not self.is_repeated and self.job.team.n == 1 and size_of(self.module.state_dict()) <= BESIDE_BYTES
        self._start: dict[str, Any] | None = None  # where it began, until there is a checkpoint
        if is_small:
            self._start = capture(self.parts, self.standing, self.settled)
        while not self.is_stopped and not self._is_over():
            is_whole = self._epoch()
            if is_whole or not self.standing.best_epoch:  # a torn epoch counts only where no whole one went before
                self._close_epoch(is_torn=not is_whole)
        self._end()
        return self.outcome

    def _make(self) -> None:
        spec, job, team = self.job.spec, self.job, self.job.team
        optimizer = make_optimizer(job, self.module)
        schedule = make_schedule(job, optimizer, self.batches.n_batches)
        device = self.precision.device
        generator = torch.Generator(device).manual_seed(generator_of(spec.seed, 0).initial_seed())
        average = Average(self.module, spec.ema) if spec.ema is not None else None
        self.judge = make_judge(job, self.head, has_validation=self.validation is not None)
        self.parts = Parts(self.module, optimizer, schedule, generator, average, device)
        plain = loss_function(self.module, self.module, feed=self.feed, loss=self.loss, precision=self.precision)
        self.strides = Strides(
            [weight for group in optimizer.param_groups for weight in group["params"]],
            team.loss_of(self.module, plain, self.loss.function),
            optimizer,
            schedule,
            n_parts=spec.accumulate,
            clip=spec.clip,
            average=average,
            augment=make_augment(job, self.feed, self.head),
            generator=generator,
            team=team,
        )
        if self.validation is not None:
            self._validation = Validation(self.validation, self.feed, self.loss, self.judge, self.precision, team=team)
        self.standing = Standing(history=self.outcome.history)
        self.is_stopped = False
        self._is_settled = self.is_repeated or team.n > 1  # several processes would time it differently
        self._told_at = -math.inf
        self._told = (0, 0, 0.0)  # steps, rows and seconds until then

    def _go_on(self, state: dict[str, Any]) -> None:
        """Take up a state, and the best weights that were kept with it or after it."""
        self.standing = put_back(self.parts, state, self.job.team)
        standing = self.standing
        self.outcome.history, self.outcome.metrics = standing.history, standing.metrics
        self.strides.n_parts = state["settled"]["parts"]
        if (n_rows := state["settled"].get("compiled")) and self.job.team.n == 1:
            self._is_settled = True
            self._use_compiled(for_whole_batches(self.module, n_rows))
        found = read_checkpoint(self.checkpoints.folder)
        if found is not None and not found[1].get("is_torn"):
            self.checkpoints.best, about = found
            if about["epoch"] > standing.best_epoch:  # it was written, then the state that tells of it was not
                standing.best_epoch, standing.metrics = about["epoch"], about["metrics"]
                standing.best = self.judge.judged(about["metrics"])
                self.outcome.metrics = about["metrics"]
        self.job.session.note("resumed", {"epoch": standing.epoch, "step": standing.step})

    def _note(self, pace: Pace | None) -> None:
        spec = self.job.spec
        self.settled = {
            "threads": torch.get_num_threads(),
            "batch_size": self.batches.batch_size,
            "parts": self.strides.n_parts,
            "precision": self.precision.name,
            "compiled": (self.going_on or {}).get("settled", {}).get("compiled", 0),
        }
        notes = {
            "threads": self.settled["threads"] if pace is None else f"1 or {pace.n_all}, as is faster",
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

    def _pace(self) -> Pace | None:
        """Return what chooses the threads of the steps: for one alone, where that changes no bit of what comes out."""
        is_chosen = torch.get_num_threads() > 1 or self.n_threads == 1  # or there is nothing to choose
        if is_chosen or self.is_repeated or self.job.team.n > 1 or self.precision.device.type != "cpu":
            return None
        if not isinstance(self.batches, InMemory) or hasattr(self.module, "training_step"):
            return None  # neither is asked for anything just to see
        batch = next(self.batches.epoch(1))

        def loss_of(twin: nn.Module) -> torch.Tensor:
            return loss_function(twin, twin, feed=self.feed, loss=self.loss, precision=self.precision)(*batch)

        return Pace(self.n_threads) if are_alike(self.module, loss_of, self.n_threads) else None

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
                self._tell_parts()
                if not self._is_settled:
                    self._settle_compiled()
            self.each_stride()
            self.is_stopped = self.job.team.any(self.job.session.should_stop())
            if self.is_stopped and standing.step != n_batches:
                self._save()
                return False
            if done < asked:
                break
            if self._is_due(self.job.spec.checkpoint_every_s):
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
        epoch = self.standing.epoch
        self.diverged_at = (epoch, step)
        n_steps = self.batches.n_batches
        of = f" of {n_steps}" if n_steps is not None else ""
        hint = f"Try a smaller rate, such as --lr {self.job.spec.lr / 10:g}, or --scale-target for a regression."
        inputs, _ = next(self.batches.epoch(self.standing.epoch, step - 1))
        if not all(bool(torch.isfinite(tensor).all()) for tensor in inputs if tensor.is_floating_point()):
            hint = "The features hold missing or infinite values: leave --preprocess at auto, or fill them."
        at = ""
        state = None if self.is_repeated or self.job.team.n > 1 else self.checkpoints.last() or self._start
        if state is not None:
            found = layer_of(self, state, epoch=epoch, step=step)
            at = f": first in {found}" if found else ""
        return LeptonError(
            f"The loss became {word} at step {step}{of} in epoch {epoch} of {self.job.spec.epochs}{at}.",
            hint,
            code="failed",
        )

    def _tell(self) -> None:
        """Tell how it goes: at the first step, then once a second at most."""
        now = monotonic()
        if not self.job.team.first(now - self._told_at >= TELL_S):
            return
        self._told_at = now
        standing, strides = self.standing, self.strides
        n_batches = self.batches.n_batches
        told, self._told = self._told, (strides.n_steps, strides.n_rows, strides.spent_s)
        steps, rows, seconds = (after - before for after, before in zip(self._told, told, strict=True))
        gradients = [weight.grad for weight in strides.weights if weight.grad is not None]
        norm = strides.norm if strides.norm is not None else nn.utils.get_total_norm(gradients)
        self.job.session.telemetry(
            epoch=standing.epoch - 1 + (standing.step / n_batches if n_batches else 0.0),
            loss=standing.losses[-1],
            lr=float(self.parts.optimizer.param_groups[0]["lr"]),
            grad_norm=float(whole(norm)),
            rows_per_s=rows / max(seconds, 1e-9),
            steps_per_s=steps / max(seconds, 1e-9),
        )

    def _tell_parts(self) -> None:
        """Tell, once, that memory asked for smaller parts."""
        n_parts, size = self.strides.n_parts, max(self.standing.sizes)
        if n_parts != self.settled["parts"]:
            self.settled["parts"] = n_parts
            self.job.session.note(
                "micro_batch",
                f"a batch of {size} rows did not fit into the memory of {self.precision.device}: it goes in "
                f"{n_parts} parts of {-(-size // n_parts)}, with the same gradient",
            )

    def _settle_compiled(self) -> None:
        """Decide, once a few steps have shown how long they take, whether the model is compiled."""
        __tracebackhide__ = True
        spec, standing, strides = self.job.spec, self.standing, self.strides
        if spec.compile == "auto" and standing.epoch == 1 and standing.step < N_SHOWING:
            return
        self._is_settled = True
        n_left = (spec.epochs - standing.epoch + 1) * (self.batches.n_batches or 0) - standing.step
        why = is_worth_trying(spec.compile, self.module, left_s=n_left * strides.seconds / strides.n_done)
        decided = Decided(None, why)
        if not why:
            now = random_state(self.precision.device)
            batch = next(self.batches.epoch(standing.epoch))
            decided = try_compiled(spec.compile, self.module, self.feed, batch)
            set_random_state(now, self.precision.device)
            self.settled["compiled"] = len(batch[1]) if decided.module is not None else 0
            self._use_compiled(decided.module)
            if decided.module is not None:
                self._end_pace()  # compiled code adds up in another order on other threads
        self.job.session.note("compiled", f"{'yes' if decided.module is not None else 'no'}: {decided.why}")

    def _use_compiled(self, called: Callable[..., Any] | None) -> None:
        if called is not None:
            self.strides.loss_of = loss_function(
                self.module, called, feed=self.feed, loss=self.loss, precision=self.precision
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
            if self._is_due(min(PAUSE_S, spec.checkpoint_every_s)) or self.is_stopped or self._is_over():
                self._save()

    def _judge(self, metrics: dict[str, float], more: dict[str, float], *, is_torn: bool) -> None:
        __tracebackhide__ = True
        standing = self.standing
        if self.validation is not None:
            metrics |= self._validation.run(self.module)
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

    def _is_due(self, pause_s: float) -> bool:
        return bool(self.job.team.first(self.checkpoints.due(pause_s)))

    def _save(self) -> None:
        """Write a checkpoint of this moment."""
        since = monotonic()
        if self.job.team.any(not is_finite(self.module)):
            return  # the next step shows it; the last checkpoint is of before
        self.checkpoints.save(capture(self.parts, self.standing, self.settled, self.job.team), since=since)
        self._start = None

    def _end_pace(self) -> None:
        if self.strides.pace is not None:
            self.strides.pace.close()
            self.strides.pace = None

    def _end(self) -> None:
        self._end_pace()
        self.checkpoints.flush()
        if self.checkpoints.error:
            self.job.session.note("checkpoint_error", self.checkpoints.error)
        assert self.checkpoints.best is not None  # one epoch at least was run
        if self.job.team.n == 1:  # of several, each one ends here: the best weights lie on the disk
            restore(self.module, self.checkpoints.best)
        self.module.eval()
        outcome = self.outcome
        outcome.best_epoch = self.standing.best_epoch
        outcome.epochs = len(outcome.history["epoch"])
        outcome.stopped_at = outcome.epochs if self.is_stopped else None
        self.job.session.note("best_epoch", outcome.best_epoch)
