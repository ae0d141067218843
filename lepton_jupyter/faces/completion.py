"""Completion behind ``%lepton``: verbs, flags, choices, and names that live: datasets, models, endpoints, variables."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.arguments import Field, fields_of
from lepton_jupyter.faces.verbs import COMMANDS, VERBS
from lepton_jupyter.stages.verbs import Verb

FRESH_S = 3.0  # how long names that the backend told are taken as they are
_LINE = re.compile(r"^\s*(?:[\w.,\s]+=\s*)?(?P<magic>%{1,2})lepton\s(?P<rest>.*)$", re.DOTALL)

NAMES_OF: dict[tuple[str, str], tuple[str, ...]] = {
    ("train", "model"): ("model variable",), ("train", "data"): ("dataset", "table variable"),
    ("tune", "model"): ("model variable",), ("tune", "data"): ("dataset", "table variable"),
    ("data", "name"): ("dataset",), ("data", "source"): ("table variable",),
    ("evaluate", "model"): ("model",), ("evaluate", "data"): ("dataset",), ("evaluate", "against"): ("model",),
    ("predict", "model"): ("model", "endpoint"), ("predict", "rows"): ("table variable",),
    ("deploy", "model"): ("model",), ("deploy", "as_"): ("endpoint",), ("promote", "model"): ("model",),
    ("export", "model"): ("model",), ("export-log", "endpoint"): ("endpoint",), ("export-log", "bundle"): ("model",),
    ("feedback", "endpoint"): ("endpoint",), ("feedback", "labels"): ("table variable",),
    ("rollback", "endpoint"): ("endpoint",), ("retrain", "model"): ("model",),
    ("show", "ref"): ("model", "endpoint", "dataset", "schedule", "run"),
    ("logs", "ref"): ("endpoint", "model", "run"), ("open", "run"): ("model", "run"),
    ("stop", "ref"): ("endpoint", "schedule", "run"), ("tick", "schedule"): ("schedule",),
    ("monitor", "endpoint"): ("endpoint",), ("token", "endpoint"): ("endpoint",),
    ("compare", "refs"): ("model", "run"), ("delete", "ref"): ("said",),
}  # fmt: skip
FILES = frozenset(
    {
        ("data", "source"), ("predict", "rows"), ("run", "notebook"), ("schedule", "notebook"), ("monitor", "notebook"),
        ("export", "to"), ("export", "base"), ("export-log", "to"), ("export-log", "endpoint"), ("feedback", "labels"),
        ("deploy", "tls_cert"), ("deploy", "tls_key"), ("train", "tokenizer"), ("tune", "tokenizer"),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Words that fit.

    Attributes
    ----------
    fragment : str
        What they take the place of.
    is_all : bool
        Whether nothing else (a path) can stand there.
    """

    words: tuple[str, ...]
    fragment: str
    is_all: bool


def complete(text: str, namespace: Mapping[str, Any], names: Callable[[str], Iterable[str]]) -> Found | None:
    """Return the words that fit at the end of a line; None where the line is not ours.

    Parameters
    ----------
    text : str
        The line up to the cursor.
    namespace : Mapping
        The notebook's names.
    names : callable
        Returns the live names of a kind: ``dataset``, ``model``, ``endpoint``, ``run``.
    """
    match = _LINE.match(text)
    if match is None:
        return None
    words = match["rest"].split()
    fragment = "" if not words or match["rest"][-1:].isspace() else words.pop()
    is_cell = match["magic"] == "%%"
    if not words:
        verbs = [command.spec.verb for command in COMMANDS if command.cell or not is_cell]
        return _fitting(verbs, fragment, is_all=True)
    command = VERBS.get(words[0])
    if command is None:
        return None
    spec = command.cell if is_cell and command.cell is not None else command.spec
    return _argument(spec, words[1:], fragment, namespace, names)


def _argument(
    spec: type[Verb],
    words: list[str],
    fragment: str,
    namespace: Mapping[str, Any],
    names: Callable[[str], Iterable[str]],
) -> Found:
    fields = fields_of(spec)
    flags = {field.flag: field for field in fields.values() if not field.is_positional}
    pending = flags.get(words[-1]) if words else None
    if pending is not None and pending.kind != "switch":
        return _values(spec, pending, fragment, namespace, names)
    if fragment.startswith("-"):
        used = {word for word in words if word in flags and flags[word].kind in ("value", "switch")}
        return _fitting([flag for flag in (*flags, "--help") if flag not in used], fragment, is_all=True)
    loose = _loose(words, flags)
    positional = [fields[name] for name in spec.positional]
    if positional and positional[-1].kind == "repeat":
        return _values(spec, positional[-1], fragment, namespace, names)
    if len(loose) < len(positional):
        return _values(spec, positional[len(loose)], fragment, namespace, names)
    return _fitting(flags, fragment, is_all=True)


