"""The one error that a person sees: what happened, the known choices, what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

MAX_LISTED = 12


class LeptonError(Exception):
    """Say what happened, with the value, and what to do next.

    Parameters
    ----------
    message : str
        What happened, with the value quoted and the known choices.
    hint : str
        What to type next; empty where the message says it all.
    code : str
        Machine-readable kind: ``bad_input``, ``not_found``, ``conflict``, ``refused``, ``failed``, ``stopped``,
        ``unavailable``.
    detail : str
        More lines for a person, such as the end of a log or the user's own traceback. Shown after the two lines.
    """

    def __init__(self, message: str, hint: str = "", *, code: str = "bad_input", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return "\n".join(part for part in (self.message, self.hint, self.detail) if part)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.message, self.hint, self.code, self.detail))

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show our lines in place of a traceback."""
        return [f"LeptonError: {self.message}", *(part for part in (self.hint, self.detail) if part)]

    def to_dict(self) -> dict[str, str]:
        """Return what travels over the wire; `from_dict` reads it."""
        return {"message": self.message, "hint": self.hint, "code": self.code, "detail": self.detail}

    @classmethod
    def from_dict(cls, record: dict[str, str]) -> LeptonError:
        """Make the error again from what `to_dict` returned."""
        return _rebuild(record["message"], record.get("hint", ""), record.get("code", ""), record.get("detail", ""))


def _rebuild(message: str, hint: str, code: str, detail: str) -> LeptonError:
    return LeptonError(message, hint, code=code or "bad_input", detail=detail)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known word, else an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def unknown(kind: str, word: str, known: Iterable[str], hint: str = "") -> LeptonError:
    """Return the error for a word that is not among the known ones.

    Examples
    --------
    >>> print(unknown("dataset", "chrun", ["churn", "wdbc"]))
    No dataset named 'chrun'. Known: churn, wdbc. Did you mean 'churn'?
    """
    names = list(known)
    listed = ", ".join(names[:MAX_LISTED]) + (f" … ({len(names)} in all)" if len(names) > MAX_LISTED else "")
    message = f"No {kind} named '{word}'. Known: {listed or 'none yet'}.{did_you_mean(word, names)}"
    return LeptonError(message, hint, code="not_found")
