"""Alert rules as they are typed, such as ``psi > 0.2``. Light: a face reads them before anything is scheduled."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from lepton_jupyter.core.errors import LeptonError, unknown

OPERATORS = (">=", ">", "<=", "<")

_SHAPE = re.compile(
    r"\s*([A-Za-z][\w.-]*)(?:\s*\((.*)\))?\s*(>=|<=|=>|=<|==|!=|>|<|=)(?![<>=])\s*(\S.*?)\s*\Z", re.DOTALL
)
_GIVEN_BY_MAGIC = re.compile(r"^(\s*[\w., ]+=\s*)[%!].*")
_EXAMPLE = 'Write a check, one of >= > <= <, and a number: --alert "psi > 0.2".'


class Check(NamedTuple):
    """One value that our report measures.

    Attributes
    ----------
    name : str
    says : str
        What the value is; a report's engine fills it so.
    is_share : bool
        Whether it lies between 0 and 1.
    takes_column : bool
        Whether ``name(COLUMN)`` is the same of one column.
    """

    name: str
    says: str
    is_share: bool = False
    takes_column: bool = False


KNOWN_CHECKS: tuple[Check, ...] = (
    Check("predictions", "rows that were scored"),
    Check("requests", "requests that were answered"),
    Check("effective_rows", "independent rows that the scored ones are worth"),
    Check("error_rate", "share of requests that were refused or failed", is_share=True),
    Check("p50_latency_ms", "median latency of a request"),
    Check("p95_latency_ms", "latency that 95 % of requests stay below"),
    Check("p99_latency_ms", "latency that 99 % of requests stay below"),
    Check("outside", "rows with a value outside the range seen in training"),
    Check(
        "missing",
        "largest share of missing values, of the columns that have more of them than in training",
        is_share=True,
        takes_column=True,
    ),
    Check("unseen", "largest share of unseen categories in a column", is_share=True, takes_column=True),
    Check("psi", "largest PSI, less its noise, of the columns that passed the test", takes_column=True),
    Check("drifted_columns", "columns that have drifted"),
    Check("prediction_drift", "PSI, less its noise, of the predictions"),
)
CHECK_NAMES = tuple(check.name for check in KNOWN_CHECKS)
_TABLE = {check.name: check for check in KNOWN_CHECKS}


class Rule(NamedTuple):
    """A rule, read: the check (with its column, if any), one of `OPERATORS`, and a finite number."""

    check: str
    operator: str
    bound: float

    def is_met_by(self, value: float | None) -> bool | None:
        """Whether a value meets it; None where there is no value."""
        if value is None or math.isnan(value):
            return None
        return {
            ">=": value >= self.bound,
            ">": value > self.bound,
            "<=": value <= self.bound,
            "<": value < self.bound,
        }[self.operator]


def parse_rule(
    text: str, *, known: Collection[str] | None = CHECK_NAMES, columns: Collection[str] | None = None
) -> Rule:
    """Read a rule.

    Parameters
    ----------
    text : str
        ``CHECK OPERATOR NUMBER`` or ``CHECK(COLUMN) OPERATOR NUMBER``; blanks do not matter.
    known : collection of str, optional
        Checks that the report makes: ours, or `checks_of_notebook`; None where nobody can tell: every name is taken.
    columns : collection of str, optional
        Columns that a check of ours may be asked about; None where they are not known.

    Raises
    ------
    LeptonError
        If the text is not a rule, the check or its column is not known, or the bound is not a number that the check
        can reach.

    Examples
    --------
    >>> parse_rule("missing(mean radius)>0.05", columns=["mean radius"])
    Rule(check='missing(mean radius)', operator='>', bound=0.05)
    """
    match = _SHAPE.match(text)
    if match is None:
        raise LeptonError(f"'{text}' is not a rule.", _EXAMPLE)
    name, column, operator, number = match.groups()
    if operator not in OPERATORS:
        raise LeptonError(f"'{operator}' in '{text}' is no operator. Known: {', '.join(OPERATORS)}.", _EXAMPLE)
    check = name if column is None else f"{name}({column.strip()})"
    if known is not None and check not in known:
        _check_name(name, column, known, columns)
    try:
        bound = float(number)
    except ValueError as error:
        raise LeptonError(f"'{number}' in '{text}' is not a number.", _EXAMPLE) from error
    if not math.isfinite(bound):
        raise LeptonError(f"The bound '{number}' in '{text}' is not a finite number.", _EXAMPLE)
    if _is_ours(known) and name in _TABLE:
        _check_range(_TABLE[name], bound, text)
    return Rule(check, operator, bound)


def _is_ours(known: Collection[str] | None) -> bool:
    """Whether the report is ours, so that its names mean what our table says."""
    return known is not None and set(CHECK_NAMES) <= set(known)


def _check_name(name: str, column: str | None, known: Collection[str], columns: Collection[str] | None) -> None:
    if not known:
        raise LeptonError(
            f"The notebook makes no check, so '{name}' can never be met.",
            f'Write in one of its cells: lepton.check("{name}", value)',
            code="not_found",
        )
    if name not in known:
        raise unknown("check", name, known, _takes_columns(known))
    if column is None:
        return
    if not _is_ours(known):
        raise unknown("check", f"{name}({column})", known)
    if not _TABLE[name].takes_column:
        raise LeptonError(f"'{name}' is not measured for each column.", f"Write it alone, as in '{name} > 0'.")
    if columns is not None and column.strip() not in columns:
        raise unknown("column", column.strip(), columns)


def _takes_columns(known: Collection[str]) -> str:
    if not _is_ours(known):
        return ""
    return f"Of one column: {', '.join(f'{check.name}(COLUMN)' for check in KNOWN_CHECKS if check.takes_column)}."


def _check_range(check: Check, bound: float, text: str) -> None:
    if check.is_share and not 0 <= bound <= 1:
        hint = f"For {bound:g} % write {bound / 100:g}." if 1 < bound <= 100 else ""
        raise LeptonError(f"{check.name} lies between 0 and 1; '{text}' asks for {bound:g}.", hint)
    if bound < 0:
        raise LeptonError(f"{check.name} is never below 0; '{text}' asks for {bound:g}.")


def checks_of_notebook(notebook: dict[str, Any]) -> set[str] | None:
    """Return the names that a notebook's cells give to ``lepton.check("name", value)``.

    Returns
    -------
    set of str or None
        None where a name is no literal, or a cell cannot be read: what it makes is then not known.
    """
    trees = []
    for cell in notebook.get("cells", []):
        source = cell.get("source", "")
        text = source if isinstance(source, str) else "".join(source)
        tree = _read(text) if cell.get("cell_type") == "code" else None
        if tree is not None:
            trees.append(tree)
        elif cell.get("cell_type") == "code" and not text.lstrip().startswith("%%"):  # that one is another language
            return None
    owners, names = {"lepton", "lepton_jupyter", "run"}, set()
    for node in _nodes(trees):
        owners |= {
            alias.asname for alias in _imported(node, ast.Import) if alias.name == "lepton_jupyter" and alias.asname
        }
        if isinstance(node, ast.ImportFrom) and node.module == "lepton_jupyter":
            names |= {alias.asname or alias.name for alias in node.names if alias.name == "check"}
    found = set()
    for node in _nodes(trees):
        if isinstance(node, ast.Call) and _is_check(node.func, owners, names):
            name = _first(node)
            if name is None:
                return None
            found.add(name)
    return found


def _nodes(trees: list[ast.Module]) -> Iterator[ast.AST]:
    for tree in trees:
        yield from ast.walk(tree)


def _imported(node: ast.AST, kind: type[ast.Import]) -> list[ast.alias]:
    return node.names if isinstance(node, kind) else []


def _is_check(called: ast.expr, owners: set[str], names: set[str]) -> bool:
    if isinstance(called, ast.Name):
        return called.id in names
    return (
        isinstance(called, ast.Attribute)
        and called.attr == "check"
        and isinstance(called.value, ast.Name)
        and called.value.id in owners
    )


def _first(call: ast.Call) -> str | None:
    given = call.args[0] if call.args else next((key.value for key in call.keywords if key.arg == "name"), None)
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None


def _read(source: str) -> ast.Module | None:
    """Return a cell's Python, its magics and shell commands left out; None where it is not Python."""
    for text in (source, "\n".join(_without_magic(line) for line in source.splitlines())):
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError):
            pass  # with the magics left out it may be
    return None


def _without_magic(line: str) -> str:
    """Return a line of IPython as Python, at its indent, so that blocks stay whole."""
    code = line.lstrip()
    if code.startswith(("%", "!", "?")) or code.rstrip().endswith("?"):
        return line[: len(line) - len(code)] + "pass"
    return _GIVEN_BY_MAGIC.sub(r"\1None", line)
