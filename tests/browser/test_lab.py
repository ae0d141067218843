"""The quickstart, the card and the sidebar in a real JupyterLab."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.objects.run import RUN_MIME
from tests.browser.lab import Lab
from tests.life.conftest import SLOW_NET

pytestmark = pytest.mark.slow

Wait = Callable[..., Any]

DATA = "%load_ext lepton_jupyter\n%lepton data wdbc breast_cancer.csv --target diagnosis"
SLOW = SLOW_NET.format(pause=0.05)
EPOCHS = 16  # about ten seconds
TRAIN = f"%lepton train TumorNet --data wdbc --epochs {EPOCHS} --batch-size 64"
NET = """
from torch import nn


class TumorNet(nn.Module):
    def __init__(self, n_features, n_outputs, hidden=64):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))

    def forward(self, x):
        return self.layers(x)
"""


def _train(lab: Lab, name: str) -> None:
    """Open a new notebook whose run has finished an epoch or two."""
    lab.write(name, [DATA, SLOW, TRAIN])
    lab.open(name)
    lab.run_all()
    lab.is_card("running")
    lab.card.get_by_text(f"of {EPOCHS} epochs").wait_for()


def _is_complete(lab: Lab) -> None:
    card = lab.is_card("completed")
    assert f"{EPOCHS} of {EPOCHS} epochs" in card.inner_text()
    assert "val_loss" in card.inner_text()
    assert card.locator("polyline").count() >= 2
    assert card.locator(".jp-Lepton-bar").count() == 0


def test_an_empty_sidebar_teaches_what_to_type(lab: Lab) -> None:
    lab.open()
    sidebar = lab.show_sidebar()
    assert "%lepton train Net" in sidebar.inner_text()
    lab.shoot("sidebar_empty")


def test_the_quickstart_typed_into_a_notebook(lab: Lab) -> None:
    lab.write("quick.ipynb", [""])
    lab.open("quick.ipynb")
    sidebar = lab.show_sidebar()
    lab.type("%load_ext lepton_jupyter")
    lab.type("%lepton data wdbc breast_cancer.csv --target diagnosis")
    lab.type(NET.strip())
    lab.type("%lepton train TumorNet --data wdbc --epochs 30 --lr 1e-2")
    lab.is_card("completed")
    lab.type('%lepton evaluate TumorNet --require "roc_auc >= 0.9"')
    lab.type("%lepton deploy TumorNet --as diagnosis")
    lab.ran()
    lab.row("Models", "TumorNet@1").locator(".jp-Lepton-pill", has_text="champion").wait_for()
    lab.row("Endpoints", "diagnosis").get_by_text("ready").wait_for()
    lab.card.scroll_into_view_if_needed()
    lab.shoot("quickstart")
    lab.row("Models", "TumorNet@1").locator(".jp-Lepton-rowTitle").click()
    lab.row("Endpoints", "diagnosis").locator(".jp-Lepton-rowTitle").click()
    assert "wdbc@1" in sidebar.inner_text()
    lab.shoot("sidebar_details")
    assert not [text for text in lab.page.errors if "lepton" in text.lower()]


def test_the_card_moves_while_the_run_does(lab: Lab) -> None:
    _train(lab, "live.ipynb")
    lab.show_sidebar()
    seen = {lab.card.locator("[role=progressbar]").get_attribute("aria-valuenow")}
    lab.page.wait_for_function(
        "n => +document.querySelector('.jp-LeptonCard [role=progressbar]')?.getAttribute('aria-valuenow') > n",
        arg=int(seen.pop() or 0) + 10,
    )
    lab.card.scroll_into_view_if_needed()
    lab.page.get_by_text("Lepton: 1 running").wait_for()
    lab.shoot("sidebar_live")
    lab.theme("JupyterLab Dark")
    lab.shoot("dark_live")
    _is_complete(lab)
    lab.ran()
    lab.shoot("dark_completed")
    lab.theme("JupyterLab Light")


def test_a_card_goes_on_after_a_reload_in_mid_run(lab: Lab, eventually: Wait) -> None:
    _train(lab, "reload.ipynb")
    eventually(lambda: lab.on_disk("reload.ipynb", RUN_MIME), timeout_s=60, what="the notebook is saved by itself")
    lab.reload()
    lab.is_card("running")
    lab.shoot("after_reload")
    _is_complete(lab)
    eventually(
        lambda: lab.outputs()[-1]["data"][RUN_MIME]["run"]["state"] == "completed",
        what="the last state is written back into the output",
    )
    lab.save()
    last = lab.on_disk("reload.ipynb", RUN_MIME)[-1]
    assert last["run"]["state"] == "completed"
    assert "completed" in lab.on_disk("reload.ipynb", "text/html")[-1]


def test_a_card_goes_on_after_its_kernel_was_restarted(lab: Lab) -> None:
    _train(lab, "restart.ipynb")
    lab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    lab.is_card("running")
    lab.shoot("after_restart")
    _is_complete(lab)


def test_a_card_is_complete_in_a_tab_that_was_closed_meanwhile(
    lab: Lab, lab_home: Home, browser: Any, eventually: Wait
) -> None:
    _train(lab, "closed.ipynb")
    # not by Ctrl+S: it may meet the card's own save, and Lab then asks which file is right
    eventually(lambda: lab.on_disk("closed.ipynb", RUN_MIME), timeout_s=60, what="the notebook is saved by itself")
    run_id = lab.on_disk("closed.ipynb", RUN_MIME)[-1]["run"]["run_id"]
    lab.page.goto("about:blank")
    client = Client.connect(lab_home)
    eventually(lambda: client.run(run_id).state == "completed", timeout_s=90)
    lab.open("closed.ipynb")
    _is_complete(lab)
    lab.shoot("after_close")


def test_a_run_is_stopped_from_the_sidebar(lab: Lab) -> None:
    _train(lab, "stop.ipynb")
    lab.show_sidebar()
    row = lab.row("Runs", "train TumorNet")
    lab.choose(row, "Stop…")
    lab.shoot("stop_dialog")
    lab.page.locator(".jp-Dialog button", has_text="Stop").click()
    card = lab.is_card("stopped")
    row.get_by_text("stopped", exact=True).wait_for()
    assert "Stop" not in card.locator(".jp-LeptonCard-buttons").inner_text()
    lab.shoot("stopped")


def test_what_went_wrong_is_told_with_what_to_do(lab: Lab) -> None:
    lab.open()
    lab.command("lepton-jupyter:promote", ref="NoSuch@7")
    toast = lab.page.locator(".Toastify__toast")
    toast.get_by_text("NoSuch").wait_for()
    lab.shoot("error")
