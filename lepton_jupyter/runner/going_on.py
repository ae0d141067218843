"""What a cell keeps to go on from: ``lepton.checkpoint(state)`` and ``lepton.restore()``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lepton_jupyter.core.errors import LeptonError

if TYPE_CHECKING:
    import torch

    from lepton_jupyter.runner.session import RunSession

OURS = "__lepton__"


def checkpoint(run: RunSession, state: Mapping[str, Any]) -> None:
    """Write a cell's state, and that of every random generator, whole or not at all. Of several ranks the first does.

    Parameters
    ----------
    run : RunSession
    state : mapping
        Tensors, arrays, numbers, text, and dicts and lists of such: ``model.state_dict()`` in place of a model.

    Raises
    ------
    LeptonError
        If it holds something else. A full disk is noted, and stops nothing.
    """
    if not isinstance(state, Mapping):
        raise LeptonError(
            f"lepton.checkpoint got a {type(state).__name__}; wanted: a dict.",
            'lepton.checkpoint({"model": model.state_dict(), "epoch": epoch})',
        )
    if run.is_silent:
        return
    from lepton_jupyter.stages.train.randomness import random_state
    from lepton_jupyter.stages.train.state_file import write_state

    ours = {"random": random_state(_device()), "step": run._step}  # the session's own count: it goes on with the state
    try:
        run.files.checkpoints.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_state(run.files.cell_state, {**state, OURS: ours})
    except OSError as error:
        run.note("checkpoint_error", error.strerror or str(error))


def restore(run: RunSession) -> dict[str, Any] | None:
    """Return what the cell last gave `checkpoint`, its tensors on the CPU, and put the random generators back.

    None where the cell begins for the first time. Of several ranks each gets the state; the generators are the first's.
    """
    if not run.files.cell_state.exists():
        return None
    from lepton_jupyter.stages.train.randomness import set_random_state
    from lepton_jupyter.stages.train.state_file import read_state

    state = read_state(run.files.cell_state)
    ours = state.pop(OURS)
    run._step = ours["step"]
    if not run.is_silent:
        set_random_state(ours["random"], _device())
        run.note("resumed", {"step": ours["step"]})
    return state


def _device() -> torch.device:
    import torch

    return torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
