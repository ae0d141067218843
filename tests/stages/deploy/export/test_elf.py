"""Libraries are those that the loader itself would take."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.deploy.export.elf import closure, loader_of, needs_of

PYTHON = Path(sys.executable).resolve()
RUNTIME = next(Path(onnxruntime.__file__).parent.glob("capi/onnxruntime_pybind11_state*.so"))


def _by_the_loader(path: Path) -> dict[str, Path]:
    if shutil.which("ldd") is None:
        pytest.skip("no ldd here")
    said = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
    return {name: Path(place).resolve() for name, place in re.findall(r"(\S+) => (/\S+)", said)}


@pytest.mark.parametrize("path", [PYTHON, RUNTIME], ids=["python", "onnxruntime"])
def test_a_closure_is_what_the_loader_says(path: Path) -> None:
    found = closure([path], own=())
    loader = Path(loader_of(PYTHON)).name
    assert {name: place.resolve() for name, place in found.libraries.items() if name != loader} == _by_the_loader(path)
    assert found.missing == {}


def test_what_comes_along_anyway_is_not_listed() -> None:
    own = frozenset(path.resolve() for path in RUNTIME.parent.iterdir())
    found = closure([RUNTIME], own=own)
    assert not [place for place in found.libraries.values() if place.resolve() in own]
    assert "libc.so.6" in found.libraries


def test_what_is_no_program_needs_nothing_and_has_no_loader(tmp_path: Path) -> None:
    for name, content in (("text", b"#!/bin/sh\n"), ("short", b"\x7fELF"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        assert needs_of(tmp_path / name) is None
        with pytest.raises(LeptonError, match="no program that names its loader"):
            loader_of(tmp_path / name)
