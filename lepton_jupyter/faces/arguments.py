"""Structs to flags: what a line, a shell command and keyword arguments share."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from lepton_jupyter.core.errors import LeptonError, did_you_mean, unknown
from lepton_jupyter.stages.verbs import Verb

V = TypeVar("V", bound=Verb)

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
SHOWN_FLAGS = 5  # in the usage line of an error; --help shows them all
_BOUNDS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


@dataclass(frozen=True)
class Field:
    """One field of a verb's struct, as a person types it.

    Attributes
    ----------
    name : str
        The field.
    flag : str
        ``--batch-size``; ``-p`` for the model's or notebook's own KEY=VALUE.
    kind : str
        ``switch``, ``repeat``, ``pairs`` or ``value``.
    choices : tuple of str
        The words that are allowed, where it is a matter of words.
    scalars : tuple of type
        int, float, str, bool that are allowed beside the choices.
    bounds : str
        ``at least 1``; empty where there are none.
    """

    name: str
    flag: str
    kind: str
    help: str
    choices: tuple[str, ...]
    scalars: tuple[type, ...]
    bounds: str
    default: Any
    is_required: bool
    is_positional: bool
    annotation: Any

    @property
    def wanted(self) -> str:
        """What may be typed, in words."""
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        parts = [names[scalar] for scalar in self.scalars if scalar in names]
        if parts and self.bounds:
            parts[0] = f"{parts[0]} of {self.bounds}" if "at" in self.bounds else f"{parts[0]} {self.bounds}"
        return " or ".join([*parts, *(f"'{choice}'" for choice in self.choices)])

    @property
    def word(self) -> str:
        """How usage shows its value."""
        return "KEY=VALUE" if self.kind == "pairs" else self.name.strip("_").upper()


@cache
def fields_of(spec: type[Verb]) -> dict[str, Field]:
    """Return the fields of a verb by name: positional ones first, then in the struct's order, common ones last."""
    hints = get_type_hints(spec, include_extras=True)
    fields = {item.name: _field(spec, item, hints[item.name]) for item in msgspec.structs.fields(spec)}
    inherited = {name for base in spec.__mro__[1:] if issubclass(base, Verb) for name in base.__struct_fields__}
    own = [name for name in fields if name not in inherited and name not in spec.positional]
    order = [*spec.positional, *own, *(name for name in fields if name in inherited and name not in spec.positional)]
    return {name: fields[name] for name in order}


def _field(spec: type[Verb], item: msgspec.structs.FieldInfo, hint: Any) -> Field:
    inner, *metas = get_args(hint) if get_origin(hint) is not None and hasattr(hint, "__metadata__") else (hint,)
    meta = next((meta for meta in metas if isinstance(meta, msgspec.Meta)), msgspec.Meta())
    leaves = tuple(_leaves(inner))
    scalars = tuple(leaf for leaf in leaves if isinstance(leaf, type) and leaf is not type(None))
    origin = get_origin(inner)
    kind = "repeat" if origin is tuple else "pairs" if origin is dict else "switch" if inner is bool else "value"
    has_default = item.default is not msgspec.NODEFAULT or item.default_factory is not msgspec.NODEFAULT
    default = item.default_factory() if item.default_factory is not msgspec.NODEFAULT else item.default
    return Field(
        name=item.name,
        flag="-p" if item.name == "params" else "--" + item.name.strip("_").replace("_", "-"),
        kind=kind,
        help=meta.description or "",
        choices=tuple(leaf for leaf in leaves if isinstance(leaf, str)),
        scalars=(str,) if kind == "repeat" else scalars,
        bounds=_bounds([meta, *_metas(inner)]),
        default=default if has_default else None,
        is_required=not has_default,
        is_positional=item.name in spec.positional,
        annotation=hint,
    )


def _metas(annotation: Any) -> list[msgspec.Meta]:
    """Return the bounds that lie inside a union: msgspec allows them on its number only, not on the whole."""
    found = [meta for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    return found + [meta for part in get_args(annotation) for meta in _metas(part)]


def _bounds(metas: Sequence[msgspec.Meta]) -> str:
    said = [(word, getattr(meta, key)) for meta in metas for key, word in _BOUNDS if getattr(meta, key) is not None]
    return " and ".join(f"{word} {value:g}" for word, value in said)


def _leaves(annotation: Any) -> list[Any]:
    """Return the scalar types and literal words inside unions."""
    if hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation)
    if origin is Literal:
        return list(get_args(annotation))
    if origin in (Union, types.UnionType):
        return [leaf for part in get_args(annotation) for leaf in _leaves(part)]
    return [annotation]


def parse(spec: type[V], words: Sequence[str], *, prog: str = "%lepton") -> V:
    """Read words (without the verb) into the verb's struct.

    Raises
    ------
    LeptonError
        If a flag or a choice is unknown, a value is missing or outside of its bounds, or a word is missing.
    """
    fields = fields_of(spec)
    flags = {field.flag: field for field in fields.values() if not field.is_positional}
    values: dict[str, Any] = {}
    loose: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and len(word) > 1 and not _is_number(word):
            flag, equals, attached = word.partition("=")
            field = flags.get(flag)
            if field is None:
                raise _unknown_flag(spec, flag, flags, prog)
            _take(field, values, ([attached] if equals else []), rest)
        else:
            loose.append(word)
    _place(spec, loose, values, prog)
    return build(spec, values, prog=prog)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _unknown_flag(spec: type[Verb], flag: str, flags: Mapping[str, Field], prog: str) -> LeptonError:
    positional = {"--" + name.replace("_", "-") for name in spec.positional}
    if flag in positional:
        return LeptonError(f"'{flag}' is given without a flag.", f"Usage: {usage(spec, prog, is_short=True)}")
    return LeptonError(
        f"{spec.verb} has no flag '{flag}'. Known: {', '.join(flags) or 'none'}.{did_you_mean(flag, flags)}",
        f"Type '{prog} {spec.verb} --help' for what they mean.",
        code="not_found",
    )


