"""Alert rules as they are typed, and what a notebook's cells check."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.monitor.rules import CHECK_NAMES, Rule, checks_of_notebook, parse_rule

COLUMNS = ("age", "mean radius", "a > b")


def cells(*sources: Any) -> dict[str, Any]:
    return {"cells": [{"cell_type": "code", "source": source} for source in sources]}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("psi > 0.2", Rule("psi", ">", 0.2)),
        (" psi>.2 ", Rule("psi", ">", 0.2)),
        ("p95_latency_ms >= 50", Rule("p95_latency_ms", ">=", 50.0)),
        ("effective_rows < 300", Rule("effective_rows", "<", 300.0)),
        ("psi(age) > 1e-1", Rule("psi(age)", ">", 0.1)),
        ("missing( mean radius ) > 0.05", Rule("missing(mean radius)", ">", 0.05)),
        ("psi(a > b) > 0.2", Rule("psi(a > b)", ">", 0.2)),
        ("psi > 20", Rule("psi", ">", 20.0)),
    ],
)
def test_a_rule_is_a_check_an_operator_and_a_number(text: str, rule: Rule) -> None:
    assert parse_rule(text, columns=COLUMNS) == rule


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pis > 0.2", "No check named 'pis'"),
        ("pis > 0.2", "Did you mean 'psi'?"),
        ("p95_latency > 50", "Did you mean 'p95_latency_ms'?"),
        ("psi", "'psi' is not a rule"),
        ("psi >", "is not a rule"),
        ("", "is not a rule"),
        ("psi == 0.2", "'==' in 'psi == 0.2' is no operator. Known: >=, >, <=, <."),
        ("psi => 0.2", "no operator"),
        ("psi > high", "'high' in 'psi > high' is not a number"),
        ("psi > nan", "not a finite number"),
        ("psi > inf", "not a finite number"),
        ("missing(agee) > 0.1", "No column named 'agee'. Known: age, mean radius, a > b. Did you mean 'age'?"),
        ("error_rate(age) > 0.1", "'error_rate' is not measured for each column"),
        ("error_rate > 20", "error_rate lies between 0 and 1; 'error_rate > 20' asks for 20.\nFor 20 % write 0.2."),
        ("missing(age) > 5", "For 5 % write 0.05."),
        ("requests < -1", "requests is never below 0"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_way_to_write_it(text: str, says: str) -> None:
    with pytest.raises(LeptonError) as caught:
        parse_rule(text, known=CHECK_NAMES, columns=COLUMNS)
    assert says in str(caught.value)


def test_a_notebook_of_ones_own_has_checks_of_its_own() -> None:
    assert parse_rule("sales < -20", known={"sales"}) == Rule("sales", "<", -20.0)
    assert parse_rule("missing > 20", known={"missing"}).bound == 20  # its own word, not ours
    assert parse_rule("missing(age) > 2", known={"missing(age)"}).check == "missing(age)"
    with pytest.raises(LeptonError, match="Did you mean 'sales'"):
        parse_rule("sale < 3", known={"sales"})
    with pytest.raises(LeptonError, match="makes no check"):
        parse_rule("sales < 3", known=set())


def test_every_name_is_taken_where_nobody_can_tell() -> None:
    assert parse_rule("anything(at all) > 1", known=None) == Rule("anything(at all)", ">", 1.0)


@pytest.mark.parametrize("value", [None, math.nan])
def test_what_was_not_measured_neither_meets_a_rule_nor_misses_it(value: float | None) -> None:
    assert parse_rule("psi > 0.2").is_met_by(value) is None


@pytest.mark.parametrize(
    ("text", "met", "missed"),
    [("psi > 2", 2.1, 2.0), ("psi >= 2", 2.0, 1.9), ("psi < 2", 1.9, 2.0), ("psi <= 2", 2.0, math.inf)],
)
def test_a_rule_is_met_as_its_operator_says(text: str, met: float, missed: float) -> None:
    rule = parse_rule(text)
    assert (rule.is_met_by(met), rule.is_met_by(missed)) == (True, False)


def test_the_checks_of_a_notebook_are_read_from_its_cells() -> None:
    notebook = cells(
        "%load_ext lepton_jupyter\nimport lepton_jupyter as lp\nfrom lepton_jupyter import check as tell",
        ["window = lepton.window()\n", "lepton.check('rows', window.rows.height)"],
        "for _ in range(2):\n    !ls\nlp.check(name='late', value=1)\nfiles = !ls\nother.check('no')",
        "tell('told', 1)",
        "%%bash\nif [ 1 ]; then echo 'lepton.check()'; fi",
    )
    notebook["cells"].append({"cell_type": "markdown", "source": "lepton.check('prose', 1)"})
    assert checks_of_notebook(notebook) == {"rows", "late", "told"}
    assert checks_of_notebook(cells("1 + 1")) == set()


@pytest.mark.parametrize("source", ["lepton.check(name, 1)", "lepton.check(f'{x}', 1)", "lepton.check()", "def ("])
def test_checks_that_cannot_be_read_are_not_known(source: str) -> None:
    assert checks_of_notebook(cells("lepton.check('a', 1)", source)) is None


def test_reading_a_rule_loads_neither_numpy_nor_polars() -> None:
    code = (
        "import sys; from lepton_jupyter.stages.monitor.rules import parse_rule; parse_rule('psi > 0.2');"
        "print(json.dumps([name for name in ('numpy', 'polars', 'scipy') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
