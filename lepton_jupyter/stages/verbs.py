"""What a verb is: a typed struct, from which every face is derived."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Meta, Struct


class Verb(Struct, kw_only=True, frozen=True):
    """Base of every verb's struct: field, type, default, bounds, one line of help (`Help`).

    Class attributes
    ----------------
    verb : str
        The word.
    positional : tuple of str
        Fields that are given without a flag, in order.
    examples : tuple of str
        Lines that work as typed, without ``%lepton``.
    does : str
        One sentence for help.
    """

    verb: ClassVar[str]
    positional: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[str, ...]] = ()
    does: ClassVar[str] = ""


def Help(text: str, **bounds: Any) -> Meta:  # noqa: N802  reads like the annotation that it is
    """Return the annotation of one field: its line of help, and msgspec's bounds (``gt``, ``ge``, ``le`` …)."""
    return Meta(description=text, **bounds)
