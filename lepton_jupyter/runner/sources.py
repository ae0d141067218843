"""The cells behind the code: their text, what they use, and what tracebacks call them."""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.runner.reach import Reached, every_code, is_by_value
from lepton_jupyter.runner.snapshot import is_local_module


@dataclass(frozen=True)
class FreeNames:
    """What a cell takes from the notebook.

    Attributes
    ----------
    loads : tuple of str
        Names that it may read before it binds them itself, in order.
    bound : frozenset of str
        Names that it binds somewhere.
    is_careful : bool
        Whether it catches NameError: an unknown name is then its own business.
    """

    loads: tuple[str, ...]
    bound: frozenset[str]
    is_careful: bool


def plain_python(source: str) -> str:
    """Return a cell as Python: ``%magics`` and ``!commands`` become calls of ``get_ipython()``."""
    if "IPython" not in sys.modules:
        return source
    from IPython.core.inputtransformer2 import TransformerManager

    return str(TransformerManager().transform_cell(source))


def free_names(source: str) -> FreeNames:
    """Return the names that a cell takes from outside.

    Raises
    ------
    LeptonError
        If it is not Python; the message names the line.
    """
    try:
        tree = ast.parse(source)
        code = compile(source, "<cell>", "exec", dont_inherit=True, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        raise LeptonError(
            f"The cell is not Python: {error.msg} in line {error.lineno}.", (error.text or "").rstrip()
        ) from error
    bound: set[str] = set()
    loads: dict[str, None] = {}
    for statement in tree.body:
        loads.update(dict.fromkeys(name for name in _statement_loads(statement) if name not in bound))
        if isinstance(statement, _SURE):  # what an `if` or a loop binds may stay unbound
            bound |= _statement_stores(statement)
    return FreeNames(
        loads=tuple(loads),
        bound=frozenset(bound | {name for node in tree.body for name in _statement_stores(node)}),
        is_careful=any("NameError" in inner.co_names for inner in every_code(code)),
    )


_SURE = (
    ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom,
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.With,
)  # fmt: skip


def _statement_code(statement: ast.stmt) -> types.CodeType:
    module = ast.Module(body=[statement], type_ignores=[])
    return compile(module, "<cell>", "exec", dont_inherit=True, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def _statement_loads(statement: ast.stmt) -> Iterator[str]:
    """Yield global loads in order; names that a class body binds for itself are not among them."""
    for code in every_code(_statement_code(statement)):
        is_module = code.co_name == "<module>"
        stored: set[str] = set()
        for instruction in dis.get_instructions(code):
            if instruction.opname == "STORE_NAME" and not is_module:
                stored.add(instruction.argval)
            elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "DELETE_NAME"):
                name = instruction.argval
                if name not in stored and not (not is_module and name in ("__name__", "__qualname__")):
                    yield name


def _statement_stores(statement: ast.stmt) -> set[str]:
    code = _statement_code(statement)
    stores = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_NAME", "STORE_GLOBAL")}
    for inner in every_code(code):
        stores |= {i.argval for i in dis.get_instructions(inner) if i.opname == "STORE_GLOBAL"}
    return stores


def lazy_imports(code: types.CodeType) -> set[str]:
    """Return the names of modules that code imports when it runs."""
    found: set[str] = set()
    for inner in every_code(code):
        module = ""
        for instruction in dis.get_instructions(inner):
            if instruction.opname == "IMPORT_NAME":
                module = instruction.argval
                found.add(module)
            elif instruction.opname == "IMPORT_FROM":  # a name in the module, or a module below it
                found.add(f"{module}.{instruction.argval}")
    return found - {""}


def cells_of(
    things: Iterable[Reached], cells: Mapping[str, str], namespace: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return text and label of every cell that the captured code came from, by its file name."""
    numbers = _cell_numbers(namespace)
    texts: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name in _file_names(things):
        text = cells.get(name) or "".join(linecache.getlines(name))
        if text and name not in texts:
            texts[name] = text
            labels[name] = str(numbers.get(name, "notebook"))
    return texts, labels


def _file_names(things: Iterable[Reached]) -> Iterator[str]:
    for reached in things:
        for function in _functions(reached.value):
            name = function.__code__.co_filename
            if not is_local_module(function.__module__):
                yield name


def _functions(value: Any) -> Iterator[types.FunctionType]:
    if isinstance(value, types.FunctionType) and is_by_value(value):
        yield value
    elif isinstance(value, type) and is_by_value(value):
        for attribute in vars(value).values():
            inner = getattr(attribute, "__func__", getattr(attribute, "fget", attribute))
            if isinstance(inner, types.FunctionType):
                yield inner


def _cell_numbers(namespace: Mapping[str, Any]) -> dict[str, int]:
    """Return the notebook's ``In[n]`` by file name, where a shell says it."""
    ask = namespace.get("get_ipython")
    shell = ask() if callable(ask) else None
    return dict(getattr(getattr(shell, "compile", None), "_filename_map", {}))


def text_of(models: Iterable[Any], things: Iterable[Reached], cells: Mapping[str, str], namespace: object) -> str:
    """Return the source of the models and then of the notebook's functions and classes that they use."""
    parts: dict[str, None] = {}
    for value in (*models, *(reached.value for reached in things)):
        if isinstance(value, type | types.FunctionType) and is_by_value(value):
            parts.setdefault(_source(value, cells))
        elif not isinstance(value, type) and is_by_value(type(value)):
            parts.setdefault(_source(type(value), cells))
    texts = [part for part in parts if part]
    kept = [text for text in texts if not any(text != other and text in other for other in texts)]
    return "\n\n\n".join(kept) or "\n".join(repr(model) for model in models)


def _source(thing: type | types.FunctionType, cells: Mapping[str, str]) -> str:
    """Return the text of a definition. ``inspect.getsource`` cannot do it for a class of a cell."""
    names = [function.__code__.co_filename for function in _functions(thing)]
    for name in names:
        text = cells.get(name) or "".join(linecache.getlines(name))
        found = _definition(text, thing.__name__)
        if found:
            return found
    if is_local_module(thing.__module__):
        try:
            return inspect.getsource(thing)
        except (OSError, TypeError):
            return ""
    return ""


def _definition(text: str, name: str) -> str:
    try:
        tree = ast.parse(plain_python(text))
    except (SyntaxError, ValueError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines = text.splitlines()[first - 1 : node.end_lineno]
            return "\n".join(lines)
    return ""


def restore(texts: Mapping[str, str], labels: Mapping[str, str], shell: Any = None) -> None:
    """Make the cells known to ``linecache`` and to the shell, so that tracebacks show their lines."""
    for name, text in texts.items():
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        names = getattr(getattr(shell, "compile", None), "_filename_map", None)
        if names is not None:
            names.setdefault(name, labels.get(name, "notebook"))
