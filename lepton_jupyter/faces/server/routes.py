"""The routes, under ``BASE_URL/lepton-jupyter/``."""

from __future__ import annotations

import re
from typing import Any

from jupyter_server.utils import url_path_join

from lepton_jupyter.faces.server.api import ApiHandler, LiveHandler
from lepton_jupyter.faces.server.doors import DoorHandler
from lepton_jupyter.faces.server.report import ReportHandler
from lepton_jupyter.faces.server.verbs import CHANGES, STARTS, ChangeHandler, OtherHandler, StartHandler


def handlers(base_url: str) -> list[tuple[str, type[Any]]]:
    """Return ``(pattern, handler)`` pairs."""
    routes: list[tuple[str, type[Any]]] = [
        (r"api/v1/events", LiveHandler),
        (r"api/(v1/.+)", ApiHandler),
        (rf"verbs/({'|'.join(CHANGES)})", ChangeHandler),
        (rf"verbs/({'|'.join(STARTS)})", StartHandler),
        (r"verbs/([\w-]+)", OtherHandler),
        (r"runs/([0-9a-f]{12})/report", ReportHandler),
        (r"endpoints/(?P<name>[^/]+)(?:/.*)?", DoorHandler),
    ]
    return [(url_path_join(re.escape(base_url), "lepton-jupyter", pattern), handler) for pattern, handler in routes]
