"""``alerts``: the table of alerts; acknowledge or silence one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.deploy import who
from lepton_jupyter.faces.objects.alert import Alert
from lepton_jupyter.faces.objects.table import Table
from lepton_jupyter.faces.objects.when import clock
from lepton_jupyter.stages.monitor.spec import Alerts

EXAMPLE = 'monitor ENDPOINT --every 1h --alert "psi > 0.2" --notify env:VARIABLE'


def alerts(asker: Asker, spec: Alerts, objects: Mapping[str, Any]) -> Table[Alert] | Alert:
    """Return the alerts, those that fire first; with ``--ack`` or ``--silence`` the one that it is about."""
    if spec.ack is not None and spec.silence is not None:
        raise LeptonError(
            "--ack and --silence are two things: what was seen is not sent again, what is silenced is, later.",
            f"Choose one: {asker.type_next(f'alerts --ack {spec.ack} --why …')}",
        )
    number = spec.ack if spec.ack is not None else spec.silence
    if number is None:
        return _table(asker)
    flag = "ack" if spec.ack is not None else "silence"
    if not (spec.why or "").strip():
        line = asker.type_next(f'alerts --{flag} {number} --why "new clinic since Monday"')
        raise LeptonError(f"--{flag} needs a reason: it is recorded with your name.", f"For instance: {line}")
    if spec.ack is not None:
        view = asker.client.acknowledge_alert(number, who=who(), why=str(spec.why))
    else:
        until = time.time() + spec.hours * 3600
        view = asker.client.silence_alert(number, until=until, who=who(), why=str(spec.why))
    return Alert(view, asker)


def _table(asker: Asker) -> Table[Alert]:
    found = [Alert(view, asker) for view in asker.client.alerts()]
    return Table(
        "alerts",
        found,
        columns=("alert", "state", "of", "rule", "value", "since", "told", "seen"),
        rows=[
            (each.number, each.state, each.subject, each.rule, each.value, clock(each.view.since), each.told, each.seen)
            for each in found
        ],
        pills=("state",),
        empty=f"Ask to be told: {asker.type_next(EXAMPLE)}",
    )
