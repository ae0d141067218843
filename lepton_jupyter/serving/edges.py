"""The edges over which several processes count a canary's predictions, so that their counts can be added."""

from __future__ import annotations

import logging
import os

import msgspec

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.replicas import all_edges, edges_of
from lepton_jupyter.formats.bundle import encode
from lepton_jupyter.formats.profile import Profile

logger = logging.getLogger(__name__)


class Edges:
    """Those of whoever has some first: a file that is made once.

    Parameters
    ----------
    folder : EndpointFolder
        The endpoint's.
    since : int
        The release at which the canary, or shadow, began.
    """

    def __init__(self, folder: EndpointFolder, since: int) -> None:
        self._path = edges_of(folder, since)

    def look(self) -> Profile | None:
        """Return them, where somebody has them."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Profile)
        except (OSError, msgspec.DecodeError):
            return None

    def offer(self, edges: Profile) -> Profile:
        """Return those of the first who offered some."""
        mine = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            write_atomic(mine, encode(edges), is_durable=False)
            self._path.hardlink_to(mine)
        except FileExistsError:
            pass
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error)
        finally:
            mine.unlink(missing_ok=True)
        return self.look() or edges


def forget_edges(folder: EndpointFolder, release: int) -> None:
    """Remove the edges of canaries that had ended at a release; others may follow a later one already."""
    for path, since in all_edges(folder).items():
        if since < release:
            path.unlink(missing_ok=True)
