"""Ask the graph beside this file without lepton_jupyter: ``pip install onnxruntime``, ``python ask.py [ROWS.json]``.

ROWS.json is a list of objects of raw columns, as ``schema.json`` names them; without it the example row is asked.
``graph.onnx`` takes the columns packed: ``num`` float64 [N, k] with missing values as NaN, ``txt`` text [N, m] with
missing values as a mark; a model of tensors takes ``tensor`` float32 [N, ...].
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

MISSING = "\u2400missing"  # what a missing text travels as


def pack(schema: dict[str, Any], rows: list[Any]) -> dict[str, Any]:
    """Return rows as the graph's inputs, by name."""
    if schema.get("tensor_shape"):
        return {"tensor": np.array(rows, np.float32)}
    texts = [column["name"] for column in schema["columns"] if column["kind"] == "string"]
    numbers = [column["name"] for column in schema["columns"] if column["kind"] != "string"]
    return {
        "num": np.array([[_number(row[name]) for name in numbers] for row in rows], np.float64),
        "txt": np.array([[MISSING if row[name] is None else row[name] for name in texts] for row in rows], object),
    }


def _number(value: Any) -> float:
    """Return a number, a truth value, or a date (seconds since 1970, UTC) as it travels."""
    if value is None:
        return float("nan")
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return float(value)


def ask(folder: Path, rows: list[Any] | None) -> list[dict[str, Any]]:
    """Return what the graph says of each row; of the example where there are none."""
    schema = json.loads((folder / "schema.json").read_bytes())
    if rows is None:
        rows = [np.zeros(schema["tensor_shape"]).tolist() if schema.get("tensor_shape") else schema["example"]]
    session = ort.InferenceSession(folder / "graph.onnx", providers=["CPUExecutionProvider"])
    packed = pack(schema, rows)
    feed = {given.name: packed[given.name] for given in session.get_inputs()}
    classes = schema.get("classes", ())
    (found,) = session.run(["probability" if classes else "prediction"], feed)
    names = [f"probability_{each}" for each in classes] or [f"prediction_{each}" for each in schema["targets"]]
    return [dict(zip(names, map(float, np.atleast_1d(row)), strict=True)) for row in found]


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_bytes()) if len(sys.argv) > 1 else None
    for answer in ask(Path(__file__).parent, given):
        print(json.dumps(answer))  # noqa: T201  a script, of a shell
