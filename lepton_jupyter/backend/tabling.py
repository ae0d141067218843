"""The request logs of endpoints: a short process makes tables of closed segments, and removes what is too old."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from subprocess import Popen

import msgspec

from lepton_jupyter.backend.keeper import backend_environment
from lepton_jupyter.core.paths import EndpointFolder, Home
from lepton_jupyter.core.processes import spawn
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.requestlog import is_closed, segments, tables
from lepton_jupyter.formats.retention import keep_of

AGAIN_S = 600.0  # what could not be done is tried again then: the disk may have been full
MODULE = "lepton_jupyter.stages.deploy.requests.closing"

log = logging.getLogger("lepton.backend")


class Tabling:
    """Start that process when there is something for it to do; polars is not loaded here."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._child: Popen[bytes] | None = None
        self._seen: set[Path] = set()  # what the last process was started for; what is there still could not be done
        self._again_at = 0.0

    def tick(self) -> None:
        """Look once."""
        if self._child is not None and self._child.poll() is None:
            return
        wanted = {path for folder in self.home.endpoints.glob("*/") for path in _due(EndpointFolder(folder))}
        is_new = not wanted <= self._seen or (bool(wanted) and time.monotonic() > self._again_at)
        self._seen = wanted
        if not is_new:
            return
        self._again_at = time.monotonic() + AGAIN_S
        argv = [sys.executable, "-P", "-m", MODULE, str(self.home.root)]
        try:
            self._child = spawn(argv, env=backend_environment(self.home), cwd=self.home.root, log=self.home.backend_log)
        except OSError as error:
            log.warning("tables of request logs cannot be made: %s", error)


def _due(folder: EndpointFolder) -> set[Path]:
    """Return closed segments, and tables that are too old."""
    due = {path for path in segments(folder.requests) if is_closed(path)}
    made = tables(folder.requests)
    if made:
        try:
            options = msgspec.json.decode(folder.config.read_bytes(), type=EndpointConfig).options
            if made[0].stat().st_mtime < time.time() - keep_of(options).age_s:
                due.add(made[0])
        except (OSError, msgspec.DecodeError):  # deleted, or written just now
            pass
    return due
