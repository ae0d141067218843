"""The form behind "Schedule…", and what a schedule looks like in the sidebar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from tests.browser.lab import Lab

pytestmark = pytest.mark.slow

PARAMETERS = 'region = "north"  # which half\nn_rows = 5\nis_short = True'
REPORT = "print(region, n_rows * 2, is_short)"


def test_the_form_schedules_a_notebook_that_then_fires(
    lab: Lab, lab_home: Home, eventually: Callable[..., Any]
) -> None:
    lab.write("weekly report.ipynb", [REPORT], parameters=PARAMETERS)
    lab.open("weekly report.ipynb")
    lab.show_sidebar()
    lab.page.locator(".jp-NotebookPanel:visible .jp-Lepton-scheduleButton").get_by_text("Schedule…").click()
    form = lab.page.locator(".jp-Lepton-form")
    form.wait_for()
    lab.shoot("schedule_form")
    form.locator("input[name='every']").fill("every now and then")
    lab.page.locator(".jp-Dialog button", has_text="Schedule").click()
    lab.page.locator(".jp-Lepton-formTrouble").get_by_text("every now and then").wait_for()
    lab.shoot("schedule_form_error")
    form.locator("input[name='every']").fill("5s")
    form.locator("input[name='p:region']").fill("south")
    form.locator("input[name='p:n_rows']").fill("21")
    form.locator("input[name='p:is_short']").uncheck()
    lab.page.locator(".jp-Dialog button", has_text="Schedule").click()
    row = lab.row("Schedules", "weekly_report")
    row.locator(".jp-Lepton-rowTitle").click()
    client = Client.connect(lab_home)

    def fired() -> list[Any]:
        return [firing for firing in client.schedule("weekly_report").firings if firing.run_state == "completed"]

    eventually(fired, timeout_s=150, what="a run of the schedule is complete")
    row.locator("ol").get_by_text("completed").first.wait_for()
    lab.shoot("schedule_row")
    lab.choose(row, "Pause")
    row.get_by_text("paused", exact=True).wait_for()
    assert "south 42 False" in lab_home.run(fired()[0].run_id).notebook.read_text()


def test_an_executed_notebook_opens_in_a_frame_without_rights(lab: Lab) -> None:
    lab.write("plain.ipynb", ["%load_ext lepton_jupyter", "%lepton run words.ipynb"])
    lab.write("words.ipynb", ["print('forty', 'two')"])
    lab.open("plain.ipynb")
    lab.run_all()
    lab.is_card("completed")
    lab.card.get_by_text("Open notebook").click()
    frame = lab.page.locator("iframe.jp-Lepton-report")
    frame.wait_for()
    assert frame.get_attribute("sandbox") == "allow-scripts"
    lab.page.frame_locator("iframe.jp-Lepton-report").get_by_text("forty two").wait_for()
    lab.shoot("open_notebook")
