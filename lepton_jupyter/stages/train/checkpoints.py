"""Best weights and last state of a run on disk: one safetensors file each, whole or not there."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.stages.train.sharding import laid_out, whole
from lepton_jupyter.stages.train.state_file import read_state, write_state

PAUSE_S = 1.0  # between two writes: a short epoch must not wait for the disk
COST_SHARE = 0.01  # of the time may go into checkpoints: the pause grows with what one costs
BESIDE_BYTES = 2**25  # a state larger than this is written beside the training

BEST, LAST = "best", "last"

State = dict[str, torch.Tensor]


def snapshot(module: nn.Module) -> State:
    """Return copies of all weights and buffers, on the CPU."""
    return {
        name: whole(tensor.detach()).cpu().clone().contiguous()
        for name, tensor in module.state_dict().items()
        if torch.is_tensor(tensor)
    }


def restore(module: nn.Module, state: State) -> None:
    """Put weights and buffers back."""
    own = module.state_dict()
    fitting = {name: laid_out(tensor, own[name]) if name in own else tensor for name, tensor in state.items()}
    module.load_state_dict(fitting, strict=False)  # extra state that is no tensor stays as it is


class Checkpoints:
    """Write ``best.safetensors`` and ``last.safetensors`` below a folder. A full disk never stops training.

    Whoever reads both finds a best that is as old as the last state, or newer.

    Attributes
    ----------
    best : dict or None
        The best weights so far, in memory.
    error : str
        What the system said of the last write that failed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best: State | None = None
        self.error = ""
        self._waiting: tuple[State, dict[str, Any]] | None = None
        self._written_at = -PAUSE_S
        self._pause_s = PAUSE_S
        self._thread: threading.Thread | None = None

    def keep(self, kind: str, state: State, about: dict[str, Any]) -> None:
        """Keep the best weights, with what is known about them (JSON-ready). They are written before the next state."""
        assert kind == BEST
        self.best = state
        self._waiting = (state, about)

    def due(self, pause_s: float = PAUSE_S) -> bool:
        """Whether a state may be saved now: the last one is that old, or older where saving takes long."""
        is_writing = self._thread is not None and self._thread.is_alive()
        return not is_writing and monotonic() - self._written_at >= max(pause_s, self._pause_s)

    def save(self, state: dict[str, Any], *, since: float | None = None) -> None:
        """Write the best weights that still wait, then the last state.

        Parameters
        ----------
        state : dict
            As `state_file.write_state` takes it; nobody changes it any more.
        since : float, optional
            ``monotonic()`` when the state began to be copied: it counts for what a checkpoint costs.
        """
        started = monotonic() if since is None else since
        self._join()
        waiting, self._waiting = self._waiting, None
        if size_of(state) > BESIDE_BYTES:
            self._thread = threading.Thread(target=self._write, args=(waiting, state), name="checkpoint")
            self._thread.start()
        else:
            self._write(waiting, state)
        self._written_at = monotonic()
        self._pause_s = max(PAUSE_S, (self._written_at - started) / COST_SHARE)

    def flush(self) -> None:
        """Write what still waits, and wait for what is being written."""
        self._join()
        waiting, self._waiting = self._waiting, None
        self._write(waiting, None)

    def last(self) -> dict[str, Any] | None:
        """Return the state that a run goes on from; None where there is none."""
        self._join()
        path = self.folder / f"{LAST}.safetensors"
        return read_state(path) if path.exists() else None

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, best: tuple[State, dict[str, Any]] | None, last: dict[str, Any] | None) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if best is not None:
                content = to_bytes(best[0], {"about": json.dumps(best[1])})
                write_atomic(self.folder / f"{BEST}.safetensors", content, is_durable=False)
            if last is not None:
                write_state(self.folder / f"{LAST}.safetensors", last)
        except OSError as error:
            self.error = error.strerror or str(error)
            self._waiting = self._waiting or best  # a later write may have the room


class Unwritten(Checkpoints):
    """The checkpoints of a rank that writes none: it reads what the first has written before the group began."""

    def keep(self, kind: str, state: State, about: dict[str, Any]) -> None:
        """Keep nothing: the first rank does."""
        self.best = {}

    def save(self, state: dict[str, Any], *, since: float | None = None) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Write nothing."""


def size_of(state: Any) -> int:
    """Return the bytes of all tensors in a state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(size_of, state.values()))
    return sum(map(size_of, state)) if isinstance(state, list | tuple) else 0


def read_checkpoint(folder: Path, kind: str = BEST) -> tuple[State, dict[str, Any]] | None:
    """Return the best weights and what was known about them, or None where there are none."""
    path = folder / f"{kind}.safetensors"
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        return state, json.loads((file.metadata() or {}).get("about", "{}"))
