"""The states of an alert: what one more report does to it. Pure: tables in, decision out."""

from __future__ import annotations

from typing import NamedTuple

from lepton_jupyter.formats.alerts import AlertState


class Standing(NamedTuple):
    """How an alert stands: None where there is none, and for how many reports in a row its rule was met."""

    state: AlertState | None = None
    n_met: int = 0


def next_standing(before: Standing, is_met: bool | None, for_reports: int) -> Standing:
    """Return how an alert stands after one more report.

    Parameters
    ----------
    before : Standing
        A resolved one counts as none: what comes is a new episode.
    is_met : bool or None
        Whether the report meets the rule; None where it could not be measured: then nothing changes.
    for_reports : int
        Reports in a row that must meet the rule before the alert fires.

    Examples
    --------
    >>> next_standing(Standing(), True, for_reports=2)
    Standing(state='pending', n_met=1)
    >>> next_standing(Standing("pending", 1), True, for_reports=2)
    Standing(state='firing', n_met=2)
    >>> next_standing(Standing("firing", 2), None, for_reports=2)
    Standing(state='firing', n_met=2)
    >>> next_standing(Standing("firing", 2), False, for_reports=2)
    Standing(state='resolved', n_met=0)
    """
    is_open = before.state in ("pending", "firing")
    if is_met is None:
        return before
    if not is_met:
        return Standing("resolved") if is_open else before
    n_met = before.n_met + 1 if is_open else 1
    is_firing = before.state == "firing" or n_met >= for_reports
    return Standing("firing" if is_firing else "pending", n_met)
