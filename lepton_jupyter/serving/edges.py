"""The edges over which several processes count a canary's predictions, so that their counts can be added."""

from __future__ import annotations

import logging
import os

import msgspec

from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.replicas import FOLDER
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
        self._path = folder.root / FOLDER / f"edges-{since}.json"

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


def forget_edges(folder: EndpointFolder) -> None:
    """Remove the edges of canaries that have ended."""
    for path in (folder.root / FOLDER).glob("edges-*.json"):
        path.unlink(missing_ok=True)
