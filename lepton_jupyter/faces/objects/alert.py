"""An alert: what is met, since when, who was told, who has seen it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.objects.when import clock
from lepton_jupyter.formats.alerts import AlertChange, AlertView, DeliveryView

if TYPE_CHECKING:
    from lepton_jupyter.faces.asker import Asker


class Alert(Shown):
    """One alert of a schedule, from the first report that met its rule until one does not."""

    def __init__(self, view: AlertView, asker: Asker) -> None:
        self.view = view
        self._asker = asker

    @property
    def number(self) -> int:
        """What ``alerts --ack`` takes."""
        return self.view.id

    @property
    def state(self) -> str:
        """``pending``, ``firing`` or ``resolved``."""
        return self.view.state

    @property
    def rule(self) -> str:
        """As typed, such as ``psi > 0.2``."""
        return self.view.rule

    @property
    def value(self) -> float | None:
        """Newest value of what the rule looks at; None where it was not measured."""
        return self.view.value

    @property
    def subject(self) -> str:
        """The endpoint, model or notebook that is watched."""
        return self.view.subject

    @property
    def schedule(self) -> str:
        """Name of its schedule."""
        return self.view.schedule

    @property
    def seen(self) -> str:
        """Who has acknowledged it, or until when it is silenced; empty where neither."""
        view = self.view
        if view.acked_by:
            return f"seen by {view.acked_by}: {view.acked_why}"
        if view.silenced_until and view.silenced_until > time.time():
            return f"silenced by {view.silenced_by} until {clock(view.silenced_until)}: {view.silenced_why}"
        return ""

    @property
    def history(self) -> list[str]:
        """What became of it, oldest first."""
        return [_change(change) for change in self.view.history]

    @property
    def messages(self) -> list[str]:
        """Who was told, and who could not be."""
        return [_message(sent) for sent in self.view.deliveries]

    @property
    def told(self) -> str:
        """How the newest message to each channel stands."""
        newest = {sent.channel: sent.state for sent in self.view.deliveries}
        return ", ".join(f"{channel} {state}" for channel, state in newest.items())

    def _title(self) -> str:
        return f"alert {self.number}: {self.rule}"

    def _line(self) -> str:
        return f"{self._title()} {self.state}"

    def _what_next(self) -> str:
        if self.state == "resolved" or self.seen:
            return ""
        return f"Seen it? {self._asker.type_next(f'alerts --ack {self.number} --why …')}"

    def _facts(self) -> list[tuple[str, object]]:
        return [
            ("of", self.subject),
            ("schedule", self.schedule),
            ("since", clock(self.view.since)),
            ("report", f"run/{self.view.run_id}" if self.view.run_id else ""),
        ]

    def _text(self) -> str:
        facts = "  ".join(f"{key} {value}" for key, value in self._facts() if value)
        said = [self._line(), self.view.text, facts, self.seen]
        return "\n".join(
            line
            for line in (*said, *(f"  {each}" for each in (*self.history, *self.messages)), self._what_next())
            if line
        )

    def _html(self) -> str:
        return html.card(
            self._title(),
            html.lines([self.view.text, self.seen]),
            html.facts(self._facts()),
            html.lines(self.history),
            html.lines(self.messages),
            html.lines([self._what_next()]),
            badge=self.state,
        )


def _change(change: AlertChange) -> str:
    value = f" at {html.number(change.value)}" if change.value is not None else ""
    who = f" by {change.who}" if change.who else ""
    run = f" run/{change.run_id}" if change.run_id else ""
    why = f": {change.why}" if change.why else ""
    return f"{clock(change.at)} {change.what}{value}{who}{run}{why}"


def _message(sent: DeliveryView) -> str:
    tries = f" after {sent.attempts} tries" if sent.attempts > 1 else ""
    error = f": {sent.last_error}" if sent.last_error else ""
    return f"{clock(sent.delivered_at or sent.created_at)} {sent.title} → {sent.channel}: {sent.state}{tries}{error}"
