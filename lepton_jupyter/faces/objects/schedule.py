"""A schedule, as a person holds it: when it fires next, what came of the last times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.objects.when import local, span
from lepton_jupyter.formats.schedule import FiringView, ScheduleView

if TYPE_CHECKING:
    from lepton_jupyter.faces.asker import Asker

N_SHOWN = 8


class Schedule(Shown):
    """A notebook, a report or a retrain with a clock.

    Attributes
    ----------
    name : str
    """

    def __init__(self, view: ScheduleView, asker: Asker) -> None:
        self._view = view
        self._asker = asker
        self._seen_at = time.monotonic()
        self.name = view.name

    def _fresh(self) -> ScheduleView:
        if time.monotonic() - self._seen_at > 1.0:
            self._view = self._asker.client.schedule(self.name)
            self._seen_at = time.monotonic()
        return self._view

    @property
    def ref(self) -> str:
        """What to type for it: ``schedule/NAME``."""
        return f"schedule/{self.name}"

    @property
    def state(self) -> str:
        """``active`` or ``paused``, looked up anew."""
        return self._fresh().state

    @property
    def next_due_at(self) -> float | None:
        """When it is due next, seconds since 1970, UTC; None while it is paused, or fires only when asked."""
        view = self._fresh()
        return view.next_due_at if view.state == "active" else None

    @property
    def last(self) -> FiringView | None:
        """The newest time that it was due, and what became of it."""
        return self._fresh().last

    @property
    def firings(self) -> tuple[FiringView, ...]:
        """The newest twenty, newest first."""
        return self._fresh().firings

    @property
    def view(self) -> ScheduleView:
        """All that is known of it."""
        return self._fresh()

    def _line(self) -> str:
        view = self._view
        return f"schedule {view.name} · {view.state} · {_coming(view)}"

    def _pairs(self) -> list[tuple[str, Any]]:
        view = self._view
        what = view.subject if view.kind == "notebook" else f"{view.kind} of {view.subject}"
        return [
            ("what", what),
            ("every", f"{view.every} ({view.tz})" if view.every else "when asked"),
            ("alerts", "; ".join(view.alerts)),
            ("on alert", view.on_alert),
            ("tells", ", ".join(view.notify)),
            ("fired", view.n_fired),
            ("missed", view.n_missed or ""),
        ]

    def _remarks(self) -> list[str]:
        view = self._view
        again = f"define it again to take it as it is: {view.command}"
        return [
            text
            for text in (
                view.error,
                f"Its notebook has changed since it was scheduled; {again}" if view.is_source_changed else "",
                f"{view.n_alerts} of its alerts stand: {self._asker.type_next('alerts')}" if view.n_alerts else "",
            )
            if text
        ]

    def _rows(self) -> list[tuple[Any, ...]]:
        return [
            (local(firing.due_at, self._view.tz), outcome(firing), f"run/{firing.run_id}" if firing.run_id else "")
            for firing in self._view.firings[:N_SHOWN]
        ]

    def _next_steps(self) -> list[str]:
        return [f"Fire it now: {self._asker.type_next(f'tick {self.name}')}"] if not self._view.firings else []

    def _text(self) -> str:
        self._fresh()
        pairs = "  ".join(f"{key} {value}" for key, value in self._pairs() if value not in (None, ""))
        lines = [self._line(), f"  {pairs}", *(f"  {text}" for text in (*self._remarks(), *self._next_steps()))]
        if self._view.firings:
            lines += [f"  {line}" for line in html.plain_table(("due", "outcome", "run"), self._rows()).splitlines()]
        return "\n".join(lines)

    def _html(self) -> str:
        view = self._fresh()
        return html.card(
            f"schedule {view.name}",
            html.facts([("next", _coming(view).removeprefix("next ")), *self._pairs()]),
            html.lines(self._remarks(), colour=html.WARN),
            html.lines(self._next_steps(), is_code=True),
            html.table(("due", "outcome", "run"), self._rows(), pills=()) if view.firings else "",
            badge=view.state,
        )


def _coming(view: ScheduleView) -> str:
    if view.state != "active":
        return "until it is defined again"
    if view.next_due_at is None:
        return "fires when asked"
    left = view.next_due_at - time.time()
    return f"next {local(view.next_due_at, view.tz)}" + (f" (in {span(left)})" if left > 0 else " (now)")


def outcome(firing: FiringView | None) -> str:
    """Return what became of a firing, in a word or a sentence."""
    if firing is None:
        return ""
    missed = f"; {firing.n_missed} earlier missed" if firing.n_missed and firing.state != "missed" else ""
    if firing.state == "missed":
        n = firing.n_missed + 1
        return f"{n} times missed" if n > 1 else "missed"
    if firing.state == "fired":
        return (firing.verdict or firing.run_state or "fired") + missed
    said = {"claimed": "starting", "failed": "did not fire"}.get(firing.state, firing.state)
    return f"{said}: {firing.why}" if firing.why else said
