"""What a run takes along from a real shell's namespace, and what it refuses, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.runner import payload, sources
from lepton_jupyter.runner.capture import Captured, capture_cell, capture_names


class Notebook:
    """A real shell, and a run's side of what was captured from it."""

    def __init__(self, folder: Path) -> None:
        self.shell = InteractiveShell()
        self.space: dict[str, Any] = self.shell.user_ns
        self.folder = folder

    def cell(self, source: str) -> None:
        """Execute a cell."""
        self.shell.run_cell(source, store_history=True).raise_error()

    def capture(self, **names: str) -> Captured:
        """Capture names; MB are small here."""
        return capture_names(names, self.space, cwd=self.folder, limit_bytes=4 * 2**20)

    def capture_cell(self, source: str) -> Captured:
        """Capture for a cell."""
        return capture_cell(source, self.space, cwd=self.folder, limit_bytes=4 * 2**20)

    def refused(self, **names: str) -> str:
        """Return the message of a capture that must fail."""
        with pytest.raises(LeptonError) as failure:
            self.capture(**names)
        return failure.value.message


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Notebook(tmp_path)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def arrive(tmp_path: Path) -> Callable[[Captured], tuple[dict[str, Any], dict[str, Any]]]:
    """Write what was captured and read it as a run does: ``objects, namespace = arrive(captured)``."""

    def read(captured: Captured) -> tuple[dict[str, Any], dict[str, Any]]:
        folder = tmp_path / "payload"
        for name, content in captured.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        space: dict[str, Any] = {"__name__": "__main__"}
        return payload.unpack(folder, space), space

    return read


Arrive = Callable[[Captured], tuple[dict[str, Any], dict[str, Any]]]


def test_a_class_brings_helpers_constants_and_bases_of_other_cells(notebook: Notebook, arrive: Arrive) -> None:
    notebook.cell("import math\nSCALE = 3.0\nclass Base:\n    def twice(self, x): return 2 * x")
    notebook.cell("def helper(x):\n    return math.floor(x * SCALE)")
    notebook.cell(
        "class Net(Base):\n    def __init__(self, n, act=abs): self.n = n\n"
        "    def forward(self, x): return helper(x) + self.twice(x)"
    )
    captured = notebook.capture(model="Net")
    notebook.cell("SCALE = 99.0")
    objects, _ = arrive(captured)
    assert objects["model"](1).forward(2.0) == 10.0
    assert {"Net", "helper", "SCALE", "Base"} <= set(captured.names)
    assert captured.source.startswith("class Net(Base):") and "def helper(x):" in captured.source


def test_functions_of_the_notebook_share_one_namespace_again(notebook: Notebook, arrive: Arrive) -> None:
    notebook.cell("count = 0\ndef more():\n    global count\n    count += 1\ndef read(): return count")
    objects, space = arrive(notebook.capture(model="more", loss="read"))
    objects["model"]()
    assert objects["loss"]() == 1 and space["count"] == 1
    assert notebook.space["count"] == 0


def test_an_instance_a_factory_and_a_closure_travel(notebook: Notebook, arrive: Arrive) -> None:
    notebook.cell(
        "class Net:\n    def __init__(self, w): self.w = w\ndef make(w):\n    k = 5\n    return lambda: Net(w * k)"
    )
    notebook.cell("net = Net(7)\nfactory = make(2)")
    objects, _ = arrive(notebook.capture(model="net", other="factory"))
    assert objects["model"].w == 7 and objects["other"]().w == 10


def test_large_arrays_and_tables_are_files_of_their_own_and_come_back_equal(notebook: Notebook, arrive: Arrive) -> None:
    notebook.cell(
        "import numpy as np, pandas as pd, polars as pl, torch\na = np.arange(200_000.0).reshape(2, -1)\n"
        "p = pd.DataFrame({'x': np.arange(200_000), 'y': np.arange(200_000.0)})\n"
        "q = pl.DataFrame({'x': range(200_000), 's': ['t'] * 200_000})\n"
        "t = torch.arange(400_000).float()\n"
        "small = np.ones(3)\ndef use(): return a, p, q, t, small, a"
    )
    captured = notebook.capture(model="use")
    tables = sorted(name.rpartition(".")[2] for name in captured.files if name.startswith("tables/"))
    assert tables == ["npy", "parquet", "parquet", "safetensors"]
    a, p, q, t, small, again = arrive(captured)[0]["model"]()
    space = notebook.space
    assert (a == space["a"]).all() and a is again and p.equals(space["p"]) and q.equals(space["q"])
    assert (t == space["t"]).all() and (small == 1).all()


