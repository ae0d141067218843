"""How much memory this process may take."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SETTING = "LEPTON_MEMORY_LIMIT"
OF_HUB = "MEM_LIMIT"  # what JupyterHub's spawners set, in bytes
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.I)


def memory_limit() -> int:
    """Return bytes: what ``LEPTON_MEMORY_LIMIT`` says (``1.5G``), else the Hub, the control group, the machine.

    Raises
    ------
    LeptonError
        If the setting is no size.
    """
    if said := os.environ.get(SETTING):
        return parse_size(said)
    found = [_of_group(), _of_machine()]
    if (of_hub := os.environ.get(OF_HUB, "")).isdigit():
        found.append(int(of_hub))
    return min(size for size in found if size) if any(found) else 2**62


def parse_size(text: str, setting: str = SETTING) -> int:
    """Return a size as bytes; ``K``, ``M``, ``G`` and ``T`` are powers of 1024. `setting` is named in the error.

    Raises
    ------
    LeptonError
        If it is none.

    Examples
    --------
    >>> parse_size("1.5G"), parse_size("200 MB"), parse_size("512")
    (1610612736, 209715200, 512)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise LeptonError(f"'{text}' is no size of memory.", f"Write it as {setting}=1.5G")
    return int(float(match[1]) * UNITS[match[2].lower()])


def _of_group() -> int:
    """Return the limit of this process's control group; 0 where there is none."""
    try:
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
        said = Path(f"/sys/fs/cgroup{group}/memory.max").read_text().strip()
    except OSError:
        return 0
    return int(said) if said.isdigit() else 0


def _of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
