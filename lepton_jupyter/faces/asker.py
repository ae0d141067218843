"""Who asks: a magic, a Python call or a shell; what it knows, and how it is told things."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_jupyter.core.paths import Home

if TYPE_CHECKING:
    from lepton_jupyter.client.client import Client
    from lepton_jupyter.faces.flows.progress import Progress
    from lepton_jupyter.formats.views import RunView

PROGS = {"magic": "%lepton", "python": "lepton.", "shell": "jupyter lepton"}


@dataclass
class Asker:
    """One call of one verb.

    Attributes
    ----------
    face : str
        ``magic``, ``python`` or ``shell``.
    namespace : Mapping
        The names that the person can mean: the notebook's, with local ones on top.
    shell : object or None
        IPython's shell, where there is one.
    command : str
        The line as typed, for the record of a run.
    progress : callable or None
        Makes what shows a run that is followed, of its view; None: what fits the face.
    kernel : str or None
        Kernelspec of what is asked for; None: this interpreter.
    """

    face: str
    namespace: Mapping[str, Any] = field(default_factory=dict)
    shell: Any = None
    command: str = ""
    home: Home = field(default_factory=lambda: Home.current().make())
    progress: Callable[[RunView], Progress] | None = None
    kernel: str | None = None

    @cached_property
    def client(self) -> Client:
        """The line to the backend, which is started where it is not there."""
        from lepton_jupyter.client.client import Client  # lazily: loading the extension costs nothing

        return Client.connect(self.home)

    @property
    def is_kernel(self) -> bool:
        """Whether rich output goes to a notebook."""
        return hasattr(self.shell, "kernel")

    @property
    def has_variables(self) -> bool:
        """Whether a word may mean a variable: in a notebook, not in a shell command."""
        return self.face != "shell"

    @property
    def parent(self) -> str | None:
        """Id of the run inside which this is asked."""
        folder = os.environ.get("LEPTON_RUN")
        return Path(folder).name if folder else None

    def type_next(self, line: str) -> str:
        """Return a line to type next, as this face writes it."""
        return f"{PROGS['shell' if self.face == 'shell' else 'magic']} {line}"

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)  # noqa: T201  a verb's words to the person who typed it

    def warn(self, text: str) -> None:
        """Print a line that is no result."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def shell_here() -> Any:
    """Return IPython's shell of this process, or None; IPython is not loaded to find out."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()
