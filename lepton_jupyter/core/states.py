"""The states that a run and an endpoint can be in."""

from __future__ import annotations

from typing import Literal

RunState = Literal["queued", "starting", "running", "completed", "failed", "stopped", "lost"]
EndpointState = Literal["starting", "ready", "updating", "stopped", "error"]

ENDED: frozenset[str] = frozenset({"completed", "failed", "stopped", "lost"})

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "NONE"]
Task = Literal["binary", "multiclass", "regression"]
