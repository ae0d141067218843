"""Which verbs a panel holds, by word. A verb is added to a panel by its name here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_jupyter.core.errors import unknown


@dataclass(frozen=True)
class Word:
    """One word of the life cycle.

    Attributes
    ----------
    verbs : tuple of str
        Those that have a form, in the order in which they are shown.
    tables : tuple of str
        Verbs whose tables lie below.
    """

    verbs: tuple[str, ...]
    tables: tuple[str, ...]


WORDS: Mapping[str, Word] = {
    "data": Word(("data",), ("datasets",)),
    "train": Word(("train",), ("runs",)),
    "tune": Word(("tune",), ("runs",)),
    "evaluate": Word(("evaluate",), ("models",)),
    "deploy": Word(("deploy", "predict", "export", "export-log", "token", "rollback"), ("endpoints",)),
    "monitor": Word(("monitor", "feedback", "schedule", "tick", "alerts"), ("schedules", "alerts")),
    "maintain": Word(("promote", "retrain", "stop", "delete"), ("models", "schedules")),
}
TABLES = ("runs", "models", "endpoints", "schedules")  # of a panel without a word


def word_of(text: str) -> str:
    """Return the word that is meant: the word itself, or the one that has a verb.

    Raises
    ------
    LeptonError
        If it is neither.

    Examples
    --------
    >>> word_of("predict")
    'deploy'
    """
    if text in WORDS:
        return text
    found = next((word for word, held in WORDS.items() if text in held.verbs), None)
    if found is None:
        raise unknown("panel", text, WORDS, "Type '%lepton panel' for all of them.")
    return found
