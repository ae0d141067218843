"""Text that shows as it is printed, not as a string in quotes."""

from __future__ import annotations

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown


class Text(Shown, str):
    """A log, a page of help, a sentence."""

    def _text(self) -> str:
        return str.__str__(self)

    def _html(self) -> str:
        return html.lines([str.__str__(self)], is_code=True)
