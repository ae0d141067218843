"""Score packed rows with a bundle's graph: the one way, for endpoint, predict, evaluation and parity."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import GRAPH, Bundle
from lepton_jupyter.formats.packing import Packed, count_rows, pack_rows
from lepton_jupyter.formats.predicted import decide
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.text import TextReader, reader_of

LOG_ERRORS_ONLY = 3
QUICK_S = 5e-3  # a run so short is timed a few more times
SEVERAL = 64  # rows of the second run that is timed

_LABELS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "integer": lambda text: int(float(text)),
    "number": float,
    "boolean": lambda text: text.lower() in ("true", "1"),
}


class Outputs(NamedTuple):
    """What a graph says of N rows.

    Attributes
    ----------
    prediction : NDArray
        Classification: int64 [N], places in ``schema.classes``. Regression: float64 [N, T] in original units.
    probability : NDArray or None
        Classification: float32 [N, K] in the order of ``schema.classes``.
    """

    prediction: NDArray[Any]
    probability: NDArray[np.float32] | None


class Scorer:
    """A graph in memory, ready to run. Safe to use from several threads at once.

    Parameters
    ----------
    bundle : Bundle
    threads : int
        Threads of one run. An endpoint takes one and runs several at once.

    Raises
    ------
    LeptonError
        If the bundle has no graph (the message says why), was changed, or the runtime does not take the graph.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.schema: Schema = bundle.schema
        if not bundle.has(GRAPH):
            card = bundle.card
            raise LeptonError(
                f"{card.model} of run {card.run_id} has no graph: {card.why_not or 'it was not exported'}.",
                "Its predictions on its own splits are stored; other rows need a version that can be exported.",
                code="refused",
            )
        self._reader = reader_of(bundle)
        self._session = _open(bundle, threads)
        self._inputs = tuple(given.name for given in self._session.get_inputs())
        self._output = "prediction" if self.schema.task == "regression" else "probability"
        names = [output.name for output in self._session.get_outputs()]
        if self._output not in names:
            raise LeptonError(
                f"The graph of bundle '{bundle.root.name}' gives {', '.join(names)}; '{self._output}' is wanted.",
                code="failed",
            )
        self.chunk_rows = self.schema.rows_at_once
        self._labels = [_LABELS[self.schema.class_kind](label) for label in self.schema.classes]
        self._columns = self._column_names()
        self._record = _struct(self._columns)
        id_column = self.schema.id_column
        is_named = id_column is not None and id_column not in self._columns
        self._named_record = _struct((str(id_column), *self._columns)) if is_named else None
        self._run_s = self._row_s = float("inf")  # not known before `warm`

    def seconds(self, n_rows: int) -> float:
        """Return about how long a run of so many rows takes; infinity where `warm` did not find it quick."""
        return self._run_s + self._row_s * n_rows

    def score(self, rows: Packed | NDArray[Any]) -> Outputs:
        """Score packed rows (for a model of tensors: float32 [N, \\*shape]; of images: uint8), and decide."""
        n_rows = count_rows(rows)
        parts = [self._run(rows, start) for start in range(0, n_rows, self.chunk_rows)]
        width = len(self.schema.classes) if self._output == "probability" else max(1, len(self.schema.targets))
        raw = np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else np.empty((0, width), np.float32)
        if self._output == "prediction":
            return Outputs(raw.astype(np.float64).reshape(n_rows, -1 if n_rows else width), None)
        return Outputs(decide(self.schema, raw), raw)

    def table(self, outputs: Outputs, ids: list[Any] | None = None) -> dict[str, list[Any]]:
        """Return the prediction table as columns: the id where given, predictions, ``probability_CLASS`` in order."""
        table: dict[str, list[Any]] = {}
        if ids is not None and self.schema.id_column is not None:
            table[self.schema.id_column] = ids
        if outputs.probability is None:
            columns = outputs.prediction.T.tolist()
        else:
            labels = [self._labels[code] for code in outputs.prediction.tolist()]
            columns = [labels, *outputs.probability.T.tolist()]
        return table | dict(zip(self._columns, columns, strict=True))

    def records(self, outputs: Outputs, ids: list[Any] | None = None) -> list[Any]:
        """Return the same table row by row, as structs whose JSON are objects of its columns."""
        labels = self._labels
        rows: Iterable[Any]
        if outputs.probability is None:
            rows = outputs.prediction.tolist()
        else:
            pairs = zip(outputs.prediction.tolist(), outputs.probability.tolist(), strict=True)
            rows = ((labels[code], *shares) for code, shares in pairs)
        if ids is not None and self._named_record is not None:
            named = self._named_record
            return [named(value, *row) for value, row in zip(ids, rows, strict=True)]
        return [self._record(*row) for row in rows]

    def _column_names(self) -> tuple[str, ...]:
        """Return the columns of the prediction table, the id's left out."""
        if self._output == "probability":
            return ("prediction", *(f"probability_{label}" for label in self.schema.classes))
        targets = self.schema.targets
        return tuple(f"prediction_{target}" for target in targets) if len(targets) > 1 else ("prediction",)

    def warm(self) -> None:
        """Run one row and several, so that the first request is as fast as the next, and know how long that takes.

        Raises
        ------
        LeptonError
            If the graph does not run on rows of its own schema, or gives other columns than the schema names.
        """
        if self.schema.tensor_shape is not None:
            kind = np.float32 if self.schema.image is None else np.uint8
            row: Packed | NDArray[Any] = np.zeros((1, *self.schema.tensor_shape), kind)
            several: Packed | NDArray[Any] = np.repeat(row, SEVERAL, axis=0)
        else:
            example = {column.name: self.schema.example.get(column.name) for column in self.schema.columns}
            row, several = pack_rows(self.schema, [example]), pack_rows(self.schema, [example] * SEVERAL)
        try:
            for rows in (row, several):
                self.table(self.score(rows))
            one_s = self._fastest(row)
            if one_s < QUICK_S and self._reader is None:  # how long a text takes is known by the text alone
                several_s = self._fastest(several)
                self._row_s = max(0.0, several_s - one_s) / (SEVERAL - 1)
                self._run_s = max(0.0, one_s - self._row_s)
        except LeptonError:
            raise
        except Exception as error:  # whatever the runtime says of a graph: it is refused, with its words
            raise LeptonError(f"The graph does not run on its example row: {error}", code="failed") from error

    def _fastest(self, rows: Packed | NDArray[Any]) -> float:
        """Return the seconds of a run: of the quickest of five where it is quick."""
        best = float("inf")
        for _ in range(5):
            began = perf_counter()
            self.score(rows)
            best = min(best, perf_counter() - began)
            if best >= QUICK_S:
                break
        return best

    def _run(self, rows: Packed | NDArray[Any], start: int) -> NDArray[np.float32]:
        feed = graph_inputs(take(rows, slice(start, start + self.chunk_rows)), self._reader)
        return self._session.run([self._output], {name: feed[name] for name in self._inputs})[0]


