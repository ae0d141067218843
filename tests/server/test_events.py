"""Jupyter events say what happened, by their schemas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from jupyter_events import EventLogger

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.server.events import ROOT, register
from tests.server.test_live import until

RUN = {"run_id": "a", "kind": "train", "title": "Net", "created_at": 1.0, "seq": 1}


class Heard(list[tuple[str, dict[str, Any]]]):
    """Events as a listener of Jupyter's gets them."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # listeners lie in a set

    async def __call__(self, logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        """Hear one."""
        self.append((schema_id.removeprefix(ROOT), data))


@pytest.fixture
def heard() -> Heard:
    """What was heard."""
    return Heard()


async def emitted(heard: Heard, kind: str, before: Any, after: Any, caplog: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return what is emitted for one change."""
    import logging

    logger = EventLogger()
    emit = register(logger, logging.getLogger("lepton.test"))
    for schema in ("run", "endpoint", "alert", "schedule"):
        logger.add_listener(schema_id=f"{ROOT}/{schema}/v1", listener=heard)
    emit(kind, before, after)
    await logger.gather_listeners()
    assert not caplog.messages
    return [(schema, {key: value for key, value in data.items() if key[0] != "_"}) for schema, data in heard]


async def test_a_new_state_of_a_run_is_an_event_and_a_metric_is_none(heard: Heard, caplog: Any) -> None:
    running = {**RUN, "state": "running"}
    assert await emitted(heard, "run", running, {**running, "metrics": {"loss": 1.0}}, caplog) == []
    done = {**RUN, "state": "completed", "model": "Net", "version": 3}
    assert await emitted(heard, "run", running, done, caplog) == [
        (
            "/run/v1",
            {"run_id": "a", "kind": "train", "title": "Net", "state": "completed", "model": "Net", "version": 3},
        )
    ]


async def test_an_alert_and_an_endpoint_say_their_new_state(heard: Heard, caplog: Any) -> None:
    alert = {
        "id": 3,
        "schedule": "monitor-door",
        "subject": "door",
        "rule": "psi > 0.2",
        "since": 1.0,
        "changed_at": 1.0,
    }
    await emitted(heard, "alert", {**alert, "state": "pending"}, {**alert, "state": "firing", "value": 0.4}, caplog)
    assert heard[0][1]["state"] == "firing"
    heard.clear()
    await emitted(
        heard, "endpoint", None, {"name": "door", "state": "ready", "version": "Net@1", "model": "Net"}, caplog
    )
    assert heard[0][0] == "/endpoint/v1"


async def test_a_firing_is_told_once_for_each_of_its_states(heard: Heard, caplog: Any) -> None:
    view = {"name": "nightly", "state": "active", "last": {"due_at": 5.0, "at": 5.1, "state": "fired", "run_id": "a"}}
    assert (await emitted(heard, "schedule", {"name": "nightly"}, view, caplog))[0] == (
        "/schedule/v1",
        {"schedule": "nightly", "due_at": 5.0, "state": "fired", "run_id": "a"},
    )
    heard.clear()
    later = {**view, "last": {**view["last"], "run_state": "completed"}, "next_due_at": 9.0}  # type: ignore[dict-item]
    assert await emitted(heard, "schedule", view, later, caplog) == []


@pytest.mark.slow
async def test_the_events_of_a_real_run_arrive_without_any_page_open(
    jp_serverapp: Any, lepton: Any, home: Home, saved: Callable[..., str], heard: Heard
) -> None:
    jp_serverapp.event_logger.add_listener(schema_id=f"{ROOT}/run/v1", listener=heard)
    client = await asyncio.to_thread(Client.connect, home)
    await until(lambda: lepton.live.is_up)
    run_id = saved("Net")
    await asyncio.to_thread(client.submit, run_id)
    await until(lambda: any(data["run_id"] == run_id and data["state"] == "completed" for _, data in heard))
