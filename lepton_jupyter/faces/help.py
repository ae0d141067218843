"""Help, written from the verbs' structs."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.faces.arguments import Field, fields_of, usage
from lepton_jupyter.faces.verbs import COMMANDS
from lepton_jupyter.stages.verbs import Verb


def overview(prog: str = "%lepton") -> str:
    """Return the list of verbs, one line each."""
    width = max(len(command.spec.verb) for command in COMMANDS)
    lines = [f"{prog} VERB …", ""]
    lines += [f"  {command.spec.verb:<{width}}  {command.spec.does}" for command in COMMANDS]
    if prog.startswith("%"):
        cells = [command.cell for command in COMMANDS if command.cell]
        lines += ["", *(f"  %%lepton {cell.verb}: {cell.does}" for cell in cells)]
    lines += ["", f"'{prog} VERB --help' says more. In Python: import lepton_jupyter as lepton; lepton.VERB(…)."]
    lines += [
        "References: NAME (its latest version), NAME@3, NAME@champion, NAME:test (a split), a run's id or prefix;"
    ]
    lines += ["dataset/NAME, model/NAME, endpoint/NAME, run/ID where a name could be two things."]
    return "\n".join(lines)


def page(spec: type[Verb], prog: str = "%lepton") -> str:
    """Return the help of one verb: usage, words, flags, examples."""
    fields = list(fields_of(spec).values())
    rows = [(field.word if field.is_positional else _flag(field), _says(field)) for field in fields]
    width = min(34, max((len(left) for left, _ in rows), default=0))
    lines = [spec.does, "", f"Usage: {_wrapped(usage(spec, prog))}"]
    if rows:
        lines += ["", *(f"  {left:<{width}}  {right}" for left, right in rows)]
    if spec.examples:
        lines += ["", "Examples:", *(f"  {prog} {example}" for example in spec.examples)]
    return "\n".join(lines)


def _flag(field: Field) -> str:
    return field.flag if field.kind == "switch" else f"{field.flag} {field.word}"


def _says(field: Field) -> str:
    extra = []
    if field.choices and str not in field.scalars:
        others = ["a whole number"] if int in field.scalars else []
        extra.append("one of " + ", ".join([*others, *field.choices]))
    elif field.bounds:
        extra.append(field.bounds)
    if _has_default(field.default) and field.kind == "value":
        extra.append(f"default {field.default}")
    return field.help + (f" ({'; '.join(extra)})" if extra else "")


def _has_default(value: Any) -> bool:
    return value is not None and value not in ("", (), {}, False)


def _wrapped(line: str, width: int = 110) -> str:
    lines, current = [], ""
    for part in line.replace("[", "\0[").split(" \0"):
        part = part.replace("\0", "")
        if current and len(current) + len(part) > width:
            lines.append(current)
            current = part
        else:
            current = f"{current} {part}" if current else part
    return "\n         ".join([*lines, current])
