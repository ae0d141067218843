"""A typed line to words: quotes, comments, ``{expressions}``; nothing else is special."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.errors import LeptonError

_QUOTES = "'\""


def split_words(line: str) -> list[str]:
    r"""Return the words of a line.

    Quotes hold blanks together, a backslash takes the next letter as it is, `` # comment`` and a trailing ``;`` are
    passed over. ``$`` and ``~`` stay as typed.

    Raises
    ------
    LeptonError
        If a quote is not closed.

    Examples
    --------
    >>> split_words('evaluate Net --require "roc_auc >= 0.95";  # the gate')
    ['evaluate', 'Net', '--require', 'roc_auc >= 0.95']
    """
    words: list[str] = []
    at = 0
    while at < len(line):
        if line[at].isspace():
            at += 1
        elif line[at] == "#" or (line[at] == ";" and _ends(line[at + 1 :])):
            break
        else:
            word, at = _word(line, at)
            words.append(word)
    return words


def _ends(rest: str) -> bool:
    rest = rest.strip()
    return not rest or rest.startswith("#")


def _word(line: str, at: int) -> tuple[str, int]:
    start, word = at, ""
    while at < len(line):
        letter = line[at]
        if letter.isspace() or (letter == ";" and _ends(line[at + 1 :])):
            break
        if letter in _QUOTES:
            text, at = _quoted(line, at, start)
            word += text
        elif letter == "\\":
            word += line[at + 1 : at + 2]
            at += 2
        else:
            word += letter
            at += 1
    return word, at


def _quoted(line: str, at: int, start: int) -> tuple[str, int]:
    quote, text, opened = line[at], "", at
    at += 1
    while at < len(line):
        letter = line[at]
        if letter == quote:
            return text, at + 1
        if letter == "\\" and quote == '"' and line[at + 1 : at + 2] in ('"', "\\"):
            letter, at = line[at + 1], at + 1
        text += letter
        at += 1
    raise LeptonError(
        f"The quote {quote} in '{line[start:].strip()}' is not closed.",
        f"Close it with {quote}, or write \\{quote} for the letter itself (letter {opened + 1} of the line).",
    )


class _Evaluating(string.Formatter):
    """``{expression}`` by what the notebook knows; ``$`` is a letter like any other."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        # The expression is the user's own, typed into the user's own notebook.
        return eval(field_name, dict(kwargs)), field_name  # noqa: S307


def expand(line: str, namespace: Mapping[str, Any]) -> str:
    """Return the line with every ``{expression}`` replaced by its value as text; ``{{`` and ``}}`` are braces.

    Raises
    ------
    LeptonError
        If an expression cannot be evaluated; the message says why.
    """
    if "{" not in line and "}" not in line:
        return line
    try:
        return _Evaluating().vformat(line, (), namespace)
    except Exception as error:
        raise LeptonError(
            f"An {{expression}} in '{line.strip()}' cannot be filled in: {type(error).__name__}: {error}",
            "Write {{ and }} where a brace is meant.",
        ) from error
