"""What Jupyter calls when it loads us: routes, events, and the backend where something waits for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.server.events import register
from lepton_jupyter.faces.server.live import Live
from lepton_jupyter.faces.server.wake import wake_soon
from lepton_jupyter.faces.server.wire import Wire

PREFIX = "lepton-jupyter"
SETTING = "lepton_jupyter"
N_VERBS = 4  # verbs at once; more wait


class Extension:
    """What the handlers share. Found in the application's settings under `SETTING`.

    Attributes
    ----------
    home : Home
        Not made: looking makes nothing.
    wire : Wire
        HTTP to backend and endpoints.
    live : Live
        The one stream from the backend.
    root : Path or None
        Folder of the contents manager: what a path from the browser is relative to.
    threads : ThreadPoolExecutor
        Where verbs are done.
    """

    def __init__(self, server_app: Any) -> None:
        self.home = Home.current()
        self.log = server_app.log
        root = getattr(server_app.contents_manager, "root_dir", "")
        self.root = Path(root).expanduser().absolute() if root else None
        self.threads = ThreadPoolExecutor(N_VERBS, thread_name_prefix="lepton-verb")
        self.wire = Wire(self.home.runtime().socket)
        self.live = Live(self.wire, on_change=register(server_app.event_logger, server_app.log))

    def close(self) -> None:
        """End stream and threads."""
        self.live.stop()
        self.threads.shutdown(wait=False, cancel_futures=True)


def load(server_app: Any) -> None:
    """Add the routes to a Jupyter server."""
    from lepton_jupyter.faces.server.routes import handlers

    extension = Extension(server_app)
    server_app.web_app.settings[SETTING] = extension
    server_app.web_app.add_handlers(".*$", handlers(server_app.web_app.settings["base_url"]))
    server_app.io_loop.add_callback(extension.live.start)
    wake_soon(extension.home, server_app.log)
