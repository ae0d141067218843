"""Pickle code by value, and keep the name of the cell or file that it came from: tracebacks must lead there."""

from __future__ import annotations

import io
from collections import ChainMap
from types import CodeType
from typing import Any, ClassVar

import cloudpickle

NAMELESS = "<dynamic-code>"  # what cloudpickle 3.1.3 and newer write in place of a file's name


def _reduced(code: CodeType) -> tuple[Any, ...]:
    make, given, *rest = cloudpickle.Pickler.dispatch_table[CodeType](code)
    named = (code.co_filename if isinstance(value, str) and value == NAMELESS else value for value in given)
    return (make, tuple(named), *rest)


class Pickler(cloudpickle.Pickler):
    """A cloudpickle that keeps ``co_filename``."""

    dispatch_table: ClassVar = ChainMap({CodeType: _reduced}, cloudpickle.Pickler.dispatch_table)


def dumps(value: Any) -> bytes:
    """Return an object as bytes."""
    file = io.BytesIO()
    Pickler(file, protocol=5).dump(value)
    return file.getvalue()
