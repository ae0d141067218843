"""May this version be served? A pure decision from its evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.views import VersionView


@dataclass(frozen=True)
class Decision:
    """What to do with a version that shall be served.

    Attributes
    ----------
    needs_evaluation : bool
        It was never evaluated: do that first, then decide again.
    refused : LeptonError or None
        Why it must not be served.
    warning : str
        What to tell the person though it is served; empty where there is nothing.
    """

    needs_evaluation: bool = False
    refused: LeptonError | None = None
    warning: str = ""


def decide(version: VersionView, *, force: str | None, verb: str = "deploy") -> Decision:
    """Decide whether a version may be served, or leave for other machines.

    Parameters
    ----------
    version : VersionView
        With the verdict of its latest evaluation.
    force : str or None
        The person's reason to serve it though its evaluation failed, or though there is none. A version without a
        graph cannot be forced.
    verb : str
        What is asked: ``deploy`` or ``export``.

    Examples
    --------
    >>> from lepton_jupyter.formats.views import VersionView
    >>> version = VersionView(model="Net", run_id="ab12", number=3, bundle="", manifest_hash="", is_deployable=True,
    ...                       created_at=0.0, verdict="FAIL")
    >>> print(decide(version, force=None).refused)
    Net@3 failed its evaluation (FAIL): it is not deployed.
    Look: %lepton show Net@3. To deploy it all the same: --force "your reason"
    >>> decide(version, force="only model there is").warning
    'Net@3 failed its evaluation (FAIL) and is deployed all the same: only model there is'
    """
    ref = version.ref
    if not version.is_deployable:
        return Decision(refused=_not_deployable(version))
    if force is not None and not force.strip():
        return Decision(refused=LeptonError("--force wants a reason.", 'Say why: --force "your reason"'))
    if not version.verdict:
        if force is None:
            return Decision(needs_evaluation=True)
        return Decision(warning=f"{ref} was never evaluated and is {verb}ed all the same: {force}")
    if version.verdict == "FAIL":
        if force is None:
            return Decision(refused=_failed(ref, verb))
        return Decision(warning=f"{ref} failed its evaluation (FAIL) and is {verb}ed all the same: {force}")
    if version.verdict == "INCONCLUSIVE":
        return Decision(warning=f"The evaluation of {ref} is INCONCLUSIVE: its rows do not settle what was required.")
    return Decision()


def _not_deployable(version: VersionView) -> LeptonError:
    return LeptonError(
        f"{version.ref} is not deployable: {version.why_not or 'it could not be exported'}.",
        "Change the model so that it can be exported, and train again.",
        code="refused",
    )


def _failed(ref: str, verb: str) -> LeptonError:
    return LeptonError(
        f"{ref} failed its evaluation (FAIL): it is not {verb}ed.",
        f'Look: %lepton show {ref}. To {verb} it all the same: --force "your reason"',
        code="refused",
    )
