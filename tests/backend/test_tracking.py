"""MLflow's file of a home: there and whole, or not there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home


@pytest.mark.slow
def test_a_backend_that_is_killed_while_mlflow_makes_its_tables_makes_them_again(
    home: Home, eventually: Callable[..., Any]
) -> None:
    home.mlflow_db.unlink()
    client = Client.connect(home)
    fresh = home.mlflow_db.with_suffix(".new")
    eventually(lambda: fresh.exists() and fresh.stat().st_size > 0, timeout_s=60, what="MLflow makes its tables")
    assert not home.mlflow_db.exists()
    os.kill(client.health().pid, signal.SIGKILL)
    eventually(lambda: client.health().is_tracking_up, timeout_s=90, what="MLflow answers")
    assert home.mlflow_db.exists() and not fresh.exists()
