"""Best and last weights of a run on disk: one safetensors file each, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from lepton_jupyter.core.files import write_atomic

PAUSE_S = 1.0  # between two writes of the same file: a short epoch must not wait for the disk

State = dict[str, torch.Tensor]


def snapshot(module: nn.Module) -> State:
    """Return copies of all weights and buffers, on the CPU."""
    return {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in module.state_dict().items()
        if torch.is_tensor(tensor)
    }


def restore(module: nn.Module, state: State) -> None:
    """Put weights and buffers back."""
    module.load_state_dict(state, strict=False)  # extra state that is no tensor stays as it is


class Checkpoints:
    """Write ``best.safetensors`` and ``last.safetensors`` below a folder. A full disk never stops training.

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
        self._written_at: dict[str, float] = {}
        self._waiting: dict[str, tuple[State, dict[str, Any]]] = {}

    def keep(self, kind: str, state: State, about: dict[str, Any]) -> None:
        """Keep weights as ``best`` or ``last``, with what is known about them (JSON-ready)."""
        if kind == "best":
            self.best = state
        self._waiting[kind] = (state, about)
        if monotonic() - self._written_at.get(kind, -PAUSE_S) >= PAUSE_S:
            self.flush(kind)

    def flush(self, *kinds: str) -> None:
        """Write what still waits."""
        for kind in kinds or tuple(self._waiting):
            state, about = self._waiting.pop(kind, (None, {}))
            if state is None:
                continue
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                content = to_bytes(state, {"about": json.dumps(about)})
                write_atomic(self.folder / f"{kind}.safetensors", content, is_durable=False)
            except OSError as error:
                self.error = error.strerror or str(error)
            self._written_at[kind] = monotonic()


def read_checkpoint(folder: Path, kind: str = "best") -> tuple[State, dict[str, Any]] | None:
    """Return weights and what was known about them, or None where there are none."""
    path = folder / f"{kind}.safetensors"
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        return state, json.loads((file.metadata() or {}).get("about", "{}"))
