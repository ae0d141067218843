"""Jupyter events: what happens to runs, endpoints, alerts and schedules, each by its schema."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).with_name("schemas")
ROOT = "https://events.lepton-jupyter.org"
View = dict[str, Any]


def register(event_logger: Any, log: logging.Logger) -> Any:
    """Make the schemas known to a Jupyter server; return what emits an event where a view says one."""
    for path in sorted(SCHEMAS.glob("*.yaml")):
        event_logger.register_event_schema(path)

    def emit(kind: str, before: View | None, after: View) -> None:
        data = EVENTS[kind](before or {}, after) if kind in EVENTS else None
        if data is None:
            return
        try:
            event_logger.emit(schema_id=f"{ROOT}/{kind}/v1", data=data)
        except Exception as error:  # a validation error of a schema is no reason to end the stream
            log.warning("lepton_jupyter: an event of kind %s was not emitted: %s", kind, error)

    return emit


def _run(before: View, after: View) -> View | None:
    if before.get("state") == after["state"]:
        return None
    return _some(after, "run_id", "kind", "title", "state", "model", "version", "endpoint", "schedule")


def _endpoint(before: View, after: View) -> View | None:
    if all(before.get(key) == after.get(key) for key in ("state", "version")):
        return None
    return _some(after, "name", "state", "version", "model")


def _alert(before: View, after: View) -> View | None:
    if before.get("state") == after["state"]:
        return None
    return _some(after, "id", "schedule", "subject", "rule", "state", "value", "text", "run_id")


def _firing(before: View, after: View) -> View | None:
    last = after.get("last")
    if not last:
        return None
    known = before.get("last") or {}
    if all(known.get(key) == last.get(key) for key in ("due_at", "state", "run_id", "attempt")):
        return None
    return {"schedule": after["name"], **_some(last, "due_at", "state", "run_id", "attempt", "n_missed", "why")}


def _some(view: View, *names: str) -> View:
    return {name: view[name] for name in names if view.get(name) is not None}


EVENTS = {"run": _run, "endpoint": _endpoint, "alert": _alert, "schedule": _firing}
