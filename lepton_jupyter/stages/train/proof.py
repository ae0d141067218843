"""The run's side of the export proof: start the second process, hand it the model, hear what it says."""

from __future__ import annotations

import json
import linecache
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import cloudpickle
import onnx
from safetensors.torch import save as to_bytes
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.files import write_atomic
from lepton_jupyter.stages.by_value import dumps
from lepton_jupyter.stages.train.checkpoints import snapshot
from lepton_jupyter.stages.train.exporter_process import end_exporter, start_exporter
from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.places import is_users

POLL_PAUSE_S = 0.1
WAIT_S = 300.0
TAIL = 400


class Proof:
    """One exporter process.

    Attributes
    ----------
    why_not : LeptonError or None
        Why the model cannot be exported, once that is known.
    is_proved : bool or None
        None while it is not known.
    """

    def __init__(self, folder: Path, on_known: Callable[[Proof], None]) -> None:
        self.folder = folder
        self.is_proved: bool | None = None
        self.why_not: LeptonError | None = None
        self._on_known = on_known
        self._heard = b""
        self._looked_at = 0.0
        self._name = ""
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, module: nn.Module, feed: Feed, inputs: Tensors, *, name: str) -> None:
        """Hand over the model as it is now, with a few rows. Training goes on meanwhile.

        Only now is the process started: until the first batch is through, its imports would slow ours down.
        """
        self._name = name
        self._process = start_exporter(self.folder)
        try:
            payload = {
                "module": module,
                "feed": feed,
                "inputs": tuple(tensor.detach().cpu() for tensor in inputs),
                "name": name,
                "cells": _cells(module),
            }
            write_atomic(self.folder / "model.pkl", _by_value(payload, module), is_durable=False)
        except Exception as error:  # whatever an object of the user's says when it is pickled
            self._settle(
                LeptonError(
                    f"'{name}' cannot be exported: it cannot be sent to the second process.",
                    f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}",
                    code="refused",
                )
            )
            return
        self._ask("prove")

    def poll(self) -> None:
        """Look whether it has said something; costs nothing between two looks."""
        now = monotonic()
        if self.is_proved is None and self._process is not None and now - self._looked_at >= POLL_PAUSE_S:
            self._looked_at = now
            self._hear(0.0)

    def final(self, module: nn.Module) -> onnx.ModelProto:
        """Return the graph with the final weights.

        Raises
        ------
        LeptonError
            If the model cannot be exported.
        """
        deadline = monotonic() + WAIT_S
        while self.is_proved is None and monotonic() < deadline:
            self._hear(1.0)
        if self.why_not is not None:
            raise self.why_not
        write_atomic(self.folder / "final.safetensors", to_bytes(snapshot(module)), is_durable=False)
        self._ask("export")
        path = self.folder / "final.onnx"
        while not self._has_exported and self.why_not is None and monotonic() < deadline:
            self._hear(1.0)
        if self.why_not is not None:
            raise self.why_not
        if not self._has_exported:
            raise LeptonError(f"'{self._name}' cannot be exported: it took more than {WAIT_S:.0f} s.", code="refused")
        return onnx.load(path)

    def close(self) -> None:
        """End the process and remove what was handed over."""
        if self._process is None:
            return  # nothing was handed over by us: what lies there is another process's
        end_exporter(self._process)
        for name in ("model.pkl", "final.safetensors", "final.onnx"):
            (self.folder / name).unlink(missing_ok=True)

    _has_exported = False

    def _ask(self, what: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        request = {
            "do": what,
            "folder": str(self.folder),
            "cwd": str(Path.cwd()),
            "path": [path for path in sys.path if path],
            "environment": {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
        }
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._settle(self._died())

    def _hear(self, timeout_s: float) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        if not ready:
            return
        content = os.read(descriptor, 65536)
        if not content:
            self._settle(self._died())
            return
        self._heard += content
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, reply: dict[str, Any]) -> None:
        error = LeptonError.from_dict(reply["error"]) if "error" in reply else None
        if reply["did"] == "export" and error is None:
            self._has_exported = True
        else:
            self._settle(error)

    def _settle(self, error: LeptonError | None) -> None:
        self.why_not = error
        self.is_proved = error is None
        self._on_known(self)

    def _died(self) -> LeptonError:
        assert self._process is not None
        code = self._process.wait()
        words = (self.folder / "log.txt").read_text(errors="replace").strip()[-TAIL:].splitlines()
        return LeptonError(
            f"'{self._name}' cannot be exported: the process that tried ended with {code}.",
            words[-1] if words else "",
            code="refused",
        )


def _by_value(payload: dict[str, Any], module: nn.Module) -> bytes:
    """Pickle with the user's modules by value: what their files hold now need not be what was trained."""
    registered = []
    for part in module.modules():
        source = sys.modules.get(type(part).__module__)
        path = getattr(source, "__file__", None) or ""
        if source is None or not is_users(type(part)) or "site-packages" in path or source.__name__ == "__main__":
            continue
        if source.__name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(source)
            registered.append(source)
    try:
        return dumps(payload)
    finally:
        for source in registered:
            cloudpickle.unregister_pickle_by_value(source)


def _cells(module: nn.Module) -> dict[str, str]:
    """Return the texts of cells that hold the model's methods, so that messages can quote their lines."""
    found = {}
    for part in module.modules():
        for function in (type(part).forward, type(part).__init__):
            filename = getattr(getattr(function, "__code__", None), "co_filename", "")
            if filename in linecache.cache and not Path(filename).exists():
                found[filename] = "".join(linecache.getlines(filename))
    return found
