"""Run a cell, or the engine's loop, once a device: a group of processes that begins again where one of them dies.

The kernel waits, writes down what rank 0 says, and hands on an interrupt. The ranks die with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import tail
from lepton_jupyter.runner.rank_group import Group

if TYPE_CHECKING:
    from lepton_jupyter.runner.session import RunSession

MAX_RESTARTS = 2
LOG_LINES = 20
# What a rank of ``%lepton train --devices N`` runs.
TRAIN = """from lepton_jupyter.runner import session
from lepton_jupyter.stages.train.distributed import train_as_rank

run = session.current()
train_as_rank(run, run.model, run.data, run.spec, names=run.names)
"""


def run_in_ranks(
    run: RunSession,
    source: str,
    *,
    can_resume: Callable[[], bool],
    each_look: Callable[[], None] = lambda: None,
) -> None:
    """Run Python source once a device of the run; return when all ranks have ended.

    Parameters
    ----------
    run : RunSession
    source : str
        A cell.
    can_resume : callable
        Whether a group that has lost a rank shall begin again: whether there is a checkpoint to begin from.
    each_look : callable
        Called some times a second meanwhile.

    Raises
    ------
    RankError
        What the first rank that failed has raised.
    LeptonError
        If a rank died and the group could not begin again, or did so too often.
    KeyboardInterrupt
        If the run was asked to stop, and the source did not end by itself.
    """
    reasons: list[str] = []
    logged: set[tuple[Any, ...]] = set()
    while True:
        ended = Group(run, source, len(run.devices), each_look, logged).run()
        if ended.rank is None:
            return
        if run.interrupts.is_asked:
            raise KeyboardInterrupt
        if ended.raised is not None or ended.told is not None:
            raise ended.error()
        reasons.append(ended.reason)
        if len(reasons) > MAX_RESTARTS or not can_resume():
            raise _lost(run, reasons)
        run.note("restarts", len(reasons))
        run.note("restart_reason", ended.reason)


def _lost(run: RunSession, reasons: list[str]) -> LeptonError:
    lines = tail(run.files.log, LOG_LINES)
    hint = "lepton.checkpoint(state) and lepton.restore() in the cell let the ranks go on after such a death."
    if len(reasons) > 1:
        hint = f"The ranks began again {len(reasons) - 1} times before: {'; '.join(reasons[:-1])}."
    return LeptonError(
        f"{reasons[-1]}.", hint, code="failed", detail=f"Last lines of the log:\n{lines}" if lines else ""
    )


def train_in_ranks(run: RunSession, each_look: Callable[[], None]) -> None:
    """Train the run's model once a device: where a rank dies, all go on from the last checkpoint, or begin anew."""
    __tracebackhide__ = True
    run.note("ranks", len(run.devices))
    run_in_ranks(run, TRAIN, can_resume=lambda: True, each_look=each_look)


# -- the cell of ``%%lepton train --devices N``


def take_cell(run: RunSession, shell: Any) -> None:
    """Let the run's program, when the notebook comes to it, run in the ranks."""
    program = _program(run)

    def instead(lines: list[str]) -> list[str]:
        if "".join(lines).strip() != program.strip():
            return lines
        return ["__import__('lepton_jupyter.runner.ranks', fromlist=['ranks']).run_program()\n"]

    shell.input_transformers_cleanup.insert(0, instead)


def run_program() -> None:
    """Run the cell once a device: in place of the cell itself."""
    __tracebackhide__ = True
    from lepton_jupyter.runner.session import current

    run = current()
    run.note("ranks", len(run.devices))
    state = run.files.checkpoints / "state.safetensors"
    run_in_ranks(run, _program(run), can_resume=state.exists)


def _program(run: RunSession) -> str:
    import json

    notebook = json.loads(run.files.source.read_bytes())
    cells = [cell for cell in notebook["cells"] if cell.get("cell_type") == "code"]
    source = cells[-1]["source"] if cells else ""
    return source if isinstance(source, str) else "".join(source)