def test_a_local_module_edited_afterwards_changes_nothing(notebook: Notebook, arrive: Arrive) -> None:
    module = notebook.folder / "mylib.py"
    module.write_text("import other\nVALUE = 'before'\ndef say(): return VALUE + other.MORE\n")
    (notebook.folder / "other.py").write_text("MORE = '!'\n")
    notebook.cell("import mylib\nfrom mylib import say\ndef both(): return mylib.VALUE, say()")
    captured = notebook.capture(model="both")
    module.write_text("VALUE = 'after'\ndef say(): return 'after'\n")
    for name in ("mylib", "other"):
        del sys.modules[name]
    assert arrive(captured)[0]["model"]() == ("before", "before!")
    assert captured.files["modules/mylib.py"].startswith(b"import other") and "modules/other.py" in captured.files


def test_modules_that_are_imported_late_are_in_the_snapshot(notebook: Notebook) -> None:
    package = notebook.folder / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "late.py").write_text("from . import deep\n")
    (package / "deep.py").write_text("X = 1\n")
    notebook.cell("def f():\n    from pack import late\n    import json\n    return late")
    modules = {name for name in notebook.capture(model="f").files if name.startswith("modules/")}
    assert modules == {"modules/pack/__init__.py", "modules/pack/late.py", "modules/pack/deep.py"}
    assert "pack.late" not in sys.modules


def test_a_local_module_that_cannot_go_by_value_goes_by_its_snapshot(notebook: Notebook, arrive: Arrive) -> None:
    (notebook.folder / "locked.py").write_text(
        "import threading\nLOCK = threading.Lock()\ndef f():\n    with LOCK: return 5\n"
    )
    notebook.cell("import locked\ndef g(): return locked.f()")
    assert arrive(notebook.capture(model="g"))[0]["model"]() == 5


def test_installed_modules_and_torch_ops_are_not_local(notebook: Notebook) -> None:
    notebook.cell(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n    def forward(self, x): return torch.ops.aten.relu(x)"
    )
    captured = notebook.capture(model="Net")
    assert not any(name.startswith("modules/") for name in captured.files)
    assert captured.size_bytes < 20_000


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("import threading; thing = threading.Lock()", "a lock"),
        ("import threading; thing = threading.Condition()", "a lock"),
        ("thing = (x for x in range(3))", "a running generator"),
        ("import socket; thing = socket.socket()", "a socket"),
        ("import sqlite3; thing = sqlite3.connect(':memory:')", "a database connection"),
        ("thing = open('/dev/null')", "an open file"),
        ("thing = get_ipython()", "the notebook's shell"),
    ],
)
def test_what_cannot_go_is_named_with_how_it_is_reached(notebook: Notebook, made: str, said: str) -> None:
    notebook.cell(made)
    notebook.cell("def helper(): return thing\nclass TumorNet:\n    def forward(self, x): return helper()")
    message = notebook.refused(model="TumorNet")
    assert message == f"'thing' is {said} and cannot go to a run: TumorNet.forward uses helper, which uses thing."
    with pytest.raises(LeptonError, match="'thing' is"):
        notebook.capture_cell("print(thing)")
    getattr(notebook.space["thing"], "close", lambda: None)()


def test_the_history_is_not_taken_along(notebook: Notebook) -> None:
    notebook.cell("def f(): return In[-1]")
    assert notebook.refused(model="f") == "'In' cannot go to a run: it is the notebook's history, and f uses it."


def test_what_a_reduce_refuses_is_found_by_trying(notebook: Notebook) -> None:
    notebook.cell(
        "class Odd:\n    def __reduce__(self): raise TypeError('not me')\nodd = Odd()\n"
        "class Net:\n    def forward(self): return odd"
    )
    message = notebook.refused(model="Net")
    assert "'odd'" in message and "Net.forward uses odd" in message and "not me" in message


