"""Which runs go on after a death that was not the user's doing, and how often."""

from __future__ import annotations

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.formats.views import Failure

GOES_ON = ("train", "tune")  # a cell too, once it has written a checkpoint: what else it did may not be done twice
MAX_RESTARTS = 2


def may_go_on(run: FollowedRun, *, is_counted: bool) -> bool:
    """Whether a run whose processes are dead is started again, in its own folder, from its checkpoint.

    Parameters
    ----------
    run : FollowedRun
    is_counted : bool
        False where its host, container or session was stopped: that is no fault of the run.
    """
    if run.stop_asked is not None or (is_counted and run.n_restarts >= MAX_RESTARTS):
        return False
    return run.record.kind in GOES_ON or (run.record.kind == "cell" and run.folder.cell_state.exists())


def after_restarts(failure: Failure | None, n_restarts: int) -> Failure | None:
    """Return the reason of a run that ended badly, with how often it had been started again."""
    if failure is None or not n_restarts:
        return failure
    times = "once" if n_restarts == 1 else "twice" if n_restarts == 2 else f"{n_restarts} times"
    hint = f"It had been started again {times} before."
    return Failure(
        message=failure.message, hint=f"{hint} {failure.hint}".strip(), code=failure.code, detail=failure.detail
    )
