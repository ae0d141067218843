"""``alerts`` as typed, over a real backend: a check fires an alert, a webhook hears of it, a person answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lepton_jupyter.client.client import Client
from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.objects.alert import Alert
from lepton_jupyter.formats.alerts import AlertChange, AlertView, DeliveryView
from tests.faces.test_cards import EVIL, _Tags
from tests.faces.test_flows import Typing, _notebook
from tests.faces.test_flows import person as person  # a fixture
from tests.life.webhook import Webhook

Wait = Callable[..., Any]
CELL = (
    "import lepton_jupyter as lepton\n"
    "lepton.check('sales', float(open('sales.txt').read()))\n"
    "from lepton_jupyter.runner import session\n"
    "session.current().result(verdict='LOW', headline='sales are low', sentences=['North sold nothing.'])"
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What a webhook heard that is named env:OPS."""
    with Webhook() as hook:
        monkeypatch.setenv("OPS", f"{hook.url}/s3cr3t")
        yield hook.told


@pytest.mark.slow
def test_a_check_fires_an_alert_that_is_told_seen_and_resolved(
    person: Typing, home: Home, tmp_path: Path, told: list[dict[str, Any]], eventually: Wait
) -> None:
    _notebook(tmp_path / "sales.ipynb", "day = 1", CELL)
    sales = tmp_path / "sales.txt"
    sales.write_text("1.5")
    assert "none yet" in repr(person("%lepton alerts"))
    person('%lepton schedule sales.ipynb --every daily --alert "sales < 3" --notify env:OPS')
    person("%lepton tick sales")
    client = Client(home)
    eventually(lambda: [view.state for view in client.alerts()] == ["pending"], what="the first report is judged")
    assert told == []
    person("%lepton tick sales")
    eventually(lambda: told, timeout_s=60, what=str(client.alerts()))
    assert told[0]["title"] == "[FIRING] sales.ipynb: sales < 3 (1.5), LOW"
    assert "- North sold nothing." in told[0]["message"] and "s3cr3t" not in json.dumps(told)

    eventually(lambda: client.alerts()[0].deliveries[0].state == "delivered")
    table = person("x = %lepton alerts\nx")
    assert (len(table), table[0].state, table[0].told) == (1, "firing", "env:OPS delivered")
    number = table[0].number
    seen = person(f'%lepton alerts --ack {number} --why "holidays"')
    assert "seen by" in repr(seen) and "holidays" in repr(seen)
    assert "No alert named '99'" in person.refused('%lepton alerts --ack 99 --why "x"')

    pid = client.health().pid
    os.kill(pid, signal.SIGKILL)  # alerts are no backend's memory
    sales.write_text("5")
    person("%lepton tick sales")
    eventually(lambda: client.alerts()[0].state == "resolved", timeout_s=60)
    assert client.health().pid != pid
    assert [change.what for change in client.alerts()[0].history] == ["pending", "firing", "acknowledged", "resolved"]
    assert len(told) == 1  # what was seen is not sent again

    (tmp_path / "sales.ipynb").unlink()
    assert "could not fire" in person.refused("%lepton tick sales")
    eventually(lambda: len(told) == 2, timeout_s=60)
    assert told[1]["title"] == "[FIRING] sales.ipynb: schedule did not fire"
    done = subprocess.run(
        [sys.executable, "-m", "lepton_jupyter.faces.cli", "alerts"], capture_output=True, text=True, check=True
    )
    assert "schedule did not fire" in done.stdout
    person("%lepton delete schedule/sales")
    eventually(lambda: {view.state for view in client.alerts()} == {"resolved"})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("alerts --ack 3", "needs a reason"),
        ('alerts --silence 3 --why " "', "needs a reason"),
        ("alerts --ack 3 --silence 3 --why x", "two things"),
        ("alerts --ack 0 --why x", "at least 1"),
        ("alerts --silence 3 --hours 0 --why x", "more than 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_backend_is_asked(
    person: Typing, home: Home, line: str, says: str
) -> None:
    assert says in person.refused(f"%lepton {line}")
    assert not home.runtime().socket.exists()


def alert(**values: Any) -> Alert:
    view = AlertView(
        **{
            "id": 3, "schedule": "monitor-e", "subject": "e", "rule": "psi > 0.2", "state": "firing", "since": 1e9,
            "changed_at": 1e9, "value": 0.4, "run_id": "abc", "text": "psi is 0.4: it meets psi > 0.2.",
            "history": (AlertChange(at=1e9, what="firing", value=0.4, run_id="abc"),),
            "deliveries": (
                DeliveryView(channel="env:OPS", title="[FIRING] e", state="gave up", created_at=1e9, attempts=8,
                             last_error="error=500"),
            ),
            **values,
        }
    )  # fmt: skip
    return Alert(view, Asker("magic"))


def test_a_card_says_what_is_met_who_was_told_and_what_to_type() -> None:
    text = repr(alert())
    for said in (
        "alert 3: psi > 0.2 firing", "psi is 0.4", "report run/abc", "2001-09-09 01:46 UTC firing at 0.4 run/abc",
        "[FIRING] e → env:OPS: gave up after 8 tries: error=500", "%lepton alerts --ack 3",
    ):  # fmt: skip
        assert said in text
    assert "--ack" not in repr(alert(acked_by="ann", acked_why="new clinic"))
    assert "silenced by ann" in repr(alert(silenced_until=9e9, silenced_by="ann", silenced_why="deploying"))
    assert "silenced" not in repr(alert(silenced_until=1.0, silenced_by="ann"))


def test_a_card_has_no_script_whatever_a_report_says() -> None:
    tags = _Tags()
    tags.feed(alert(text=EVIL, rule=EVIL, subject=EVIL, acked_by=EVIL)._repr_html_())
    assert not tags.open and "script" not in tags.found and not tags.attributes - {"style"}
