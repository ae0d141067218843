"""How a run ended, in words: from what the kernel told, the cell's output, or the process's exit."""

from __future__ import annotations

import errno
import re
import traceback
from dataclasses import dataclass
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import tail
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import RunState
from lepton_jupyter.formats.events import EventReader, EventWriter
from lepton_jupyter.runner.outputs import FIRST_MAX

LOG_LINES = 20
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NO_SPACE = f"[Errno {errno.ENOSPC}]"


@dataclass(frozen=True)
class Ending:
    """The last state of a run and its reason, as `LeptonError.to_dict` writes one.

    Attributes
    ----------
    state : str
    error : dict or None
    has_died : bool
        Whether something killed the kernel: the backend may let the run go on.
    """

    state: RunState
    error: dict[str, str] | None = None
    has_died: bool = False


def failure(error: LeptonError) -> dict[str, str]:
    """Return our own error as a record."""
    record = error.to_dict()
    return record if record["code"] != "bad_input" else {**record, "code": "failed"}


def unexpected(error: BaseException, folder: RunFolder) -> dict[str, str]:
    """Return the record of an error in the supervisor itself."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return no_space(folder, error.filename)
    return {
        "message": f"The run's supervisor failed: {type(error).__name__}: {error}.",
        "hint": f"Its log: {folder.log}",
        "code": "failed",
        "detail": "".join(traceback.format_exception(error)),
    }


def no_space(folder: RunFolder, path: object = None) -> dict[str, str]:
    """Return the record of a run that found the disk full."""
    return {
        "message": f"no space left in {path or folder.root}",
        "hint": "Make room, or set LEPTON_HOME to another disk, and train again.",
        "code": "failed",
        "detail": "",
    }


def dead(message: str, folder: RunFolder) -> dict[str, str]:
    """Return the record of a run whose kernel is gone, with the end of its log."""
    lines = tail(folder.log, LOG_LINES)
    return {
        "message": message,
        "hint": f"The log: {folder.log}",
        "code": "failed",
        "detail": f"Last lines of the log:\n{lines}" if lines else "",
    }


def told(folder: RunFolder) -> dict[str, str] | None:
    """Return the error that the kernel told of in its events, the last one; None where it told none."""
    found: dict[str, str] | None = None
    for _, event in EventReader(folder.kernel_events).read():
        record = event.get("error")
        if event.get("kind") == "log" and isinstance(record, dict) and "message" in record:
            found = {key: str(record.get(key, "")) for key in ("message", "hint", "code", "detail")}
    return found


def of_output(notebook: Any, folder: RunFolder) -> dict[str, str]:
    """Return the record of an error from the executed notebook's error output: what a kernel without us leaves."""
    for index, cell in enumerate(notebook.get("cells", [])):
        for output in cell.get("outputs", []):
            if output.get("output_type") != "error":
                continue
            lines = [_ANSI.sub("", line) for line in output.get("traceback", [])]
            if _NO_SPACE in output.get("evalue", ""):
                return no_space(folder)
            if output.get("ename") == "LeptonError":
                return {
                    "message": lines[0].removeprefix("LeptonError: ") if lines else output.get("evalue", ""),
                    "hint": lines[1] if len(lines) > 1 else "",
                    "code": "failed",
                    "detail": "\n".join(lines[2:]),
                }
            first = (output.get("evalue", "").splitlines() or [""])[0][:FIRST_MAX]
            return {
                "message": f"{output.get('ename')}: {first}".rstrip(": "),
                "hint": f"It was raised in cell {index + 1} of {folder.notebook}",
                "code": "failed",
                "detail": "\n".join(lines),
            }
    return {"message": "A cell failed.", "hint": f"See {folder.notebook}", "code": "failed", "detail": ""}


def write(events: EventWriter, end: Ending, folder: RunFolder) -> None:
    """Write the last event. Where the disk is full, the reserve makes room for it."""
    data: dict[str, Any] = {"state": end.state, **({"died": True} if end.has_died else {})}
    if end.error is not None:
        data["error"] = end.error
    if not events.write("state", **data):
        folder.reserve.unlink(missing_ok=True)
        if not events.write("state", **data) and end.error is not None:
            events.write("state", state=end.state, error={**end.error, "detail": ""})
