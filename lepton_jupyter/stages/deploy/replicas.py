"""How many processes an endpoint may have."""

from __future__ import annotations

import sys

from lepton_jupyter.core.devices import n_cores
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.serving.sharing import can_share


def check_replicas(wanted: int | None) -> None:
    """Refuse more replicas than there are cores, or several on a system that cannot share a port; None is nothing said.

    Raises
    ------
    LeptonError
        It names how many there may be.
    """
    if wanted is None or wanted == 1:
        return
    if not can_share():
        raise LeptonError(
            f"{wanted} replicas share a port only on Linux; this is {sys.platform}.",
            "Leave out --replicas: one process scores on all cores.",
        )
    most = n_cores()
    if wanted > most:
        cores = "1 core" if most == 1 else f"{most} cores"
        raise LeptonError(
            f"{wanted} replicas are more than this machine can run beside each other: it has {cores}.",
            f"Each needs a core of its own; at most --replicas {most}.",
        )
