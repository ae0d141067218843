"""Compiled modules beside their sources: who serves may not write them, and would compile them at each start."""

from __future__ import annotations

import importlib.util
import marshal
import sys
import warnings
from pathlib import PurePosixPath
from types import CodeType

from lepton_jupyter.stages.deploy.export.tree import Tree

UNCHECKED = (1).to_bytes(4, "little")  # the source is not looked at: in an image it does not change
WITHOUT_REFERENCES = 2  # marshal's version; later ones write what else refers to an object at the moment, which differs


def add_bytecode(tree: Tree) -> None:
    """Add ``__pycache__`` files for every module of a tree: the same bytes each time, with paths of the image."""
    for path, entry in list(tree.entries()):
        if not path.endswith(".py") or entry.content is None:
            continue
        source = entry.read()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                code: CodeType = compile(source, f"/{path}", "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):  # a template, or written for another Python: nobody imports it
            continue
        place = PurePosixPath(path)
        name = f"{place.stem}.{sys.implementation.cache_tag}.pyc"
        tree.add(str(place.parent / "__pycache__" / name), _head(source) + _body(code))


def _head(source: bytes) -> bytes:
    return importlib.util.MAGIC_NUMBER + UNCHECKED + importlib.util.source_hash(source)


def _body(code: CodeType) -> bytes:
    try:
        return marshal.dumps(code, WITHOUT_REFERENCES)
    except ValueError:  # a constant that only later versions can write (slices, from Python 3.14 on)
        return marshal.dumps(code)
