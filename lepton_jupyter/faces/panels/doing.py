"""A verb that was asked for by a button: done in a thread of its own, shown in a box of its own."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.progress import Followed
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.chart import chart_bundle
from lepton_jupyter.faces.objects.run import run_html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.verbs import find
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.verbs import Verb


class PanelAsker(Asker):
    """One verb that a form asks for: its words go to the form's box, not to whatever cell is the newest."""

    def __init__(self, namespace: Mapping[str, Any], line: str, doing: Doing) -> None:
        super().__init__("magic", namespace=namespace, command=line, progress=doing.followed)
        self._doing = doing

    def say(self, text: str) -> None:
        """Add a line to the box."""
        self._doing.add_line(text)

    def warn(self, text: str) -> None:
        """Add a line to the box."""
        self._doing.add_line(text)


class Doing:
    """One press of a button. The kernel is never kept waiting: cells run meanwhile, and other buttons too.

    Parameters
    ----------
    spec : Verb
    line : str
        The line that does the same; it heads the box and goes into the run's record.
    namespace : Mapping
        The notebook's names.
    changed : callable
        Called when a run of it has begun, and when it has ended, however it did.
    """

    def __init__(self, spec: Verb, line: str, namespace: Mapping[str, Any], changed: Callable[[], None]) -> None:
        self.spec = spec
        self.line = line
        self.result: Any = None
        self.error: BaseException | None = None
        self.run_id: str | None = None
        self._asker = PanelAsker(namespace, line, self)
        self._changed = changed
        self._lines: list[str] = []
        self._title = widgets.HTML(f"<code>{html.escape(line)}</code> …")
        self._card = widgets.HTML()
        self._said = widgets.HTML()
        self.shown = widgets.Output()
        self.stop = widgets.Button(
            description="Stop", icon="stop", disabled=True, tooltip="its best checkpoint is kept"
        )
        self.stop.on_click(self._stop_pressed)
        self.widget = widgets.VBox([widgets.HBox([self._title, self.stop]), self._card, self._said, self.shown])
        self.thread = threading.Thread(target=self._do, name=f"lepton-panel-{spec.verb}", daemon=True)

    def start(self) -> None:
        """Begin, and return at once."""
        self.thread.start()

    def followed(self, view: RunView) -> _Card:
        """Return what shows a run that the verb follows."""
        self.run_id = view.run_id
        self._changed()
        return _Card(view, self)

    def add_line(self, text: str) -> None:
        """Say something."""
        self._lines.append(text)
        self._said.value = html.lines(self._lines, is_code=True)

    def show_card(self, view: RunView, inner: str) -> None:
        """Show a run as it stands; it can be stopped while it moves."""
        self._card.value = inner
        self.stop.disabled = view.state in ENDED

    def _do(self) -> None:
        try:
            self.result = find(self.spec.verb).load()(self._asker, self.spec, {})
            self._show(self.result)
            self._title.value = f"<code>{html.escape(self.line)}</code>"
        except LeptonError as error:
            self._fail(error, [str(error)])
        except Exception as error:  # the user's own code: the frames say where
            self._fail(error, [traceback.format_exc()])
        finally:
            self.stop.disabled = True
            self._changed()

    def _show(self, result: Any) -> None:
        bundles = [_bundle(result)] if result is not None and not self._is_card(result) else []
        if hasattr(result, "figures"):
            bundles += [chart_bundle(figure) for figure in result.figures()]
        self.shown.outputs = tuple({"output_type": "display_data", "data": data, "metadata": {}} for data in bundles)

    def _is_card(self, result: Any) -> bool:
        """Whether the followed card shows it already."""
        return getattr(result, "run_id", None) == self.run_id and not hasattr(result, "figures")

    def _fail(self, error: BaseException, lines: list[str]) -> None:
        self.error = error
        self._title.value = f"<code>{html.escape(self.line)}</code> {html.pill('failed')}"
        self._said.value = html.lines([*self._lines, *lines], colour=html.BAD, is_code=True)

    def _stop_pressed(self, _: Any) -> None:
        self.stop.disabled = True
        threading.Thread(target=self._stop_run, name="lepton-panel-stop", daemon=True).start()

    def _stop_run(self) -> None:
        try:
            if self.run_id is not None:
                self._asker.client.stop_run(self.run_id, "stopped from a panel")
        except LeptonError as error:
            self.add_line(str(error))


class _Card(Followed):
    """The card of a run in the box."""

    def __init__(self, view: RunView, doing: Doing) -> None:
        self._doing = doing
        super().__init__(view)

    def begin(self) -> None:
        self.draw()

    def draw(self) -> None:
        self._doing.show_card(self.view, run_html(self.view, self.history))

    def remark(self, text: str) -> None:
        self._doing.add_line(text)

    def end(self, view: RunView) -> None:
        self.view = view
        self.draw()


def _bundle(result: Any) -> dict[str, Any]:
    if isinstance(result, Shown):
        return result._repr_mimebundle_()
    found = getattr(result, "_repr_html_", None)
    return {"text/plain": repr(result), **({"text/html": found()} if callable(found) else {})}
