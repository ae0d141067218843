"""The whole life of a model, inside the notebook where it was born."""

from __future__ import annotations

import os
from typing import Any

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when ONNX Runtime is loaded: it would call home

_OTHERS = ("load", "save", "log", "checkpoint", "restore", "window", "check", "retraining")


def load_ipython_extension(shell: Any) -> None:
    """Register ``%lepton`` and ``%%lepton``: called by ``%load_ext lepton_jupyter``."""
    from lepton_jupyter.faces.magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take them away: called by ``%unload_ext lepton_jupyter``."""
    from lepton_jupyter.faces.magics import unload

    unload(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Say where JupyterLab finds our front end."""
    return [{"src": "labextension", "dest": "lepton-jupyter"}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Say what a Jupyter server loads."""
    return [{"module": "lepton_jupyter"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    """Add our routes: called by a Jupyter server as it starts."""
    from lepton_jupyter.faces.server.extension import load

    load(server_app)


def __getattr__(name: str) -> Any:
    """Make a verb's function when it is first asked for; nothing is loaded before."""
    if name == "LeptonError":
        from lepton_jupyter.core.errors import LeptonError

        return LeptonError
    if not name.startswith("_"):
        from lepton_jupyter.faces import python
        from lepton_jupyter.faces.verbs import VERBS

        verb = name.replace("_", "-")  # export-log is export_log in Python
        if verb in VERBS or name in _OTHERS:
            found = python.function(verb) if verb in VERBS else getattr(python, name)
            globals()[name] = found
            return found
        from lepton_jupyter.core.errors import did_you_mean

        known = [*(word.replace("-", "_") for word in VERBS), *_OTHERS, "LeptonError"]
        raise AttributeError(f"lepton_jupyter has no '{name}'. Known: {', '.join(known)}.{did_you_mean(name, known)}")
    raise AttributeError(f"module 'lepton_jupyter' has no attribute '{name}'")


def __dir__() -> list[str]:
    from lepton_jupyter.faces.verbs import VERBS

    verbs = [word.replace("-", "_") for word in VERBS]
    return sorted([*verbs, *_OTHERS, "LeptonError", "__version__"])
