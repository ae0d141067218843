"""What may be served, by its evaluation."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.stages.deploy.gate import Decision, decide


def version(**changes: Any) -> VersionView:
    return VersionView(
        **{
            "model": "Net", "run_id": "ab12", "number": 3, "bundle": "", "manifest_hash": "", "is_deployable": True,
            "created_at": 0.0,
        } | changes
    )  # fmt: skip


def test_pass_and_nothing_required_are_served_without_a_word() -> None:
    assert decide(version(verdict="PASS"), force=None) == Decision()
    assert decide(version(verdict="NONE"), force=None) == Decision()


def test_what_was_never_evaluated_is_evaluated_first() -> None:
    assert decide(version(), force=None) == Decision(needs_evaluation=True)


def test_a_failed_version_is_refused_unless_forced_with_a_reason() -> None:
    decision = decide(version(verdict="FAIL"), force=None)
    assert decision.refused is not None and decision.refused.code == "refused"
    assert "Net@3 failed its evaluation (FAIL)" in decision.refused.message and "--force" in decision.refused.hint
    forced = decide(version(verdict="FAIL"), force="the old one is worse")
    assert forced.refused is None and "the old one is worse" in forced.warning
    empty = decide(version(verdict="FAIL"), force=" ")
    assert empty.refused is not None and "--force wants a reason" in empty.refused.message


def test_an_inconclusive_version_is_served_with_a_warning() -> None:
    decision = decide(version(verdict="INCONCLUSIVE"), force=None)
    assert decision.refused is None and not decision.needs_evaluation and "INCONCLUSIVE" in decision.warning


def test_what_has_no_graph_cannot_be_forced() -> None:
    for force in (None, "please"):
        decision = decide(version(is_deployable=False, why_not="it sorts the batch", verdict="PASS"), force=force)
        assert decision.refused is not None
        assert decision.refused.message == "Net@3 is not deployable: it sorts the batch."
