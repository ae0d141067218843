"""Ask the graph beside this file without lepton_jupyter: ``pip install onnxruntime``, ``python ask.py [ROWS.json]``.

ROWS.json is a list of objects of raw columns, as ``schema.json`` names them; without it the example row is asked.
``graph.onnx`` takes the columns packed: ``num`` float64 [N, k] with missing values as NaN, ``txt`` text [N, m] with
missing values as a mark; prose as ``tokens`` int64 [N, n, T], which ``tokenizer.json`` makes (``pip install
tokenizers``); a model of tensors takes ``tensor`` float32 [N, ...], one of images uint8 pixels [N, C, H, W].
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
CHARS_A_TOKEN = 32  # so much of a text is read for each token


def pack(schema: dict[str, Any], rows: list[Any]) -> dict[str, Any]:
    """Return rows as the graph's inputs, by name."""
    if schema.get("tensor_shape"):
        return {"tensor": np.array(rows, np.uint8 if schema.get("image") else np.float32)}
    texts = [column["name"] for column in schema["columns"] if column["kind"] == "string"]
    numbers = [column["name"] for column in schema["columns"] if column["kind"] not in ("string", "text")]
    return {
        "num": np.array([[_number(row[name]) for name in numbers] for row in rows], np.float64),
        "txt": np.array([[MISSING if row[name] is None else row[name] for name in texts] for row in rows], object),
    }


def read_tokens(folder: Path, schema: dict[str, Any], rows: list[Any]) -> Any:
    """Return the tokens of the columns of prose, 0 behind a text's end."""
    from tokenizers import Tokenizer

    reader, most = Tokenizer.from_file(str(folder / "tokenizer.json")), schema["max_tokens"]
    reader.encode_special_tokens = True
    reader.enable_truncation(most)
    names = [column["name"] for column in schema["columns"] if column["kind"] == "text"]
    found = np.zeros((len(rows), len(names), most), np.int64)
    for place, row in enumerate(rows):
        for at, name in enumerate(names):
            ids = reader.encode((row[name] or "")[: most * CHARS_A_TOKEN]).ids
            found[place, at, : len(ids)] = ids
    return found


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
    if schema.get("max_tokens"):
        packed["tokens"] = read_tokens(folder, schema, rows)
    feed = {given.name: packed[given.name] for given in session.get_inputs()}
    classes = schema.get("classes", ())
    (found,) = session.run(["probability" if classes else "prediction"], feed)
    names = [f"probability_{each}" for each in classes] or [f"prediction_{each}" for each in schema["targets"]]
    return [dict(zip(names, map(float, np.atleast_1d(row)), strict=True)) for row in found]


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_bytes()) if len(sys.argv) > 1 else None
    for answer in ask(Path(__file__).parent, given):
        print(json.dumps(answer))  # noqa: T201  a script, of a shell