def _loose(words: list[str], flags: Mapping[str, Field]) -> list[str]:
    loose, takes_next = [], False
    for word in words:
        if takes_next:
            takes_next = False
        elif word in flags:
            takes_next = flags[word].kind != "switch"
        elif not word.startswith("-"):
            loose.append(word)
    return loose


def names_for(verb: str, field: str, namespace: Mapping[str, Any], names: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the names that live now and fit a field of a verb."""
    return [word for kind in NAMES_OF.get((verb, field), ()) for word in _live(kind, namespace, names)]


def _values(
    spec: type[Verb], field: Field, fragment: str, namespace: Mapping[str, Any], names: Callable[[str], Iterable[str]]
) -> Found:
    words = [*field.choices, *names_for(spec.verb, field.name, namespace, names)]
    if (spec.verb, field.name) in FILES:
        words += _paths(fragment)
    return _fitting(words, fragment, is_all=bool(words))


def _paths(fragment: str) -> list[str]:
    """Return the paths that begin like this, folders with a slash at the end."""
    folder, slash, _ = fragment.rpartition("/")
    try:
        found = sorted(Path(folder + slash).expanduser().iterdir() if slash else Path.cwd().iterdir())
    except OSError:
        return []
    return [
        folder + slash + path.name + ("/" if path.is_dir() else "") for path in found if not path.name.startswith(".")
    ]


def _live(kind: str, namespace: Mapping[str, Any], names: Callable[[str], Iterable[str]]) -> list[str]:
    if kind.endswith("variable"):
        from lepton_jupyter.faces.flows.meaning import (
            is_model,
            is_table,
        )  # a flow's rule; asked only when TAB is pressed

        wanted = is_model if kind.startswith("model") else is_table
        return sorted(name for name, value in namespace.items() if not name.startswith("_") and wanted(value))
    if kind == "said":
        return [f"{said}/{name}" for said in ("dataset", "model", "endpoint", "schedule") for name in names(said)]
    return list(names(kind))


def _fitting(words: Iterable[str], fragment: str, *, is_all: bool) -> Found:
    fitting = tuple(dict.fromkeys(word for word in words if word.startswith(fragment)))
    return Found(fitting, fragment, is_all and bool(fitting))


class LiveNames:
    """Names that exist now. Never starts anything: without a backend, models are not known."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, list[str]]] = {}

    def __call__(self, kind: str) -> list[str]:
        at, words = self._known.get(kind, (0.0, []))
        if time.monotonic() - at < FRESH_S:
            return words
        try:
            words = self._look(kind)
        except Exception:
            words = []  # a completion that fails is no completion: the person goes on typing
        self._known[kind] = (time.monotonic(), words)
        return words

    def _look(self, kind: str) -> list[str]:
        home = Home.current()
        folders = {"dataset": home.datasets, "endpoint": home.endpoints, "schedule": home.schedules}
        if folder := folders.get(kind):
            return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not home.runtime().socket.exists():
            return []
        from lepton_jupyter.client.client import Client  # lazily: loading the extension costs nothing

        client = Client.connect(home)
        if kind == "run":
            return [view.run_id for view in client.runs(limit=20)]
        views = client.models()
        return [*dict.fromkeys(view.model for view in views), *(view.ref for view in views)]


def matcher_of(shell: Any) -> Callable[[Any], dict[str, Any]]:
    """Return IPython's matcher (API version 2) for a shell."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    names = LiveNames()

    @context_matcher(identifier="lepton", priority=100)
    def lepton_matcher(context: Any) -> dict[str, Any]:
        found = complete(_logical_line(context), shell.user_ns, names)
        if found is None:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(text=word, type="magic") for word in found.words],
            "matched_fragment": found.fragment,
            "suppress": found.is_all,
            "ordered": True,
        }

    matcher: Callable[[Any], dict[str, Any]] = lepton_matcher
    return matcher


def _logical_line(context: Any) -> str:
    """Return the line up to the cursor, with those before it that end in a backslash."""
    lines = context.full_text.split("\n")[: context.cursor_line]
    text = str(context.text_until_cursor)
    while lines and lines[-1].rstrip().endswith("\\"):
        text = lines.pop().rstrip()[:-1] + " " + text
    return text
