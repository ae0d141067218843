"""How much of what a run prints is kept: the beginning and the end, and a line that says what was left out.

Light: the kernel's side uses it too.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

KEPT = 500_000  # characters at the beginning, and as many at the end, of what one cell prints
RICH_MAX = 32_000_000  # characters of all that one cell displays: a handful of plotly charts, not a data set
LOG_MAX = 20_000_000
LOG_KEPT = 500_000
ERROR_MAX = 20_000
FIRST_MAX = 500  # of an error's own first line
_MERGED = 4096  # so many characters one output node gathers from a program that prints letter by letter

Output = Callable[[dict[str, Any]], Any]


def shortened(text: str, n_kept: int = ERROR_MAX) -> str:
    """Return a text with its middle left out where it is longer than `n_kept` characters.

    Examples
    --------
    >>> shortened("a" * 5 + "b" * 1000 + "c" * 5, 10)
    'aaaaa\\n[… 1,000 characters left out …]\\nccccc'
    """
    if len(text) <= n_kept:
        return text
    half = n_kept // 2
    return f"{text[:half]}\n{_gap(len(text) - 2 * half)}\n{text[-half:]}"


def _gap(n: int, more: str = "") -> str:
    return f"[… {n:,} characters left out{more} …]"


class KeptOutput:
    """What is kept of one cell's output. Messages go in as they come; `close` writes the end.

    Parameters
    ----------
    outputs : list
        The cell's outputs, in place.
    """

    def __init__(self, outputs: list[Any]) -> None:
        self.outputs = outputs
        self.reset()

    def reset(self) -> None:
        """Begin again: the cell has cleared its output."""
        self._n_head = 0
        self._n_rich = 0
        self._n_tail = 0
        self._n_left_out = 0
        self._tail: deque[tuple[str, str]] = deque()
        self._note: dict[str, Any] | None = None

    def take(self, message: dict[str, Any], add: Output) -> Any:
        """Add one message, or what is kept of it, by `add`; return what that returned."""
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                return self._stream(message, content, add)
            case "error":
                self.close()
                lines = [shortened(str(line)) for line in content.get("traceback", [])]
                content = {**content, "evalue": shortened(str(content.get("evalue", ""))), "traceback": lines}
            case "display_data" | "execute_result":
                content = {**content, "data": self._rich(content.get("data", {}))}
        return add({**message, "content": content})

    def _stream(self, message: dict[str, Any], content: dict[str, Any], add: Output) -> Any:
        text, room = content.get("text", ""), KEPT - self._n_head
        added = None
        if room > 0:
            head, text = text[:room], text[room:]
            self._n_head += len(head)
            last = self.outputs[-1] if self.outputs else {}
            if last.get("name") == content.get("name") and len(last["text"]) < _MERGED:
                last["text"] += head
                added = last
            else:
                added = add({**message, "content": {**content, "text": head}})
        if not text:
            return added
        if self._note is None:
            self._note = self._line("\n[… more output follows; its end is kept when the cell ends …]\n")
            self.outputs.append(self._note)
        self._tail.append((content.get("name", "stdout"), text[-KEPT:]))
        self._n_left_out += len(text)
        self._n_tail += len(self._tail[-1][1])
        while self._n_tail - len(self._tail[0][1]) >= KEPT:
            self._n_tail -= len(self._tail.popleft()[1])
        return added

    def _rich(self, data: dict[str, Any]) -> dict[str, Any]:
        kept = {}
        for kind, value in data.items():
            value = shortened(value, 2 * KEPT) if kind == "text/plain" and isinstance(value, str) else value
            size = len(value) if isinstance(value, str) else len(json.dumps(value, default=str))
            if self._n_rich + size <= RICH_MAX:
                self._n_rich += size
                kept[kind] = value
        if len(kept) == len(data):
            return kept
        left_out = ", ".join(kind for kind in data if kind not in kept)
        limit = f"{RICH_MAX // 1_000_000} million characters"
        return {"text/plain": f"[… an output was left out ({left_out}): a cell may show {limit} …]", **kept}

    def close(self) -> None:
        """Write the end of what was printed, below the line that says how much is missing before it."""
        if self._note is None or not self.outputs:
            return
        surplus = self._n_tail - KEPT
        name, text = self._tail[0]
        if surplus > 0:
            self._tail[0] = (name, text[surplus:])
        n = self._n_left_out - min(self._n_tail, KEPT)
        more = f": of what a cell prints, the first and the last {KEPT:,} stay"
        self._note["text"] = f"\n{_gap(n, more)}\n" if n > 0 else "\n"
        for name, parts in groupby(self._tail, key=itemgetter(0)):
            self.outputs.append(self._line("".join(text for _, text in parts), name))
        self.reset()

    @staticmethod
    def _line(text: str, name: str = "stdout") -> Any:
        from nbformat import from_dict

        return from_dict({"output_type": "stream", "name": name, "text": text})


def trim_log(path: Path) -> None:
    """Cut the middle out of a log that has grown past `LOG_MAX`; whoever appends to it goes on appending."""
    try:
        if path.stat().st_size <= LOG_MAX:
            return
        with path.open("r+b") as file:
            head = file.read(LOG_KEPT)
            size = file.seek(-LOG_KEPT, os.SEEK_END) + LOG_KEPT
            tail = file.read()
            file.truncate(len(head))
        with path.open("ab") as file:
            file.write(f"\n[… {size - 2 * LOG_KEPT:,} bytes left out …]\n".encode() + tail)
    except OSError:
        return  # a log that cannot be cut stays as it is
