"""What costs nothing must load nothing, and shipped notebooks keep to the walls."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch", "mlflow", "pandas", "polars", "plotly", "sklearn", "papermill", "ipywidgets", "httpx", "starlette",
    "sqlalchemy", "psutil", "numpy",
)  # fmt: skip
MAY_USE = ("lepton_jupyter", "lepton_jupyter.stages", "lepton_jupyter.runner.session")
NOTEBOOKS = sorted([*ROOT.glob("lepton_jupyter/stages/*/notebook.ipynb"), *ROOT.glob("example_notebooks/*.ipynb")])

LOADED = """
import sys
{before}
before = set(sys.modules)
{line}
print(" ".join(name for name in {heavy} if name in sys.modules and name not in before))
"""
SHELL = "from IPython.core.interactiveshell import InteractiveShell; shell = InteractiveShell.instance()"


def _loaded(line: str, before: str = "") -> str:
    program = LOADED.format(before=before, line=line, heavy=HEAVY)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded("import lepton_jupyter") == ""


def test_asking_for_a_verb_loads_nothing_heavy() -> None:
    assert _loaded("import lepton_jupyter; lepton_jupyter.train; lepton_jupyter.predict; lepton_jupyter.load") == ""


def test_loading_the_extension_and_asking_for_help_load_nothing_heavy() -> None:
    assert _loaded("shell.run_line_magic('load_ext', 'lepton_jupyter')", before=SHELL) == ""
    line = "shell.run_line_magic('load_ext', 'lepton_jupyter'); shell.run_cell('text = %lepton train --help')"
    assert _loaded(line, before=SHELL).splitlines()[-1].startswith("  %lepton train")  # the help, then an empty line


def test_verbs_stay_callable_whatever_was_imported() -> None:
    line = (
        "import lepton_jupyter.stages.train.spec, lepton_jupyter.stages.data.spec, lepton_jupyter.runner.spec\n"
        "import lepton_jupyter as lepton\n"
        "from lepton_jupyter.faces.verbs import VERBS\n"
        "assert all(callable(getattr(lepton, verb)) for verb in VERBS)"
    )
    subprocess.run([sys.executable, "-c", line], check=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_notebook_uses_the_python_face_stages_and_session_only(path: Path) -> None:
    for imported in _imports(path):
        if imported.partition(".")[0] == "lepton_jupyter":
            allowed = imported in MAY_USE or imported.startswith("lepton_jupyter.stages.")
            assert allowed, f"{imported} in {path.name}"


def _imports(path: Path) -> list[str]:
    found: list[str] = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] != "code" or text.startswith("%%"):
            continue
        source = "\n".join("pass" if _is_magic(line) else line for line in text.splitlines())
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found += [_inner(node.module, alias.name) for alias in node.names]
    return found


def _is_magic(line: str) -> bool:
    return "%lepton" in line or line.startswith(("%", "!"))


def _inner(module: str, name: str) -> str:
    """Return ``lepton_jupyter.runner.session`` for ``from lepton_jupyter.runner import session``, else the module."""
    is_module = (ROOT / Path(*module.split(".")) / f"{name}.py").exists()
    return f"{module}.{name}" if is_module else module