def take(rows: Packed | NDArray[Any], index: Any) -> Any:
    """Return some rows, by a slice or an array."""
    return Packed(rows.num[index], rows.txt[index]) if isinstance(rows, Packed) else rows[index]


def graph_inputs(rows: Packed | NDArray[Any], reader: TextReader | None) -> dict[str, NDArray[Any]]:
    """Return rows as what a graph may take, by name; a reader makes the tokens of prose."""
    if not isinstance(rows, Packed):
        return {"tensor": rows}
    return rows._asdict() if reader is None else reader.graph_inputs(rows)


def _struct(names: Sequence[str]) -> Callable[..., msgspec.Struct]:
    """Return a struct of fields that are called so in JSON."""
    fields = [f"f{place}" for place in range(len(names))]
    return msgspec.defstruct("Record", fields, rename=dict(zip(fields, names, strict=True)), gc=False)


def _open(bundle: Bundle, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # burns cores while nobody asks
    with tempfile.TemporaryDirectory(prefix="lepton-empty-") as empty:
        # A graph may name files to be read as weights: there are none where it looks.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        try:
            return ort.InferenceSession(bundle.read(GRAPH), options, providers=["CPUExecutionProvider"])
        except LeptonError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise LeptonError(
                f"The graph of bundle '{bundle.root.name}' cannot be loaded: {error}",
                "Deploy another version, or train again.",
                code="failed",
            ) from error
