"""Where each process of an endpoint keeps what is its own: the first in the endpoint's folder, others below it."""

from __future__ import annotations

from pathlib import Path

from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.core.processes import is_held

FOLDER = "replicas"
FIRST = 1


def own_folder(folder: EndpointFolder, number: int) -> EndpointFolder:
    """Return where a replica writes its status, figures and counts; the first is 1."""
    return folder if number == FIRST else EndpointFolder(folder.root / FOLDER / str(number))


def make_folders(folder: EndpointFolder, n_replicas: int) -> None:
    """Make what several replicas write in, where there are to be several."""
    for number in range(FIRST + 1, n_replicas + 1):
        own_folder(folder, number).root.mkdir(mode=0o700, parents=True, exist_ok=True)


def own_folders(folder: EndpointFolder) -> dict[int, EndpointFolder]:
    """Return the folders of all replicas that an endpoint has had, by number; the first one's is always among them."""
    numbers = sorted(int(path.name) for path in (folder.root / FOLDER).glob("*") if path.name.isdigit())
    return {FIRST: folder} | {number: own_folder(folder, number) for number in numbers}


def has_others(folder: EndpointFolder) -> bool:
    """Whether an endpoint has ever had more than one process."""
    return (folder.root / FOLDER).exists()


def counts_of(own: EndpointFolder) -> Path:
    """Return ``counts.json``: what a replica has counted, over all of its lives. Written by it."""
    return own.root / "counts.json"


def port_of(folder: EndpointFolder, number: int) -> Path:
    """Return ``port-NUMBER.json``: which port a replica has. Written by it, where there are several."""
    return folder.root / FOLDER / f"port-{number}.json"


def refused_of(folder: EndpointFolder) -> Path:
    """Return ``refused.json``: a bundle that was tried and refused last. Written by whoever holds the turn to try."""
    return folder.root / FOLDER / "refused.json"


def edges_of(folder: EndpointFolder, since: int) -> Path:
    """Return ``edges-RELEASE.json``: by what a canary's predictions are compared. Written once, by the first."""
    return folder.root / FOLDER / f"edges-{since}.json"


def all_edges(folder: EndpointFolder) -> dict[Path, int]:
    """Return all edges that are there, with the release of each."""
    return {path: int(path.stem.removeprefix("edges-")) for path in (folder.root / FOLDER).glob("edges-*.json")}


def replica_lock(first: Path, number: int) -> Path:
    """Return the lock that a replica holds while it lives, beside the first one's. No name holds a ``#``."""
    return first if number == FIRST else first.with_name(f"{first.name}#{number}")


def is_any_held(first: Path) -> bool:
    """Whether any replica of an endpoint lives."""
    return is_held(first) or any(is_held(path) for path in first.parent.glob(f"{first.name}#*"))


def first_lock(path: Path) -> Path:
    """Return the first replica's lock, given any one's."""
    return path.with_name(path.name.partition("#")[0])