def test_a_variable_that_is_too_large_is_named_with_its_size(notebook: Notebook) -> None:
    notebook.cell(
        "import numpy as np\nbig = np.zeros((1024, 1024))\n"
        "listed = ['x' * 1000 + str(i) for i in range(6000)]\ndef helper(): return big\ndef other(): return listed"
    )
    assert notebook.refused(model="helper").startswith(
        "'big' (ndarray of shape (1024, 1024), 8 MB) is too large to go to a run, "
        "at most 4 MB a variable: helper uses big"
    )
    assert "'listed'" in notebook.refused(model="other")


def test_two_gigabytes_are_refused_without_being_copied(notebook: Notebook) -> None:
    notebook.cell("import numpy as np\nhuge = np.empty(2**28)\ndef f(): return huge")
    with pytest.raises(LeptonError, match=r"'huge' .*2.0 GB.*at most 256 MB"):
        capture_names({"model": "f"}, notebook.space, cwd=notebook.folder)


def test_a_name_that_is_not_defined_asks_did_you_mean(notebook: Notebook) -> None:
    notebook.cell("class TumorNet:\n    def forward(self, x): return helpr(x)\ndef helper(x): return x")
    assert notebook.refused(model="TumorNt") == "'TumorNt' is not defined in this notebook. Did you mean 'TumorNet'?"
    assert notebook.refused(model="TumorNet") == (
        "TumorNet.forward uses 'helpr', which is not defined. Did you mean 'helper'?"
    )
    notebook.cell("def careful():\n    try: return colab\n    except NameError: return 1")
    notebook.capture(model="careful")


def test_module_colon_name_is_imported_from_the_notebooks_folder(notebook: Notebook, arrive: Arrive) -> None:
    (notebook.folder / "mymodels.py").write_text("K = 4\nclass Net:\n    def forward(self): return K\n")
    captured = notebook.capture(model="mymodels:Net")
    assert arrive(captured)[0]["model"]().forward() == 4
    assert "class Net" in captured.source
    assert notebook.refused(model="mymodels:Nat").endswith("has no 'Nat'. Did you mean 'Net'?")
    assert "nomodule" in notebook.refused(model="nomodule:Net")


def test_a_cell_takes_what_it_reads_before_it_binds_it(notebook: Notebook, arrive: Arrive) -> None:
    notebook.cell("import threading\nlock = threading.Lock()\na, b, c, unused = 1, 2, 3, 4\ndef f(x): return x + c")
    source = (
        "lock = 5\nif a:\n    b = 7\nclass K:\n    c = 1\n    d = c\nfor i in range(2): print(f(i), b, lock)\n%time 3\n"
    )
    captured = notebook.capture_cell(source)
    assert set(captured.names) == {"a", "b", "c", "f"}  # c by way of f
    objects, _ = arrive(captured)
    assert objects["f"](1) == 4
    with pytest.raises(LeptonError, match="The cell uses 'nope', which is not defined"):
        notebook.capture_cell("def g(): return nope\ng()")
    assert notebook.capture_cell("def g(): return later\nlater = 1\nlepton.log(x=1)\ndisplay(3)").names == ()
    with pytest.raises(LeptonError, match="not Python"):
        notebook.capture_cell("def f(:\n")


def test_cells_travel_so_that_tracebacks_show_their_lines(notebook: Notebook, tmp_path: Path) -> None:
    import linecache
    import traceback

    notebook.cell("x = 1")
    notebook.cell("class Net:\n    def forward(self, x):\n        return x / 0  # the line")
    captured = notebook.capture(model="Net")
    index = payload.msgspec.json.decode(captured.files[payload.INDEX], type=payload.Index)
    (name,) = index.cells
    assert index.labels[name] == "2"
    linecache.cache.pop(name, None)
    sources.restore(index.cells, index.labels, notebook.shell)
    with pytest.raises(ZeroDivisionError) as failure:
        notebook.space["Net"]().forward(1)
    assert "return x / 0  # the line" in "".join(traceback.format_exception(failure.value))


def test_a_payload_of_another_python_says_so(tmp_path: Path) -> None:
    (tmp_path / payload.INDEX).write_bytes(payload.msgspec.json.encode(payload.Index(python="2.7")))
    with pytest.raises(LeptonError, match=r"Python 2\.7"):
        payload.unpack(tmp_path, {})
