"""A run's executed notebook as a page in a sandbox."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from lepton_jupyter.core.paths import Home, RunFolder
from tests.backend.conftest import cells


@pytest.fixture
def executed(prepare: Callable[..., RunFolder]) -> RunFolder:
    """A run whose notebook was executed."""
    folder = prepare("print('the answer')", kind="notebook")
    done = cells("print('the answer')")
    done["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "fortytwo"}]
    folder.notebook.write_text(json.dumps(done))
    return folder


@pytest.mark.slow
async def test_a_report_is_made_when_it_is_asked_for_and_lives_in_a_sandbox(
    ask: Callable[..., Any], executed: RunFolder
) -> None:
    path = f"runs/{executed.run_id}/report"
    answers = await asyncio.gather(*(ask(path, request_timeout=120) for _ in range(3)))
    for answer in answers:
        assert answer.code == 200, answer.body[-300:]
        assert answer.headers["Content-Type"].startswith("text/html")
        assert answer.headers["Content-Security-Policy"].startswith("sandbox allow-scripts;")
        assert b"fortytwo" in answer.body
    made_at = executed.report.stat().st_mtime_ns
    assert (await ask(path)).code == 200
    assert executed.report.stat().st_mtime_ns == made_at  # made once
    executed.notebook.write_text(executed.notebook.read_text().replace("fortytwo", "fortythree"))
    os.utime(executed.notebook, ns=(made_at + 10**9, made_at + 10**9))
    assert b"fortythree" in (await ask(path, request_timeout=120)).body


async def test_a_run_without_a_notebook_has_no_report(ask: Callable[..., Any], home: Home) -> None:
    assert (await ask("runs/0123456789ab/report")).code == 404
    assert (await ask("runs/../report")).code == 404
