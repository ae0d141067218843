"""What it costs to leave everything open and do nothing: minutes long, so it is part of the soak."""

from __future__ import annotations

import os
from time import sleep

import psutil
import pytest

from lepton_jupyter.backend.keeper import holder
from lepton_jupyter.core.paths import Home
from tests.browser.lab import Lab

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

IDLE_S = float(os.environ.get("LEPTON_IDLE_S", "600"))
MAX_CORE_SHARE = 0.01
MAX_RSS_MB = 300
SERVE = """
%load_ext lepton_jupyter
%lepton data wdbc breast_cancer.csv --target diagnosis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
screening = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
%lepton train screening --data wdbc
%lepton evaluate screening
%lepton deploy screening --as clinic
%lepton monitor clinic --every 1h
"""


def test_an_open_sidebar_asks_for_nothing_and_costs_next_to_nothing(
    lab: Lab, lab_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.write("serve.ipynb", [SERVE])
    lab.open("serve.ipynb")
    lab.run_all()
    lab.ran(timeout_s=300)
    lab.show_sidebar()
    lab.page.get_by_text("monitor-clinic").first.wait_for()
    sleep(20)  # what the last run left is written to MLflow
    asked: list[str] = []
    lab.page.on("request", lambda request: asked.append(request.url))
    runtime = lab_home.runtime()
    pids = {name: holder(lock) for name, lock in (("backend", runtime.backend_lock), ("keeper", runtime.keeper_lock))}
    processes = {name: psutil.Process(who.pid) for name, who in pids.items() if who is not None}
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    lab.page.wait_for_timeout(1000 * IDLE_S)
    share = {name: (sum(process.cpu_times()[:2]) - before[name]) / IDLE_S for name, process in processes.items()}
    rss_mb = {name: process.memory_info().rss / 2**20 for name, process in processes.items()}
    ours = [url for url in asked if "lepton-jupyter" in url]
    with capsys.disabled():
        print(f"\n{IDLE_S:.0f} s with an endpoint, a schedule and an open sidebar:")
        for name in processes:
            print(f"  {name:8} {share[name]:7.2%} of a core {rss_mb[name]:6.0f} MB")
        print(f"  together {sum(share.values()):7.2%} of a core {sum(rss_mb.values()):6.0f} MB; our requests: {ours}")
    assert len(processes) == 2
    assert [url for url in ours if "api/v1/events" not in url] == []
    assert len(ours) <= 1  # a stream that a proxy cut is opened anew
    assert sum(share.values()) < MAX_CORE_SHARE
    assert sum(rss_mb.values()) < MAX_RSS_MB
