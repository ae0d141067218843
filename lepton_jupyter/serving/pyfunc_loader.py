"""Load a bundle for ``mlflow.pyfunc``: one file that travels with the model, without anything else of ours."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when ONNX Runtime is loaded: it would call home
import onnxruntime as ort

SENTINEL = "\u2400missing"  # what a missing string travels as (formats/schema.py)
ROWS_AT_ONCE, PIXELS_AT_ONCE, TOKENS_AT_ONCE = 8192, 2**21, 2**16  # as formats/schema.py has them
CHARS_A_TOKEN = 32  # as serving/text.py has it
TEXTS = ("string", "text")
_WANTED = {"number": "numbers", "integer": "whole numbers", "boolean": "booleans (or 0 and 1)", "datetime": "dates"}


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Model:
    """Return the model of the bundle folder `path`; MLflow calls this."""
    return Model(Path(path))


class Model:
    """A bundle's graph. Files are read once and compared with the manifest; nothing is unpickled."""

    def __init__(self, folder: Path) -> None:
        hashes = json.loads((folder / "manifest.json").read_bytes())["files"]
        self.schema = json.loads(_read(folder, "schema.json", hashes))
        options = ort.SessionOptions()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with tempfile.TemporaryDirectory() as empty:  # a graph may name files to read: there are none where it looks
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
            graph = _read(folder, "graph.onnx", hashes)
            self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        has_prose = any(column["kind"] == "text" for column in self.schema.get("columns", []))
        self.reader = _Reader(_read(folder, "tokenizer.json", hashes), self.schema) if has_prose else None
        self.inputs = [given.name for given in self.session.get_inputs()]
        self.output = "prediction" if self.schema.get("task") == "regression" else "probability"

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the prediction table: the id where the rows have it, predictions, a column for each class.

        Parameters
        ----------
        model_input : pandas.DataFrame
            Columns in any order; those that the model does not use (target, id, ignored) are passed over. For a model
            of tensors: an array [N, ...]. For one of images: a column ``image`` (or a list) of files, as their bytes or
            in base64; or pixels, an array [N, C, H, W] of 0 to 255.
        params : dict, optional
            Not used; MLflow may hand it over.

        Raises
        ------
        ValueError
            If a column is missing, unknown or of another kind; it is named.
        """
        if self.schema.get("image") is not None:
            tensor, names = _images(model_input, self.schema)
            return self._table(self._run({"tensor": tensor}, len(tensor)), names)
        if self.schema.get("tensor_shape") is not None:
            tensor = np.asarray(model_input, dtype=np.float32).reshape(-1, *self.schema["tensor_shape"])
            return self._table(self._run({"tensor": tensor}, len(tensor)), {})
        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        self._check_columns([str(name) for name in frame.columns])
        columns = self.schema.get("columns", [])
        numbers = [_numbers(frame[column["name"]], column) for column in columns if column["kind"] not in TEXTS]
        texts = {kind: [_texts(frame[one["name"]], one) for one in columns if one["kind"] == kind] for kind in TEXTS}
        feed: dict[str, Any] = {}
        if numbers:
            feed["num"] = np.column_stack(numbers)
        if texts["string"]:
            feed["txt"] = np.column_stack(texts["string"])
        if texts["text"]:
            feed["text"] = np.column_stack(texts["text"])
        name = self.schema.get("id_column")
        ids = {name: frame[name].reset_index(drop=True)} if name is not None and name in frame.columns else {}
        return self._table(self._run(feed, len(frame)), ids)

    def _check_columns(self, given: list[str]) -> None:
        names = [column["name"] for column in self.schema.get("columns", [])]
        missing = [name for name in names if name not in given]
        if missing:
            raise ValueError(f"Columns are missing: {', '.join(missing)}. The model wants: {', '.join(names)}.")
        dropped = {*self.schema.get("dropped", ()), *self.schema.get("targets", ()), self.schema.get("id_column")}
        unknown = [name for name in given if name not in names and name not in dropped]
        if unknown:
            raise ValueError(f"The model knows no columns {', '.join(unknown)}. It wants: {', '.join(names)}.")

    def _run(self, feed: dict[str, Any], n_rows: int) -> Any:
        size = self._rows_at_once()
        parts = []
        for at in range(0, n_rows, size):
            given = {name: values[at : at + size] for name, values in feed.items()}
            if self.reader is not None:
                given["tokens"] = self.reader.tokens(given["text"])
            parts.append(self.session.run([self.output], {name: given[name] for name in self.inputs})[0])
        width = len(self.schema.get("classes", ())) or max(1, len(self.schema.get("targets", ())))
        return np.concatenate(parts).reshape(n_rows, -1) if parts else np.empty((0, width), np.float32)

    def _rows_at_once(self) -> int:
        shape, n_tokens = self.schema.get("tensor_shape"), 0
        if self.schema.get("image"):
            return max(1, min(ROWS_AT_ONCE, PIXELS_AT_ONCE // math.prod(shape)))
        if self.reader is not None:
            n_tokens = self.reader.max_tokens * sum(column["kind"] == "text" for column in self.schema["columns"])
        return max(1, min(ROWS_AT_ONCE, TOKENS_AT_ONCE // n_tokens)) if n_tokens else ROWS_AT_ONCE

    def _table(self, raw: Any, table: dict[str, Any]) -> pd.DataFrame:
        if self.output == "prediction":
            targets = self.schema.get("targets", ())
            names = [f"prediction_{target}" for target in targets] if len(targets) > 1 else ["prediction"]
            return pd.DataFrame({**table, **dict(zip(names, raw.astype(np.float64).T, strict=True))})
        classes = self.schema["classes"]
        if len(classes) == 2:
            positive = classes.index(self.schema["positive"]) if self.schema.get("positive") is not None else 1
            codes = np.where(raw[:, positive] >= np.float32(self.schema.get("threshold", 0.5)), positive, 1 - positive)
        else:
            codes = raw.argmax(axis=1)
        labels = [_label(text, self.schema.get("class_kind", "string")) for text in classes]
        table["prediction"] = [labels[code] for code in codes]
        shares = raw.astype(np.float64).T
        return pd.DataFrame({**table, **{f"probability_{c}": p for c, p in zip(classes, shares, strict=True)}})


class _Reader:
    """The bundle's tokenizer, as serving/text.py has it."""

    def __init__(self, content: bytes, schema: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.max_tokens = int(schema["max_tokens"])
        self.tokenizer = Tokenizer.from_str(content.decode())
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.enable_truncation(self.max_tokens)

    def tokens(self, texts: Any) -> Any:
        """Return the tokens of texts [N, n]: int64 [N, n, max_tokens], 0 behind a text's end."""
        found = np.zeros((*texts.shape, self.max_tokens), np.int64)
        most = self.max_tokens * CHARS_A_TOKEN
        for at in range(texts.shape[1]):
            read = ["" if text == SENTINEL else text[:most] for text in texts[:, at].tolist()]
            for row, encoding in enumerate(self.tokenizer.encode_batch_fast(read)):
                found[row, at, : len(encoding.ids)] = encoding.ids
        return found


def _read(folder: Path, name: str, hashes: dict[str, str]) -> bytes:
    if name not in hashes:
        raise ValueError(f"The bundle has no {name}: this version cannot score rows.")
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != hashes[name]:
        raise ValueError(f"{name} is not what the bundle's manifest says: it was changed.")
    return content


def _images(given: Any, schema: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return pixels uint8 [N, C, H, W], and the column of names where there is one. No path is ever opened."""
    if isinstance(given, np.ndarray) and given.ndim == len(schema["tensor_shape"]) + 1:
        values = given.astype(np.uint8)
        if (values != given).any() or list(values.shape[1:]) != list(schema["tensor_shape"]):
            raise ValueError(f"Pixels are whole numbers from 0 to 255, [N, {schema['tensor_shape']}].")
        return values, {}
    decode = importlib.import_module("lepton_pixels").decode  # beside this file, as `formats/pixels.py` is with us
    frame = given if isinstance(given, pd.DataFrame) else pd.DataFrame({"image": list(given)})
    if "image" not in frame.columns:
        raise ValueError(f"The column 'image' is missing; there are: {', '.join(map(str, frame.columns))}.")
    size = {name: schema["image"][name] for name in ("height", "width", "channels")}
    rows = np.empty((len(frame), *schema["tensor_shape"]), np.uint8)
    for place, value in enumerate(frame["image"]):
        if not isinstance(value, (str, bytes)):
            wanted = "a file's bytes, or text in base64, is wanted"
            raise ValueError(f"Column 'image', row {place}: {wanted}.")  # noqa: TRY004  as all faults of rows
        try:
            is_file = isinstance(value, bytes) and value.startswith((b"\xff\xd8\xff", b"\x89PNG"))
            rows[place] = decode(value if is_file else base64.b64decode(value, validate=True), **size)
        except ValueError as error:
            raise ValueError(f"Column 'image', row {place}: {error}.") from error
    name = str(schema.get("id_column"))
    return rows, {name: frame[name].reset_index(drop=True)} if name in frame.columns else {}


def _label(text: str, kind: str) -> Any:
    if kind == "integer":
        return int(float(text))
    if kind == "number":
        return float(text)
    return text.lower() in ("true", "1") if kind == "boolean" else text


def _numbers(series: pd.Series, column: dict[str, Any]) -> Any:
    """Return float64 [N], missing values as NaN."""
    name, kind = column["name"], column["kind"]
    wrong = ValueError(f"Column '{name}' wants {_WANTED[kind]}; it holds {series.dtype}.")
    if kind == "datetime" and not pd.api.types.is_numeric_dtype(series.dtype):
        return _seconds(series, name)
    if pd.api.types.is_bool_dtype(series.dtype) and kind != "boolean":
        raise wrong
    if not pd.api.types.is_numeric_dtype(series.dtype) and not all(_is_number(v, kind) for v in series[series.notna()]):
        raise wrong
    values = series.to_numpy(dtype=np.float64, na_value=np.nan)
    present = values[~np.isnan(values)]
    if np.isinf(present).any():
        raise ValueError(f"Column '{name}' holds an infinite value.")
    if kind == "integer" and (present != np.floor(present)).any():
        raise ValueError(f"Column '{name}' wants {_WANTED[kind]}; it holds fractions.")
    if kind == "boolean" and ((present != 0) & (present != 1)).any():
        raise ValueError(f"Column '{name}' wants {_WANTED[kind]}; it holds other numbers.")
    return values


def _is_number(value: Any, kind: str) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return kind == "boolean"
    return isinstance(value, (int, float, np.number))


def _seconds(series: pd.Series, name: str) -> Any:
    """Return seconds since 1970, UTC (also the zone of what names none), of dates or ISO 8601 text."""
    present = series.notna().to_numpy(dtype=bool)
    out = np.full(len(series), np.nan)
    for place in np.flatnonzero(present):
        value = series.iloc[place]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            out[place] = float(value)
            continue
        try:
            moment = pd.Timestamp(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"Column '{name}' wants {_WANTED['datetime']}; row {place} holds {value!r}.") from error
        moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment
        out[place] = (moment - pd.Timestamp(0, tz="UTC")).total_seconds()
    return out


def _texts(series: pd.Series, column: dict[str, Any]) -> Any:
    """Return object [N] of str, missing values as the sentinel."""
    out = np.empty(len(series), dtype=object)
    for place, (value, missing) in enumerate(zip(series, series.isna(), strict=True)):
        if missing:
            out[place] = SENTINEL
        elif isinstance(value, str) and value != SENTINEL:
            out[place] = value
        else:
            raise ValueError(f"Column '{column['name']}' wants text; row {place} holds {value!r}.")
    return out
