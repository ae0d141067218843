"""Find the layer at which a loss stopped being a number: the training is repeated from its last checkpoint, watched."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.session import Quiet, Session
from lepton_jupyter.stages.train.checkpoints import Checkpoints, State

if TYPE_CHECKING:
    from lepton_jupyter.stages.train.loop import Loop

PATIENCE_S = 60.0  # whoever waits for the name of a layer would rather have the message


def layer_of(loop: Loop, state: dict[str, Any] | None, *, epoch: int, step: int) -> str:
    """Return ``layer 'net.2' (ReLU)``: whose answer was the first that was not finite; empty where nobody can tell.

    A training goes on from a checkpoint to the last bit, so it also fails again at the same step; this time every
    layer is looked at.

    Parameters
    ----------
    loop : Loop
        The one that has failed. It is not changed, but its module is.
    state : dict or None
        What to go on from; None: the module holds the weights of the start.
    epoch, step : int
        Where it failed, both from 1.
    """
    watched = _Watched(loop.module, monotonic() + PATIENCE_S)
    session: Any = _Muted(loop.job.session, watched)
    again = dataclasses.replace(
        loop,
        job=dataclasses.replace(loop.job, session=session),
        checkpoints=_Unwritten(loop.checkpoints.folder / "none"),
        going_on=state,
        each_stride=lambda: None,
        outcome=type(loop.outcome)(),
        is_repeated=True,
    )
    try:
        with watched.hooked():
            again.run()
    except LeptonError:
        pass  # as the first time
    if again.diverged_at != (epoch, step):
        return ""
    return watched.found or "the loss itself (every layer's answer was finite)"


class _Watched:
    """Looks at every layer's answer."""

    def __init__(self, module: nn.Module, deadline: float) -> None:
        self.module, self.deadline = module, deadline
        self.found = ""

    @contextmanager
    def hooked(self) -> Iterator[None]:
        names = {part: name for name, part in self.module.named_modules()}
        handles = [part.register_forward_hook(self._look(names[part])) for part in names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _look(self, name: str) -> Any:
        def look(part: nn.Module, _: Any, answer: Any) -> None:
            if self.found or not torch.is_tensor(answer) or bool(torch.isfinite(answer).all()):
                return
            self.found = f"layer '{name}' ({type(part).__name__})" if name else f"forward of {type(part).__name__}"
            if not all(bool(torch.isfinite(weight).all()) for weight in part.parameters()):
                self.found += ", whose weights were not finite any more"

        return look


class _Muted(Quiet):
    """Nobody hears it, but it is to stop when the other one is, or when its time is over."""

    def __init__(self, session: Session, watched: _Watched) -> None:
        super().__init__(session.run_id, session.folder, session.devices)
        self._session, self._watched = session, watched

    def should_stop(self) -> bool:
        return self._session.should_stop() or monotonic() > self._watched.deadline


class _Unwritten(Checkpoints):
    """Checkpoints that are kept nowhere."""

    def keep(self, kind: str, state: State, about: dict[str, Any]) -> None:
        self.best = state

    def due(self, pause_s: float = 0.0) -> bool:
        return False

    def save(self, state: dict[str, Any], *, since: float | None = None) -> None: ...

    def flush(self) -> None: ...
