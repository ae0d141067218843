"""Which devices a run wants: ``--devices auto|cpu|N|0,1``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from lepton_jupyter.core.errors import LeptonError

CPU = "cpu-"


@dataclass(frozen=True)
class Choice:
    """Any so many of these.

    Attributes
    ----------
    names : tuple of str
        Devices that would do.
    n : int
        How many of them, all at once.
    """

    names: tuple[str, ...]
    n: int


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_cpu(name: str) -> bool:
    """Whether a device is a slot of the CPU's."""
    return name.startswith(CPU)


def choose(said: str, known: Sequence[str]) -> Choice:
    """Return which devices would do for what was said.

    Parameters
    ----------
    said : str
        ``auto`` (a GPU where there is one, else a CPU slot), ``cpu``, how many (of the GPUs where there are any, else
        of the CPU slots), or which: numbers in the order of ``%lepton devices``, or UUIDs, with commas.
    known : sequence of str
        The devices of this machine.

    Raises
    ------
    LeptonError
        If it cannot be read, or this machine can never have it.

    Examples
    --------
    >>> choose("auto", ["cpu-0", "cpu-1"])
    Choice(names=('cpu-0', 'cpu-1'), n=1)
    >>> choose("0,1", ["GPU-a", "GPU-b", "cpu-0"])
    Choice(names=('GPU-a', 'GPU-b'), n=2)
    """
    gpus = tuple(name for name in known if not is_cpu(name))
    cpus = tuple(name for name in known if is_cpu(name))
    pool = gpus or cpus
    word = said.strip()
    if word == "auto":
        return Choice(pool, 1)
    if word == "cpu":
        return Choice(cpus, 1)
    if word.isdigit() and int(word) > 0:
        if int(word) > len(pool):
            raise _never(said, known)
        return Choice(pool, int(word))
    parts = [part.strip() for part in word.split(",") if part.strip()]
    if not parts or (word.isdigit() and "," not in word):
        raise LeptonError(
            f"--devices is '{said}'; wanted: auto, cpu, how many, or which.", "Such as --devices 2 or --devices 0,1"
        )
    return _those(said, parts, pool, known)


def _those(said: str, parts: Sequence[str], pool: Sequence[str], known: Sequence[str]) -> Choice:
    named: list[str] = []
    for part in parts:
        if part.isdigit():
            if int(part) >= len(pool):
                raise _never(said, known)
            named.append(pool[int(part)])
            continue
        matches = [name for name in known if name == part] or [name for name in known if name.startswith(part)]
        if len(matches) != 1:
            raise LeptonError(
                f"--devices is '{said}': no device '{part}'. Known: {', '.join(known)}.",
                "Such as auto, cpu, --devices 2 or --devices 0,1",
                code="not_found",
            )
        named += matches
    if len(set(named)) < len(named) or len({is_cpu(name) for name in named}) > 1:
        raise LeptonError(
            f"--devices is '{said}': each device once, and GPUs and CPU slots not together.",
            "Such as --devices 2 or --devices 0,1",
        )
    return Choice(tuple(named), len(named))


def _never(said: str, known: Sequence[str]) -> LeptonError:
    gpus = [name for name in known if not is_cpu(name)]
    cpus = [name for name in known if is_cpu(name)]
    have = f"{len(gpus)} GPU(s): {', '.join(gpus)}" if gpus else f"no GPU, and {len(cpus)} CPU slot(s): {_span(cpus)}"
    more = "" if gpus else "; LEPTON_CPU_SLOTS says how many slots there are"
    return LeptonError(
        f"--devices {said} can never start: this machine has {have}.",
        f"Say --devices {len(gpus or cpus)} at most{more}.",
        code="bad_input",
    )


def _span(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]}"
