"""``panel``: forms and tables in place of lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.panels.panel import Panel
from lepton_jupyter.faces.panels.words import word_of
from lepton_jupyter.runner.spec import Panel as Spec


def panel(asker: Asker, spec: Spec, objects: Mapping[str, Any]) -> Panel:
    """Return the panel of a word, or of all."""
    return Panel(asker, word_of(spec.word) if spec.word else None)
