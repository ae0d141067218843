"""A run's view, one event after the other: pure functions."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED, RunState
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import Failure, RunView
from lepton_jupyter.runner.provenance import git_line

STATES = frozenset(get_args(RunState))
OF_CELLS = ("notebook", "monitor", "retrain")  # kinds whose progress is that of their cells
_OF_EVERY_EVENT = ("at", "kind", "seq", "source", "read")


def first_view(folder: RunFolder, record: RunRecord) -> RunView:
    """Return the view of a run of which nothing was heard yet."""
    return RunView(
        run_id=record.run_id,
        kind=record.kind,
        title=record.title,
        state="queued",
        created_at=record.created_at,
        model=record.model,
        dataset=record.dataset,
        model_version=record.model_version,
        parent=record.parent,
        command=record.command,
        folder=str(folder.root),
        endpoint=record.endpoint,
        schedule=record.schedule,
        notes=_origin(folder, record),
    )


def _origin(folder: RunFolder, record: RunRecord) -> dict[str, Any]:
    """Return what is known of where a run comes from: ``git``, ``cells`` of the notebook, ``packages``."""
    try:
        labels = msgspec.json.decode((folder.payload / "index.json").read_bytes()).get("labels", {})
    except (OSError, msgspec.DecodeError):
        labels = {}
    cells = ", ".join(f"In[{label}]" for label in labels.values() if label.isdigit())
    found = {"git": git_line(record.git), "cells": cells, "packages": record.packages}
    return {key: value for key, value in found.items() if value}


def applied(view: RunView, event: dict[str, Any]) -> RunView:
    """Return the view after one merged event. What is not understood changes the sequence number only."""
    changes: dict[str, Any] = {"seq": event.get("seq", view.seq)}
    kind = event.get("kind")
    if kind == "state":
        changes |= _after_state(view, event)
    elif kind == "metric" and isinstance(event.get("values"), dict):
        # null is a NaN or an infinity: JSON has none, and the newest finite value says more
        finite = {key: float(value) for key, value in event["values"].items() if isinstance(value, int | float)}
        changes["metrics"] = {**view.metrics, **finite}
    elif kind == "telemetry" and isinstance(event.get("values"), dict):
        told = {key: float(value) for key, value in event["values"].items() if isinstance(value, int | float)}
        changes["telemetry"] = {**view.telemetry, **told}
    elif kind == "note" and "key" in event:
        changes["notes"] = {**view.notes, str(event["key"]): event.get("value")}
    elif kind == "progress":
        changes["progress"] = {name: event.get(name) for name in ("done", "total", "unit")}
    elif kind == "check" and "name" in event:
        changes["checks"] = {**view.checks, str(event["name"]): _number(event.get("value"))}
    elif kind == "cell" and view.kind in OF_CELLS:
        is_done = event.get("status") in ("completed", "failed")
        done = int(event.get("index") or 0) + (1 if is_done else 0)
        changes["progress"] = {"done": done, "total": event.get("n"), "unit": "cells"}
    elif kind == "result":
        changes["result"] = {key: value for key, value in event.items() if key not in _OF_EVERY_EVENT}
    return msgspec.structs.replace(view, **changes)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _after_state(view: RunView, event: dict[str, Any]) -> dict[str, Any]:
    state = event.get("state")
    if state not in STATES or view.state in ENDED:
        return {}
    changes: dict[str, Any] = {"state": state, "needs": str(event.get("needs", ""))}
    if state == "starting" and view.started_at is None:
        changes["started_at"] = event.get("at")
    if state in ENDED:
        changes["ended_at"] = event.get("at")
        changes["version"] = event.get("version")
        if isinstance(event.get("error"), dict):
            changes["error"] = msgspec.convert(event["error"], Failure)
    return changes
