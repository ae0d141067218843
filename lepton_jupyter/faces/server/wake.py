"""Start the backend with the Jupyter server, where something waits for it."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

from lepton_jupyter.client.start import ensure_backend
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home

WAITING = (
    "SELECT 1 FROM schedules WHERE state = 'active' LIMIT 1",
    "SELECT 1 FROM endpoints WHERE is_wanted LIMIT 1",
    "SELECT 1 FROM runs WHERE NOT is_deleted AND state NOT IN ('completed', 'failed', 'stopped', 'lost') LIMIT 1",
)


def waits_for_backend(state_db: Path) -> bool:
    """Whether a schedule, an endpoint or a run that has not ended needs a backend. Loads neither SQLAlchemy nor it."""
    if not state_db.exists():
        return False
    try:
        connection = sqlite3.connect(f"file:{state_db}?mode=ro", uri=True, timeout=5.0)
    except sqlite3.Error:
        return False
    try:
        return any(_is_any(connection, question) for question in WAITING)
    finally:
        connection.close()


def _is_any(connection: sqlite3.Connection, question: str) -> bool:
    try:
        return connection.execute(question).fetchone() is not None
    except sqlite3.Error:  # a table that an older version does not have
        return False


def wake_soon(home: Home, log: logging.Logger) -> threading.Thread:
    """Start the backend beside the server's own start, where something waits for it; return the thread."""

    def wake() -> None:
        if not waits_for_backend(home.state_db):
            return
        try:
            ensure_backend(home)
        except LeptonError as error:
            log.warning("lepton_jupyter: %s", error)

    thread = threading.Thread(target=wake, name="lepton-wake", daemon=True)
    thread.start()
    return thread