def _take(field: Field, values: dict[str, Any], attached: list[str], rest: list[str]) -> None:
    if field.kind == "switch":
        values[field.name] = attached[0] if attached else True
        return
    if not attached and (not rest or (rest[0].startswith("--") and len(rest[0]) > 2)):
        raise LeptonError(f"{field.flag} needs a value: {field.help}.", f"Write it as {field.flag} {field.word}.")
    text = attached[0] if attached else rest.pop(0)
    if field.kind == "repeat":
        values.setdefault(field.name, []).append(text)
    elif field.kind == "pairs":
        key, value = pair_of(field, text)
        values.setdefault(field.name, {})[key] = value
    elif field.name in values:
        raise LeptonError(f"{field.flag} is given twice: '{values[field.name]}' and '{text}'.", "Leave one out.")
    else:
        values[field.name] = text


def pair_of(field: Field, text: str) -> tuple[str, Any]:
    """Return the key and the value of KEY=VALUE; the value is JSON, else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise LeptonError(f"{field.flag} '{text}' is not KEY=VALUE.", f"For instance: {field.flag} hidden=32")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _place(spec: type[Verb], loose: list[str], values: dict[str, Any], prog: str) -> None:
    fields = fields_of(spec)
    for name in spec.positional:
        if fields[name].kind == "repeat":
            values[name], loose = loose, []
        elif loose:
            values[name] = loose.pop(0)
    if loose:
        hint = f"Usage: {usage(spec, prog, is_short=True)}"
        if any(field.kind == "repeat" and not field.is_positional for field in fields.values()) or "=" in loose:
            hint = f"Put quotes around a value that holds blanks. {hint}"
        raise LeptonError(f"{spec.verb} has no place for '{' '.join(loose)}'.", hint)


def build(spec: type[V], values: Mapping[str, Any], *, prog: str = "%lepton") -> V:
    """Make the struct from values by field, text or typed; bounds and choices hold for both.

    Raises
    ------
    LeptonError
        As `parse`.
    """
    fields = fields_of(spec)
    missing = [field for field in fields.values() if field.is_required and not values.get(field.name)]
    if missing:
        what = ", ".join(field.word if field.is_positional else field.flag for field in missing)
        raise LeptonError(f"{spec.verb} needs {what}: {missing[0].help}.", f"Usage: {usage(spec, prog, is_short=True)}")
    converted = {name: _convert(fields[name], value) for name, value in values.items() if value is not None}
    return spec(**converted)


def _convert(field: Field, value: Any) -> Any:
    if field.kind == "repeat" and isinstance(value, str):
        value = (value,)
    if field.kind == "switch" and isinstance(value, str):
        value = _WORDS.get(value.lower(), value)
    if isinstance(value, bool) and bool not in field.scalars and field.kind == "value":
        raise _wrong(field, value)
    try:
        found = msgspec.convert(value, field.annotation, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise _wrong(field, value) from error
    if isinstance(found, float) and not math.isfinite(found):
        raise _wrong(field, value)
    return found


def _wrong(field: Field, value: Any) -> LeptonError:
    label = field.word if field.is_positional else field.flag
    if field.choices and not field.scalars:
        return unknown(f"choice of {label}", str(value), field.choices)
    guess = did_you_mean(str(value), field.choices) if field.choices else ""
    return LeptonError(f"{label} is {value!r}; wanted: {field.wanted}.{guess}", field.help.capitalize() + ".")


def usage(spec: type[Verb], prog: str = "%lepton", *, is_short: bool = False) -> str:
    """Return one line that shows how a verb is typed; the short one passes over flags that many verbs leave out."""
    parts = []
    optional = [field for field in fields_of(spec).values() if not field.is_required and not field.is_positional]
    passed_over = {field.name for field in optional[SHOWN_FLAGS:]} if is_short else set()
    for field in fields_of(spec).values():
        if field.name in passed_over:
            continue
        text = field.flag if field.kind == "switch" else f"{field.flag} {field.word}"
        if field.is_positional:
            text = field.word if field.kind != "repeat" else f"{field.word} {field.word}…"
            parts.append(text if field.is_required else f"[{text}]")
        else:
            parts.append(text if field.is_required else f"[{text}]{'…' if field.kind in ('repeat', 'pairs') else ''}")
    return " ".join([prog, spec.verb, *parts, *(["…"] if passed_over else [])])


def render(spec: Verb) -> str:
    """Return the line that gives this struct, without ``%lepton``; what is as by default is left out."""
    parts = [spec.verb]
    for field in fields_of(type(spec)).values():
        value = getattr(spec, field.name)
        if value == field.default and not field.is_required:
            continue
        if field.kind == "switch":
            parts.append(field.flag)
        elif field.kind == "pairs":
            parts += [f"{field.flag} {_quote(f'{key}={_as_text(item)}')}" for key, item in value.items()]
        elif field.is_positional:
            parts += [_quote(item) for item in (value if field.kind == "repeat" else [value])]
        else:
            parts += [f"{field.flag} {_quote(item)}" for item in (value if field.kind == "repeat" else [value])]
    return " ".join(parts)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _quote(value: Any) -> str:
    text = str(value)
    if text and not any(letter in text for letter in " \t\"'#;\\"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
