"""The second process of a training run: it proves from the first batch on that the model can be exported.

``python -m lepton_jupyter.stages.train.exporter`` reads one JSON line a request from its standard input and answers
each with one on its standard output; it ends when its input does, so it cannot outlive the run. Each request names the
run's export folder, working folder and paths, for the process may have been started before the run was known.
``{"do": "prove", …}`` reads model.pkl there (written by our own process a moment ago) and exports it as it is;
``{"do": "export", …}`` does so with final.safetensors and leaves final.onnx.
"""

from __future__ import annotations

import json
import linecache
import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.heads import first_tensor

BATCHES = (1, 7, 64)  # a graph that was fixed at the example's batch size fails at another
TOLERANCE = 1e-3  # of raw outputs, relative: this proves shapes and branches; the parity check proves digits
EXAMPLE_ROWS = 7

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PLACE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)(?:\n[ \t]+(\S.*))?')


class _OneTensor(nn.Module):
    """The model with its answer reduced to one tensor, whatever it wraps it in."""

    def __init__(self, module: nn.Module, feed: Feed) -> None:
        super().__init__()
        self.module = module
        self.feed = feed

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the raw outputs."""
        return first_tensor(self.feed.call(self.module, tensors))


def tile(tensors: Tensors, n_rows: int) -> Tensors:
    """Return exactly this many rows, repeating those that there are."""
    index = torch.arange(n_rows) % len(tensors[0])
    return tuple(tensor[index] for tensor in tensors)


def export_module(module: nn.Module, feed: Feed, inputs: Tensors, *, name: str) -> Any:
    """Return the graph of a torch module, from its tensors to one raw output named ``output``.

    Parameters
    ----------
    module : Module
        On the CPU; it is put into evaluation mode.
    inputs : tuple of Tensor
        At least one row.
    name : str
        The model as typed, for messages.

    Raises
    ------
    LeptonError
        With code ``refused``: two lines of why it cannot be exported.
    """
    module.eval()
    wrapped = _OneTensor(module, feed).eval()
    dynamic = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                wrapped,
                tile(inputs, EXAMPLE_ROWS),
                dynamo=True,
                dynamic_shapes=(dynamic,),
                input_names=list(feed.names),
                output_names=["output"],
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
    except Exception as error:
        raise _why(error, name) from error
    finally:
        logger.setLevel(level)
    prove(model.SerializeToString(), module, feed, inputs, name=name)
    return model


def prove(graph: bytes, module: nn.Module, feed: Feed, inputs: Tensors, *, name: str) -> None:
    """Run a graph beside its module on batches of several sizes.

    Raises
    ------
    LeptonError
        If it does not run, or differs.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    for n_rows in BATCHES:
        batch = tile(inputs, n_rows)
        with torch.no_grad():
            live = first_tensor(feed.call(module, batch)).numpy()
        try:
            session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            given = {i.name: tensor.numpy() for i, tensor in zip(session.get_inputs(), batch, strict=False)}
            answer = session.run(None, given)[0]
        except Exception as error:
            raise LeptonError(
                f"'{name}' cannot be exported: its graph does not run on a batch of {n_rows} rows.",
                str(error).splitlines()[0][:300],
                code="refused",
            ) from error
        scale = max(1.0, float(np.nanmax(np.abs(live), initial=0.0)))
        if answer.shape != live.shape or not np.allclose(answer, live, atol=TOLERANCE * scale, equal_nan=True):
            raise LeptonError(
                f"'{name}' cannot be exported: its graph answers differently for a batch of {n_rows} rows.",
                "Random numbers or the batch's size in forward do that in evaluation mode.",
                code="refused",
            )


def _why(error: BaseException, name: str) -> LeptonError:
    """Return what torch's exporter says, in two lines: its own text has 25, with colours."""
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    text = _ANSI.sub("", str(deepest))
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(deepest).__name__)
    if "data-dependent" in text:
        first = "its forward takes another way depending on the data"
    places = [found for found in _PLACE.findall(text) if "site-packages" not in found[0]]
    if not places:
        return LeptonError(f"'{name}' cannot be exported: {first[:300]}", "", code="refused")
    filename, number, function, line = places[-1]
    line = linecache.getline(filename, int(number)).strip() or line.strip()
    where = Path(filename).name if Path(filename).exists() and "ipykernel_" not in filename else "the cell"
    hint = f"{function}, line {number} of {where}: `{line}`"
    if "data-dependent" in text:
        hint += "; torch.where computes both ways and chooses by row."
    return LeptonError(f"'{name}' cannot be exported: {first[:300]}", hint, code="refused")


def _answer(channel: IO[str], did: str, error: LeptonError | None = None) -> None:
    reply: dict[str, Any] = {"did": did} | ({"error": error.to_dict()} if error else {})
    channel.write(json.dumps(reply) + "\n")
    channel.flush()


def _load(folder: Path) -> tuple[nn.Module, Feed, Tensors, str]:
    import pickle

    import safetensors.torch

    payload = pickle.loads((folder / "model.pkl").read_bytes())  # noqa: S301  our own process wrote it, mode 0600
    for filename, text in payload["cells"].items():
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    module = payload["module"]
    final = folder / "final.safetensors"
    if final.exists():
        module.load_state_dict(safetensors.torch.load(final.read_bytes()), strict=False)
    return module, payload["feed"], payload["inputs"], payload["name"]


def serve(requests: IO[str], channel: IO[str]) -> None:
    """Answer requests until there are no more."""
    torch.set_num_threads(1)
    for line in requests:
        request = json.loads(line)
        did, folder = request["do"], Path(request["folder"])
        try:
            _settle_in(folder, request)
            module, feed, inputs, name = _load(folder)
            model = export_module(module, feed, inputs, name=name)
            if did == "export":
                (folder / "final.onnx").write_bytes(model.SerializeToString())
            _answer(channel, did)
        except LeptonError as error:
            _answer(channel, did, error)
        except Exception as error:  # whatever the user's module does here: it is told, and training goes on
            text = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            _answer(channel, did, LeptonError(f"The model cannot be exported: {text}", code="refused"))


def _settle_in(folder: Path, request: dict[str, Any]) -> None:
    """Be where the run is: its log, its folder, its paths and its variables."""
    with (folder / "log.txt").open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    os.chdir(request["cwd"])
    sys.path[:] = request["path"]
    os.environ.update(request["environment"])


def main() -> None:
    """Serve. What the user's code prints goes to the log."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import onnxruntime  # noqa: F401  two seconds of imports: better before somebody waits
    import onnxscript  # noqa: F401
    import torch._dynamo  # noqa: F401

    serve(sys.stdin, channel)


if __name__ == "__main__":
    main()
