"""What a report of one's own says and asks: ``lepton.window()``, ``lepton.check()``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.runner import session

if TYPE_CHECKING:
    from lepton_jupyter.stages.monitor.window import MonitorWindow

EXAMPLE = 'lepton.window("diagnosis", hours=24)'


def window(endpoint: str | None, *, hours: float | None) -> MonitorWindow:
    """Return the window of the run, or the last hours of an endpoint where a report is being written.

    Raises
    ------
    LeptonError
        If no endpoint is named and this is no monitor's run, or there is no such endpoint.
    """
    run = session.current() if session.is_inside() else None
    if (
        run is not None
        and run.record.endpoint is not None
        and endpoint in (None, run.record.endpoint)
        and hours is None
    ):
        return run.window
    name = endpoint or (run.record.endpoint if run is not None else None)
    if name is None:
        raise LeptonError("Outside of a monitor's run, an endpoint must be named.", EXAMPLE)
    if hours is not None and not 0 < hours < float("inf"):
        raise LeptonError(f"hours is {hours!r}; a number above 0 is wanted.", EXAMPLE)
    from lepton_jupyter.stages.monitor.window import read_window

    now = time.time()
    home = run.home if run is not None else Home.current()
    return read_window(home, name, now - 3600 * (1.0 if hours is None else hours), now)


def check(name: str, value: float | None) -> float | None:
    """Record a check of the run, and return its value.

    Raises
    ------
    LeptonError
        If the value is neither a number nor None.
    """
    if session.is_inside():
        session.current().check(name, value)
        return value
    print(f"{name} = {value}" if value is not None else f"{name}: not measured")  # noqa: T201  the cell's own output
    return value
