"""The backend is there again with the Jupyter server, where something waits for it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from lepton_jupyter.backend.tables import open_database
from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.server.wake import waits_for_backend, wake_soon
from lepton_jupyter.formats.views import DeployRequest

WAITING = {
    "schedule": "INSERT INTO schedules VALUES ('s', 'g', '{}', 'active', 0, 0, 0, 0, 0)",
    "endpoint": "INSERT INTO endpoints VALUES ('e', 0, 1, 'm', 'r', NULL, 0, 1, 1, NULL, '', NULL, '{}')",
    "run": "INSERT INTO runs VALUES ('r', 0, 'train', 'm', NULL, 'running', '{}', NULL, 0, 0, 0)",
}
QUIET = {
    "schedule": "INSERT INTO schedules VALUES ('s', 'g', '{}', 'paused', 0, 0, 0, 0, 0)",
    "endpoint": "INSERT INTO endpoints VALUES ('e', 0, 0, 'm', 'r', NULL, 0, 1, 1, NULL, '', NULL, '{}')",
    "run": "INSERT INTO runs VALUES ('r', 0, 'train', 'm', NULL, 'completed', '{}', NULL, 0, 0, 0)",
}


def test_a_home_in_which_nothing_was_done_waits_for_no_backend(home: Home) -> None:
    assert not waits_for_backend(home.state_db)
    home.state_db.write_bytes(b"no database")
    assert not waits_for_backend(home.state_db)


@pytest.mark.parametrize("what", sorted(WAITING))
def test_an_active_schedule_a_wanted_endpoint_and_an_unfinished_run_wait_for_the_backend(home: Home, what: str) -> None:
    open_database(home.state_db).dispose()
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute(QUIET[what])
    assert not waits_for_backend(home.state_db)
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute(f"DELETE FROM {what}s")
        connection.execute(WAITING[what])
    assert waits_for_backend(home.state_db)


def test_a_database_without_the_newest_tables_is_read_too(home: Home) -> None:
    with closing(sqlite3.connect(home.state_db)) as connection, connection:
        connection.execute("CREATE TABLE endpoints (is_wanted INTEGER)")
        connection.execute("INSERT INTO endpoints VALUES (1)")
    assert waits_for_backend(home.state_db)


@pytest.mark.slow
def test_an_endpoint_is_up_again_when_a_jupyter_server_starts_after_everything_was_killed(
    home: Home, saved: Callable[..., str], eventually: Callable[..., Any]
) -> None:
    client = Client.connect(home)
    run_id = saved("Net")
    client.submit(run_id)
    client.deploy(DeployRequest(name="door", model=run_id, force="a test"))
    client.stop_backend()
    from lepton_jupyter.client.shutdown import _endpoint_processes

    for process in _endpoint_processes(home):
        os.kill(process.pid, signal.SIGKILL)
    started = time.monotonic()
    thread = wake_soon(home, logging.getLogger("test"))
    assert time.monotonic() - started < 1.0  # the server's start waits for nothing
    thread.join(60)
    eventually(lambda: client.endpoint("door").state == "ready", timeout_s=60)


@pytest.mark.slow
async def test_a_server_that_starts_over_a_quiet_home_starts_no_backend(ask: Callable[..., Any], home: Home) -> None:
    assert (await ask("api/v1/health")).code == 503
    await asyncio.sleep(1.0)
    assert not home.runtime().socket.exists()
