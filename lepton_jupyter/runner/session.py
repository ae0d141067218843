"""What code inside a run may say and ask: ``from lepton_jupyter.runner import session; run = session.current()``."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.formats.bundle import Bundle, open_bundle
from lepton_jupyter.formats.events import EventWriter, Pace
from lepton_jupyter.runner import rank_channel
from lepton_jupyter.runner.asked import Asked
from lepton_jupyter.runner.interrupts import Interrupts
from lepton_jupyter.runner.rank_channel import RankEvents, rank_here

if TYPE_CHECKING:
    from lepton_jupyter.stages.data.store import Dataset

PROGRESS_S = 0.1
RESERVE_BYTES = 16 * 2**20
RESERVE_LEAST_BYTES = 2**16

_current: RunSession | None = None


class RunSession(Asked):
    """The run that this kernel executes: a `lepton_jupyter.core.session.Session`, and what was asked.

    Attributes
    ----------
    record : RunRecord
        What was asked.
    home : Home
    folder : Path
        The run's folder.
    rank : int or None
        Of this process among those of a run on several devices; None for the kernel. Rank 0 alone logs and saves.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.interrupts = Interrupts()
        self.rank = rank_here()
        self._events = self._writer()
        self._step, self._progress_at = 0, 0.0
        self._pace = Pace()
        self._is_acknowledged = False
        self._has_warned = False

    @property
    def is_silent(self) -> bool:
        """Whether another rank logs, saves and writes checkpoints."""
        return bool(self.rank)

    def _writer(self) -> EventWriter | RankEvents:
        if rank_channel.here is not None and self.rank is not None:
            return RankEvents(rank_channel.here, self.rank, self.files.kernel_events)
        return EventWriter(self.files.kernel_events)

    # -- what is said

    def check(self, name: str, value: float | None) -> None:
        """Record a check: a value by which alerts are judged; None where it could not be measured.

        Raises
        ------
        LeptonError
            For a value that is neither a number nor None.
        """
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise LeptonError(
                f"The check '{name}' is {value!r}, of type {type(value).__name__}: a number or None is wanted.",
                f'lepton.check("{name}", float(…))',
            ) from error
        self._say("check", name=str(name), value=number if number is None or math.isfinite(number) else None)

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        """Record metrics at a step; without one, at the next. Never raises because a disk is full.

        Raises
        ------
        LeptonError
            For a value that is not a number.
        """
        self._step = self._step + 1 if step is None else int(step)
        values: dict[str, float] = {}
        for name, value in metrics.items():
            try:
                values[name] = float(value)
            except (TypeError, ValueError) as error:
                raise LeptonError(
                    f"The metric '{name}' is {value!r}, of type {type(value).__name__}: a number is wanted.",
                    f"lepton.log({name}=float(…))",
                ) from error
        self._say("metric", step=self._step, values=values)

    def note(self, key: str, value: Any) -> None:
        """Record one JSON-ready fact; what JSON does not know becomes text."""
        self._say("note", key=key, value=_plain(value))

    def result(self, **summary: Any) -> None:
        """Record what the run found, JSON-ready: a card shows it."""
        self._say("result", **_plain(summary))

    def telemetry(self, **values: float) -> None:
        """Record how the work goes between two metrics; the longer the run, the more rarely."""
        if self._pace.is_due():
            self._say("telemetry", values=_plain(values))

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that this run holds."""
        return tuple(filter(None, os.environ.get("LEPTON_DEVICES", "").split(",")))

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the work is; ten times a second at most, and the last one always."""
        now = time.monotonic()
        if done < total and now - self._progress_at < PROGRESS_S:
            return
        self._progress_at = now
        self._say("progress", done=int(done), total=int(total), unit=unit)

    def should_stop(self) -> bool:
        """Whether the user asked the run to stop. From the first call on, an interrupt only raises this flag."""
        self.interrupts.is_polled = True
        if self.interrupts.is_asked and not self._is_acknowledged:
            self._acknowledge()
        return self.interrupts.is_asked

    def tell_error(self, record: dict[str, str]) -> None:
        """Tell the supervisor why a cell failed."""
        self._say("log", level="error", text=record["message"], error=record)

    def train_in_ranks(self, each_look: Callable[[], None]) -> None:
        """Train the model once a device; see `ranks.train_in_ranks`."""
        from lepton_jupyter.runner.ranks import train_in_ranks

        train_in_ranks(self, each_look)

    def relay(self, event: dict[str, Any]) -> None:
        """Record an event of rank 0, with its time."""
        self._say(**event)

    def save(
        self, model: Any, *, name: str | None = None, data: str | None = None, example: Any = None
    ) -> Bundle | None:
        """Make the run's version of a trained model: what ``lepton.save`` does inside a run.

        Parameters
        ----------
        model : object
            A trained module or a fitted estimator.
        name : str, optional
            The model's name; None for the one that the cell was given.
        data : str, optional
            A dataset's reference; None for the cell's ``--data``.
        example : object, optional
            Rows as the model takes them, by which it is exported where no dataset says how.

        Returns
        -------
        Bundle or None
            It lies in the run's folder; a later save takes its place. None in a rank but the first.
        """
        if self.is_silent:
            return None
        if self.rank is not None and type(model).__name__ == "DistributedDataParallel":
            model = model.module
        from lepton_jupyter.stages.train.saving import save

        said = name or self.record.model
        if said is None:
            raise LeptonError("lepton.save wants a name here.", 'lepton.save(model, name="NAME", example=x)')
        if self.interrupts.is_asked:
            self._acknowledge()  # it takes longer than an interrupted cell is given
        self.release_reserve()
        fresh = self.folder / "bundle.new"
        shutil.rmtree(fresh, ignore_errors=True)
        save(
            model=model,
            name=said,
            run_id=self.run_id,
            folder=fresh,
            dataset=self._dataset_named(data),
            example=example,
            session=self,
        )
        shutil.rmtree(self.files.bundle, ignore_errors=True)
        fresh.rename(self.files.bundle)
        return open_bundle(self.files.bundle)

    def reserve_room(self) -> None:
        """Take room on the disk for the bundle and for the last words; where there is little, take less."""
        size = RESERVE_BYTES
        while size >= RESERVE_LEAST_BYTES:
            descriptor = os.open(self.files.reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
                return
            except OSError:
                os.ftruncate(descriptor, 0)
                size //= 4
            finally:
                os.close(descriptor)

    def release_reserve(self) -> None:
        """Give the room back: the bundle is written now."""
        self.files.reserve.unlink(missing_ok=True)

    def _dataset_named(self, data: str | None) -> Dataset | None:
        if data is None:
            return self.dataset if self._data_reference is not None else None
        from lepton_jupyter.stages.data.store import Store

        return Store(self.home).open(parse(data, "dataset"))

    def _acknowledge(self) -> None:
        if not self._is_acknowledged:
            self._is_acknowledged = True
            self._say("note", key="stopping", value=True)
            self._say("state", state="stopping")

    def _say(self, kind: str, **data: Any) -> None:
        if self._events.write(kind, **data) or self._has_warned:
            return
        self._has_warned = True
        print(  # noqa: T201  the cell's own output is what still reaches somebody
            f"Events of this run cannot be written ({self._events.last_error}: {self._events.path}); it goes on.",
            file=sys.stderr,
        )


def current() -> RunSession:
    """Return the session of the run that this kernel executes.

    Raises
    ------
    LeptonError
        Outside of a run.
    """
    global _current
    named = os.environ.get("LEPTON_RUN")
    if not named:
        raise LeptonError("This kernel executes no run.", "lepton.log and friends work inside of %%lepton train cells.")
    if _current is None or str(_current.folder) != named:
        _current = RunSession(RunFolder(Path(named)))
    return _current


def is_inside() -> bool:
    """Whether this process is, or belongs to, a run."""
    return bool(os.environ.get("LEPTON_RUN"))


def log(*, step: int | None = None, **metrics: float) -> None:
    """Record metrics of the run: what ``lepton.log`` does inside one."""
    current().log(step=step, **metrics)


def save(model: Any, *, name: str | None = None, data: str | None = None, example: Any = None) -> Bundle | None:
    """Make the run's version of a trained model: what ``lepton.save`` does inside a run."""
    return current().save(model, name=name, data=data, example=example)


def begin() -> None:
    """Make the kernel ready before its first cell: called by the supervisor, in no visible cell."""
    from lepton_jupyter.runner.inside import prepare

    prepare(current())


def finish() -> None:
    """Bundle the best checkpoint of a run that was stopped and whose kernel is gone: in a second kernel."""
    from lepton_jupyter.runner.inside import prepare

    run = current()
    prepare(run)
    run.release_reserve()
    if run.record.kind == "tune":
        from lepton_jupyter.stages.tune.engine import finish_stopped as finish_search

        finish_search(run, run.model, run.dataset, run.spec, names=run.names)
        return
    from lepton_jupyter.stages.train.engine import finish_stopped

    finish_stopped(run, run.model, run.data, run.spec, names=run.names)


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_as_number_or_text)


def _as_number_or_text(value: Any) -> Any:
    item = getattr(value, "item", None)  # numpy's and torch's scalars
    if callable(item) and getattr(value, "size", 1) == 1:
        return item()
    return value.tolist() if hasattr(value, "tolist") else str(value)
