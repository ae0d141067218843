"""Start the supervisor of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from subprocess import Popen

from lepton_jupyter.backend.follow import FollowedRun
from lepton_jupyter.backend.keeper import backend_environment
from lepton_jupyter.backend.queue import Lease
from lepton_jupyter.backend.warming import Warming
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.processes import spawn

SUPERVISOR = (sys.executable, "-P", "-m", "lepton_jupyter.runner.supervisor")


class Starter:
    """Starts supervisors.

    Parameters
    ----------
    home : Home
    supervisor : sequence of str
        The program that is started with the run's folder as its argument.
    """

    def __init__(self, home: Home, supervisor: Sequence[str] = SUPERVISOR) -> None:
        self.home = home
        self.warming = Warming(home)
        self._supervisor = supervisor

    def start(self, run: FollowedRun, lease: Lease | None) -> Popen[bytes]:
        """Hand a run to the supervisor that waits, or start one; it has the lease then.

        Raises
        ------
        OSError
            If it cannot be started.
        """
        waiting = self.warming.hand_over(run, lease) if self._supervisor is SUPERVISOR else None
        if waiting is not None:
            return waiting
        environment = backend_environment(self.home)
        descriptors: list[int] = []
        if lease is not None:
            descriptors = lease.descriptors
            environment["LEPTON_LEASE_FDS"] = ",".join(map(str, descriptors))
            environment["LEPTON_DEVICES"] = ",".join(lease.names)
        argv = [*self._supervisor, str(run.folder.root)]
        return spawn(argv, env=environment, cwd=run.folder.root, log=run.folder.log, pass_fds=descriptors)
