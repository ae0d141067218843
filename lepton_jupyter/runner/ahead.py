"""What a kernel does before its run begins: import what a training needs; while it waits, become a run's own.

Called in the kernel, in no visible cell. A kernel that waits was started in the environment of an earlier training;
once it has a run, it looks as one that was started for it would: environment, folder, devices, the lease's descriptors.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.runner.payload import MODULES

NEEDED = (
    "lepton_jupyter.runner.inside",
    "lepton_jupyter.runner.session",
    "lepton_jupyter.stages.data.store",
    "lepton_jupyter.stages.train.engine",
    "lepton_jupyter.stages.train.frameworks.torch",
    "lepton_jupyter.stages.evaluate.charts",
)
MAX_LEASES = 256
SET_BY_IPYTHON = ("TERM", "CLICOLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "PAGER", "GIT_PAGER")  # over what was said

_places: dict[str, float] = {}  # folders of installed packages, when they last changed
_channel: list[socket.socket] = []


class UnfitError(Exception):
    """This kernel cannot become the run's own: one is started as if none had waited."""


def load() -> None:
    """Import what a training needs. What cannot be imported says so when it is needed."""
    folder = os.environ.get("LEPTON_RUN")
    if folder and any(map(_is_installed, _own(RunFolder(Path(folder))))):
        return  # the notebook's own module must not find the other one loaded
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            return


def wait(descriptor: int) -> None:
    """Get ready to become a run's kernel.

    Parameters
    ----------
    descriptor : int
        Of the Unix socket on which the lease will come.
    """
    load()
    from lepton_jupyter.stages.train.exporter_process import keep_waiting

    keep_waiting()
    os.set_inheritable(descriptor, False)
    _channel.append(socket.socket(fileno=descriptor))
    _places.update(_changed_at())


def take(run: str, cwd: str, devices: str, n_leases: int) -> None:
    """Become the kernel of a run.

    Parameters
    ----------
    run : str
        The run's folder.
    cwd : str
        Where its notebook stands.
    devices : str
        What it holds, with commas between them.
    n_leases : int
        How many descriptors come over the socket.

    Raises
    ------
    UnfitError
        If packages were changed since, a module of the notebook has the name of one that is loaded, or a GPU is in
        use already. Nothing was changed then that a run could see: the process is ended.
    """
    folder = RunFolder(Path(run))
    channel = _channel.pop()
    if n_leases:
        _, leases, _, _ = socket.recv_fds(channel, 1, MAX_LEASES)
        for lease in leases:
            os.set_inheritable(lease, True)  # whatever uses the device holds it
    channel.close()
    if _changed_at() != _places:
        raise UnfitError("packages were installed or removed since")
    if hidden := next((name for name in _own(folder) if name in sys.modules), ""):
        raise UnfitError(f"the notebook's own module '{hidden}' has the name of one that is loaded")
    torch = sys.modules.get("torch")
    if torch is None or torch.cuda.is_initialized():
        raise UnfitError("torch is not there, or has a device already")
    from lepton_jupyter.runner.request import environment_of

    if devices:
        os.environ["LEPTON_DEVICES"] = devices
    _wear(environment_of(folder))
    os.chdir(cwd)


def _wear(environment: Mapping[str, str]) -> None:
    """Take an environment, and keep what this process has set by itself since it began."""
    told = Path("/proc/self/environ").read_text(errors="surrogateescape").split("\0")
    began = dict(item.split("=", 1) for item in told if "=" in item)
    own = {name: value for name, value in os.environ.items() if name not in began and name not in environment}
    own |= {name: os.environ[name] for name in SET_BY_IPYTHON if name in os.environ}
    os.environ.clear()
    os.environ.update({**environment, **own})


def _own(folder: RunFolder) -> list[str]:
    """Return the names of the modules that the run brings."""
    modules = folder.payload / MODULES
    return sorted(path.name.removesuffix(".py") for path in modules.iterdir()) if modules.is_dir() else []


def _is_installed(name: str) -> bool:
    """Whether a module of this name lies elsewhere than in the notebook's folder."""
    places = [Path(path) for path in sys.path if path and Path(path) != Path.cwd()]
    return any((place / name).is_dir() or (place / f"{name}.py").is_file() for place in places)


def _changed_at() -> dict[str, float]:
    """Return when each folder of packages last got or lost one."""
    return {path: Path(path).stat().st_mtime for path in sys.path if path.endswith("-packages") and Path(path).is_dir()}
