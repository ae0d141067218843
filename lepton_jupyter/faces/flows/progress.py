"""How a run that is followed is shown: a card in a notebook, one line in a terminal, few lines in a log."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

import msgspec

from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.history import History
from lepton_jupyter.faces.objects.run import RUN_MIME, headline, run_html, run_text, snapshot
from lepton_jupyter.faces.objects.shown import publish
from lepton_jupyter.faces.objects.when import span
from lepton_jupyter.formats.views import RunView

CARD_S = 0.2
QUIET_CARD_S = 1.0  # a card without news: only its clock moves
LOG_S = 10.0


class Progress(Protocol):
    """Whoever shows a run while it goes on."""

    def add(self, event: dict[str, Any]) -> None:
        """Take in one event."""

    def tick(self) -> None:
        """Nothing was heard for a moment."""

    def remark(self, text: str) -> None:
        """Say something beside the events."""

    def end(self, view: RunView) -> None:
        """Show the run as it stands at its end."""


def progress_of(asker: Asker, view: RunView) -> Progress:
    """Return what fits where the verb was typed."""
    if asker.progress is not None:
        return asker.progress(view)
    return _Card(view) if asker.is_kernel else _Lines(view)


class Followed:
    """The run as it stands by the events heard so far."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self.history = History()
        self.shown_at = 0.0
        self.has_news = True
        self.begin()

    def begin(self) -> None:
        """Show the first picture."""

    def draw(self) -> None:
        """Show a picture of now."""

    def add(self, event: dict[str, Any]) -> None:
        self.history.add(event)
        if event.get("kind") == "state" and self.history.state and self.history.state not in ENDED:
            started = self.history.started_at or self.view.started_at
            self.view = msgspec.structs.replace(self.view, state=self.history.state, started_at=started)
        self.has_news = True
        self.tick()

    def tick(self) -> None:
        pause = CARD_S if self.has_news else QUIET_CARD_S
        if time.monotonic() - self.shown_at >= pause:
            self.draw()
            self.shown_at = time.monotonic()
            self.has_news = False


class _Card(Followed):
    """One display of the notebook, replaced in place."""

    def begin(self) -> None:
        self.display_id = f"lepton-run-{self.view.run_id}"
        publish(self._bundle(), display_id=self.display_id)

    def draw(self) -> None:
        publish(self._bundle(), display_id=self.display_id, is_update=True)

    def _bundle(self) -> dict[str, Any]:
        return {
            "text/plain": run_text(self.view, self.history),
            "text/html": run_html(self.view, self.history),
            RUN_MIME: snapshot(self.view, self.history),
        }

    def remark(self, text: str) -> None:
        self.view = msgspec.structs.replace(self.view, needs=text)
        self.draw()

    def end(self, view: RunView) -> None:
        self.view = view
        self.draw()


class _Lines(Followed):
    """Lines on standard error: the shell's standard output is the result's."""

    def begin(self) -> None:
        self.is_live = sys.stderr.isatty()
        self.logged_at = time.monotonic()
        self.last = ""
        self._print(headline(self.view))

    def _print(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=sys.stderr, flush=True)  # noqa: T201

    def draw(self) -> None:
        line = self._line()
        if line == self.last:
            return
        if self.is_live:
            self._print(f"\r\033[K{line[:160]}", end="")
        elif time.monotonic() - self.logged_at >= LOG_S:
            self._print(line)
            self.logged_at = time.monotonic()
        self.last = line

    def _line(self) -> str:
        progress, metrics = self.history.progress, self.history.metrics
        parts: list[str] = [self.view.state]
        if progress.get("total"):
            parts.append(f"{progress.get('unit', 'step')} {progress.get('done', 0)}/{progress['total']}")
        losses = [name for name in metrics if "loss" in name] or list(metrics)[:2]
        parts += [f"{name} {html.number(metrics[name])}" for name in losses]
        left = span(self.history.remaining_s(time.time()))
        return "  ".join([*parts, *([f"{left} left"] if left else [])])

    def remark(self, text: str) -> None:
        self._print(f"{chr(10) if self.is_live else ''}{text}")

    def end(self, view: RunView) -> None:
        if self.is_live:
            self._print("\r\033[K", end="")
