"""The verdict: does what was measured meet what was required?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.states import Verdict
from lepton_jupyter.formats.evaluation import Interval, Requirement
from lepton_jupyter.stages.evaluate.requirements import Bound, parse_requirement

MOST_ROWS = 10**9  # beyond so many, "more rows" is no advice


def judge(
    texts: Sequence[str], values: Mapping[str, float], intervals: Mapping[str, Interval], *, n_rows: int
) -> tuple[Verdict, tuple[Requirement, ...]]:
    """Judge requirements.

    Parameters
    ----------
    texts : sequence of str
        As typed, such as ``roc_auc >= 0.95``.
    values, intervals : mapping by metric
        A metric without an interval (few rows) can fail, and cannot pass.
    n_rows : int
        Rows that were measured.

    Returns
    -------
    verdict : str
        ``FAIL`` where a point misses its bound; else ``INCONCLUSIVE`` where an interval reaches over one; else
        ``PASS``; ``NONE`` where nothing was required.
    requirements : tuple of Requirement

    Raises
    ------
    LeptonError
        If a text is no requirement, or its metric has no value on these rows.
    """
    found = tuple(_judge_one(text, values, intervals, n_rows) for text in texts)
    verdicts = {requirement.verdict for requirement in found}
    overall: Verdict = next((v for v in ("FAIL", "INCONCLUSIVE", "PASS") if v in verdicts), "NONE")
    return overall, found


def _judge_one(text: str, values: Mapping[str, float], intervals: Mapping[str, Interval], n_rows: int) -> Requirement:
    bound = parse_requirement(text)
    if bound.metric not in values:
        raise LeptonError(
            f"'{text}' cannot be judged: {bound.metric} is not defined on these rows. Defined: {', '.join(values)}.",
            "Require one of these, or evaluate on other rows with --data NAME:SPLIT.",
            code="refused",
        )
    value, interval = values[bound.metric], intervals.get(bound.metric)
    near_end = None if interval is None else interval.low if bound.wants_more else interval.high
    verdict: Verdict = "INCONCLUSIVE"
    if not bound.is_met_by(value):
        verdict = "FAIL"
    elif near_end is not None and bound.is_met_by(near_end):
        verdict = "PASS"
    rows = _rows_needed(bound, value, near_end, n_rows) if verdict == "INCONCLUSIVE" else None
    return Requirement(
        text=text, metric=bound.metric, operator=bound.operator, bound=bound.bound, value=value, verdict=verdict,
        rows_needed=rows,
    )  # fmt: skip


def _rows_needed(bound: Bound, value: float, near_end: float | None, n_rows: int) -> int | None:
    """Return about how many rows would settle it if the value stayed: an interval narrows with the root of the rows."""
    distance = abs(value - bound.bound)
    if near_end is None or distance == 0:
        return None
    rows = n_rows * (abs(value - near_end) / distance) ** 2
    if not rows < MOST_ROWS:
        return None
    digits = 10 ** max(0, math.floor(math.log10(rows)) - 1)
    return max(n_rows + 1, math.ceil(rows / digits) * digits)  # two digits: it is no more exact than that
