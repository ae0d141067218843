"""An endpoint under requests that nobody should send: no crash, no hang, no 5xx, no memory lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.serving.fuzz import ask, cases, heavy
from tests.serving.graphs import ROW, Server, make_bundle

N_CASES = 300
N_WARM = 1000  # after which its memory has the size that it keeps
N_SOAK = 10_000
GROWTH_BYTES = 20e6


@pytest.mark.slow
def test_odd_requests_are_answered_or_hung_up_on(server: Server) -> None:
    status = server.status()
    assert status is not None
    for case in itertools.islice(cases(seed=0), N_CASES):
        answered = ask(status.port, case)
        assert case.may_be_silent or answered is not None, case
        assert answered is None or answered < 500, case
    assert server.predict(ROW)["predictions"]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_thousand_of_them_leave_it_as_it_was(new_server: Callable[[], Server], tmp_path: Path) -> None:
    server = new_server()
    server.configure(make_bundle(tmp_path / "bundle"))
    server.start()
    port = server.wait().port
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    before = 0
    found: dict[int | None, int] = {}
    for place, case in enumerate(itertools.islice(cases(seed=1), N_WARM + N_SOAK)):
        if place == N_WARM:
            for each in heavy():
                assert ask(port, each) in (400, 413, 415), each.name
            before = process.memory_info().rss
        answered = ask(port, case)
        found[answered] = found.get(answered, 0) + 1
        assert answered is None or answered < 500, case
    grown = process.memory_info().rss - before
    print(f"{N_SOAK:,} cases: {found}; grown by {grown / 1e6:.1f} MB")
    assert server.predict(ROW)["predictions"]
    assert grown < GROWTH_BYTES
