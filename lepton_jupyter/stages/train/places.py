"""Point into the user's code: the file, the line and its text."""

from __future__ import annotations

import inspect
import linecache
import re
import traceback
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

_OURS = str(Path(__file__).resolve().parents[2])


def _where(filename: str) -> str:
    """Return a file as a person knows it: a cell has no file of its own."""
    if not filename.endswith(".py") or "ipykernel_" in filename or not Path(filename).exists():
        return "the cell" if "ipykernel_" in filename or filename.startswith("<") else filename
    return Path(filename).name


def _code_of(function: Any) -> CodeType | None:
    function = inspect.unwrap(getattr(function, "__func__", function))
    return getattr(function, "__code__", None)


def source_lines(function: Any) -> list[tuple[int, str]]:
    """Return ``(line number, text)`` of a function's source, empty where it is not to be had."""
    code = _code_of(function)
    if code is None:
        return []
    try:
        lines, start = inspect.getsourcelines(code)
    except (OSError, TypeError):
        return []
    return [(start + offset, line.strip()) for offset, line in enumerate(lines)]


def is_users(cls: type) -> bool:
    """Whether a class was written by the user: not torch's nor another installed package's."""
    return not cls.__module__.startswith(("torch.", "sklearn."))


def forward_place(module: Any) -> str:
    """Return ``forward, line 9 of the cell: `return self.net(x)` `` for a module's own forward; empty if unknown."""
    return _last_return(type(module).forward) if is_users(type(module)) else ""


def _last_return(function: Any) -> str:
    lines = source_lines(function)
    returns = [(number, text) for number, text in lines if text.startswith("return")] or lines[-1:]
    code = _code_of(function)
    if not returns or code is None:
        return ""
    number, text = returns[-1]
    return f"{code.co_name}, line {number} of {_where(code.co_filename)}: `{text}`"


def find_line(module: Any, pattern: str) -> str:
    """Return the last line of a module's forward or constructor (or a submodule's) that matches a pattern."""
    found = ""
    for part in reversed(list(module.modules())):  # the module itself last: its own lines win
        if not is_users(type(part)):
            continue
        for function in (type(part).__init__, type(part).forward):
            code = _code_of(function)
            for number, text in source_lines(function):
                if code is not None and re.search(pattern, text, re.IGNORECASE):
                    found = f"line {number} of {_where(code.co_filename)}: `{text}`"
    return found


def user_line(error: BaseException) -> str:
    """Return the innermost line of the user's code in an error's traceback, with its text; empty if there is none."""
    frame = _user_frame(error.__traceback__)
    return f"line {frame.lineno} of {_where(frame.filename)}: `{(frame.line or '').strip()}`" if frame else ""


def _user_frame(trace: TracebackType | None) -> traceback.FrameSummary | None:
    found = None
    for frame in traceback.extract_tb(trace):
        if frame.filename.startswith(_OURS) or "site-packages" in frame.filename:
            continue
        if linecache.getline(frame.filename, frame.lineno or 0):
            found = frame
    return found
