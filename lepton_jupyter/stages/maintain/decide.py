"""May a version that was trained again take the champion's place? A pure decision from its evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lepton_jupyter.formats.evaluation import Comparison, EvaluationRecord
from lepton_jupyter.stages.evaluate.summary import describe_requirement

What = Literal["promote", "keep", "ask"]
SAID = {"promote": "promoted", "keep": "not promoted", "ask": "waits for you", "nothing new": "nothing new"}


@dataclass(frozen=True)
class Decision:
    """What becomes of a version that was trained again.

    Attributes
    ----------
    what : str
        ``promote``; ``keep`` (the champion stays); ``ask`` (it is better, and a person has the last word).
    reason : str
        One sentence with the figures.
    """

    what: What
    reason: str


def decide(found: EvaluationRecord, *, champion: str | None, approve: bool = False, why_not: str = "") -> Decision:
    """Decide whether a version is promoted: only where it meets every requirement and is better than the champion.

    Parameters
    ----------
    found : EvaluationRecord
        Its evaluation, compared with the champion on rows that neither was trained on.
    champion : str or None
        ``NAME@2``. None: there is none; then meeting the requirements is enough.
    approve : bool
        Whether a person is asked before it is promoted.
    why_not : str
        Why it could not be deployed; empty where it could.

    Examples
    --------
    >>> from lepton_jupyter.formats.evaluation import EvaluationRecord
    >>> found = EvaluationRecord(model="Net", version="Net@2", run_id="ab12", dataset="d@2:test", task="binary",
    ...                          n_rows=90, verdict="NONE", metrics={}, intervals={})
    >>> decide(found, champion="Net@1")
    Decision(what='keep', reason='Nothing was required of Net@2, so nothing says that it is good enough.')
    """
    ref = found.version
    if why_not:
        return Decision("keep", f"{ref} is not deployable: {why_not}.")
    if found.verdict != "PASS":
        return Decision("keep", _short_of(found))
    met = f"it meets {', '.join(one.text for one in found.requirements)}"
    if champion is None:
        reason = f"{ref} has no champion to beat, and {met}."
    elif found.comparison is None:
        return Decision("keep", f"{ref} was not compared with {champion}.")
    elif found.comparison.verdict != "better":
        return Decision("keep", f"{ref} is not shown to be better than {champion}: {_compared(found.comparison)}.")
    else:
        reason = f"{ref} is better than {champion}: {_compared(found.comparison)}; and {met}."
    return Decision("ask" if approve else "promote", reason)


def _short_of(found: EvaluationRecord) -> str:
    if found.verdict == "NONE":
        return f"Nothing was required of {found.version}, so nothing says that it is good enough."
    open_ones = [describe_requirement(one) for one in found.requirements if one.verdict == found.verdict]
    how = "misses what is required" if found.verdict == "FAIL" else "has too few rows to say whether it is good enough"
    return f"{found.version} {how}: {'; '.join(open_ones)}."


def _compared(comparison: Comparison) -> str:
    if comparison.difference is None or comparison.low is None or comparison.high is None:
        return f"{comparison.verdict}, {comparison.reason}"
    said = {"worse": "worse, "}.get(comparison.verdict, "")
    return (
        f"{said}{comparison.metric} differs by {comparison.difference:+.3g} ({comparison.low:+.3g} to "
        f"{comparison.high:+.3g}) on {comparison.n_rows:,} rows that neither was trained on"
    )
