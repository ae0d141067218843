"""What a thing of the notebook refers to, and by which way: ``TumorNet.forward uses lock``."""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lepton_jupyter.runner.snapshot import is_local_module, is_ours

MAX_ITEMS = 1000  # of a list or dict that are looked at; the pickler sees all of them
_GLOBAL_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})


@dataclass(frozen=True)
class Reached:
    """One thing, and how it was come by.

    Attributes
    ----------
    value : object
    name : str
        The variable, attribute or item, as a person would write it.
    by : tuple of str
        Who uses it, from the model inwards; the last one uses `name`.
    """

    value: Any
    name: str
    by: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """``TumorNet.forward uses helper, which uses lock``; empty for what was named itself."""
        if not self.by:
            return ""
        first, *rest = (*self.by, self.name)
        return f"{first} uses {', which uses '.join(rest)}"


@dataclass(frozen=True)
class Missing:
    """A global name that a function of the notebook loads and that nothing defines."""

    name: str
    user: str


def walk(name: str, value: Any, *, is_deep: bool = False) -> Iterator[Reached | Missing]:
    """Yield what `value` takes along, itself first; every object once.

    What is installed is not entered; functions and classes of the notebook and of local modules are. Of instances,
    those of such classes are entered where they say nothing about how they travel (``__getstate__``, ``__reduce__``).

    Parameters
    ----------
    name : str
        How a person calls it.
    value : object
    is_deep : bool
        Enter every instance: to find the culprit once something is known not to travel.
    """
    seen: dict[int, Any] = {}
    queue: list[Reached] = [Reached(value, name)]
    while queue:
        reached = queue.pop(0)
        if id(reached.value) in seen:
            continue
        seen[id(reached.value)] = reached.value
        yield reached
        for child in _children(reached, is_deep=is_deep):
            if isinstance(child, Missing):
                yield child
            elif id(child.value) not in seen:
                queue.append(child)


def is_by_value(thing: Any) -> bool:
    """Whether a function or class travels with its code: it is of the notebook or of a local module."""
    module = getattr(thing, "__module__", None)
    return module in (None, "__main__") or "<locals>" in getattr(thing, "__qualname__", "") or is_local_module(module)


def loaded_globals(code: types.CodeType) -> dict[str, str]:
    """Return the global names that code and the functions in it load, each with the qualified name of its user."""
    found: dict[str, str] = {}
    stored: set[str] = set()
    for inner in every_code(code):
        for instruction in dis.get_instructions(inner):
            if instruction.opname in _GLOBAL_LOADS:
                found.setdefault(instruction.argval, getattr(inner, "co_qualname", inner.co_name))
            elif instruction.opname in ("STORE_GLOBAL", "STORE_NAME"):
                stored.add(instruction.argval)
    return {name: user for name, user in found.items() if name not in stored}


def every_code(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and all that lie in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from every_code(constant)


def _children(reached: Reached, *, is_deep: bool) -> Iterator[Reached | Missing]:
    value = reached.value
    if isinstance(value, types.FunctionType):
        if is_by_value(value):
            yield from _of_function(reached, value)
    elif isinstance(value, types.MethodType):
        yield Reached(value.__func__, reached.name, reached.by)
        yield Reached(value.__self__, f"{reached.name}.__self__", reached.by)
    elif isinstance(value, type):
        if is_by_value(value):
            yield from _of_class(reached, value)
    elif isinstance(value, types.ModuleType):
        return
    elif isinstance(value, Mapping) and type(value).__module__ == "builtins":
        for key in list(value)[:MAX_ITEMS]:
            yield Reached(value[key], f"{reached.name}[{key!r}]", reached.by)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(list(value)[:MAX_ITEMS]):
            yield Reached(item, f"{reached.name}[{index}]", reached.by)
    elif is_deep or _is_plain_instance(value):
        yield from _of_instance(reached, value)


def _of_function(reached: Reached, function: types.FunctionType) -> Iterator[Reached | Missing]:
    user = _title(reached, function)
    by = (*reached.by[:-1], user) if _is_member(reached) else (*reached.by, user)
    space = function.__globals__
    is_careful = any("NameError" in code.co_names for code in every_code(function.__code__))
    for name in loaded_globals(function.__code__):
        if name in space:
            yield Reached(space[name], name, by)
        elif not hasattr(builtins, name) and not is_careful and function.__module__ in (None, "__main__"):
            yield Missing(name, user)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield Reached(cell.cell_contents, name, by)
        except ValueError:  # not bound yet
            continue
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield Reached(default, f"a default of {user}", reached.by)
    for name, attribute in vars(function).items():
        yield Reached(attribute, f"{reached.name}.{name}", reached.by)


def _of_class(reached: Reached, kind: type) -> Iterator[Reached]:
    for base in kind.__bases__:
        if base is not object:
            yield Reached(base, base.__name__, (*reached.by, reached.name))
    for name, attribute in vars(kind).items():
        if name in ("__dict__", "__weakref__", "__module__", "__doc__"):
            continue
        for part in _unwrapped(attribute):
            yield Reached(part, f"{kind.__name__}.{name}", (*reached.by, kind.__name__))


def _is_plain_instance(value: Any) -> bool:
    kind = type(value)
    says = any(
        getattr(kind, name, None) is not getattr(object, name, None)
        for name in ("__reduce__", "__reduce_ex__", "__getstate__")
    )
    return is_by_value(kind) and not says


def _of_instance(reached: Reached, value: Any) -> Iterator[Reached]:
    if is_ours(type(value).__module__) or type(value).__module__ == "builtins":
        return
    yield Reached(type(value), type(value).__name__, reached.by)
    try:
        attributes = vars(value)
    except TypeError:
        return
    for name, attribute in list(attributes.items())[:MAX_ITEMS]:
        yield Reached(attribute, f"{reached.name}.{name}", reached.by)


def _unwrapped(attribute: Any) -> Iterator[Any]:
    if isinstance(attribute, staticmethod | classmethod):
        yield attribute.__func__
    elif isinstance(attribute, property):
        yield from (part for part in (attribute.fget, attribute.fset, attribute.fdel) if part is not None)
    else:
        yield attribute


def _is_member(reached: Reached) -> bool:
    return bool(reached.by) and reached.name.startswith(f"{reached.by[-1]}.")


def _title(reached: Reached, function: types.FunctionType) -> str:
    return reached.name if _is_member(reached) else function.__qualname__.replace("<locals>.", "")
