"""Taken away from a balancer: readiness says 503 while everything that is asked is still answered."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


class Drain:
    """Whether an endpoint is drained; a file says so, to each of its processes and to the next one.

    Parameters
    ----------
    path : Path
        Of that file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_kept = True
        self.is_on = path.exists()

    def set(self, is_on: bool) -> None:
        """Begin, or end; done twice is done once."""
        self._is_kept = True
        try:
            if is_on:
                self._path.touch(mode=0o600)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:  # a full disk: this process knows it all the same
            logger.warning("%s: %s", self._path, error)
            self._is_kept = False
        if is_on != self.is_on:
            logger.info("drained: readiness says 503" if is_on else "resumed")
        self.is_on = is_on

    def look(self) -> bool:
        """Follow the file, and return whether it is on."""
        if self._is_kept:
            with contextlib.suppress(OSError):  # what was known is true until somebody knows better
                self.is_on = self._path.exists()
        return self.is_on
