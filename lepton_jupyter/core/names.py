"""Names, and references such as ``churn@3:test`` or ``model/Net@champion``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lepton_jupyter.core.errors import LeptonError, did_you_mean

KINDS = ("dataset", "model", "endpoint", "schedule", "run")
SPLITS = ("train", "validation", "test")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z")
_RUN_ID = re.compile(r"[0-9a-f]{4,32}\Z")


def check_name(name: str, kind: str = "name") -> str:
    """Return the name if it is one: a letter, then letters, digits, ``_ . -``; at most 64 characters.

    Raises
    ------
    LeptonError
        If it is not; the message shows the rule.
    """
    if not _NAME.match(name) or len(name) > 64:
        raise LeptonError(
            f"'{name}' cannot be the name of a {kind}: a name is a letter, then letters, digits, '_', '.', '-' "
            "(64 at most).",
        )
    return name


@dataclass(frozen=True)
class Reference:
    """What a person points at.

    Attributes
    ----------
    name : str
        The name, or a run's id or a prefix of one.
    kind : str or None
        One of `KINDS` where it was said (``dataset/NAME``); None where the position decides.
    version : int or None
        ``NAME@3``.
    alias : str or None
        ``NAME@champion``. ``@latest`` is the same as nothing.
    split : str or None
        ``NAME:test``: one of `SPLITS`.
    """

    name: str
    kind: str | None = None
    version: int | None = None
    alias: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        at = f"@{self.version}" if self.version is not None else f"@{self.alias}" if self.alias else ""
        return f"{self.kind + '/' if self.kind else ''}{self.name}{at}{':' + self.split if self.split else ''}"

    @property
    def is_latest(self) -> bool:
        """Whether no version and no alias was named."""
        return self.version is None and self.alias is None

    @property
    def may_be_run(self) -> bool:
        """Whether the text could be a run's id or a prefix of one."""
        return self.kind in (None, "run") and self.is_latest and bool(_RUN_ID.match(self.name))

    def pinned(self, version: int) -> Reference:
        """Return the same reference with its version said."""
        return replace(self, version=version, alias=None)


def parse(text: str, kind: str | None = None) -> Reference:
    """Read a reference.

    Parameters
    ----------
    text : str
        ``NAME``, ``NAME@3``, ``NAME@alias``, ``NAME:test``, ``NAME@3:test``, ``KIND/NAME…`` or a run's id.
    kind : str, optional
        The kind that the position asks for; another one in the text is an error.

    Raises
    ------
    LeptonError
        If the text is not a reference, or is of another kind.

    Examples
    --------
    >>> parse("model/Net@3:test")
    Reference(name='Net', kind='model', version=3, alias=None, split='test')
    """
    rest = text.strip()
    said: str | None = None
    if "/" in rest:
        said, _, rest = rest.partition("/")
        if said not in KINDS:
            raise LeptonError(f"'{said}' in '{text}' is no kind. Known: {', '.join(KINDS)}.{did_you_mean(said, KINDS)}")
    if said and kind and said != kind:
        raise LeptonError(f"'{text}' is a {said}; a {kind} is wanted here.")
    rest, colon, split = rest.partition(":")
    if colon and split not in SPLITS:
        raise LeptonError(
            f"No split named '{split}'. Known: {', '.join(SPLITS)}.{did_you_mean(split, SPLITS)}", code="not_found"
        )
    name, at, which = rest.partition("@")
    if at and not which:
        raise LeptonError(
            f"'{text}' ends in '@' without a version or an alias.", f"Try '{name}@1' or '{name}@champion'."
        )
    kind = said or kind
    if not (kind in (None, "run") and _RUN_ID.match(name)):
        check_name(name, kind or "thing")
    version = int(which) if which.isdigit() else None
    alias = which if which and version is None and which != "latest" else None
    return Reference(name=name, kind=kind, version=version, alias=alias, split=split or None)
