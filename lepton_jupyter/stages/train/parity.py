"""Is the graph the model? Live answers against the graph's, over real rows and planted ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from lepton_jupyter.formats.packing import Packed, count_rows
from lepton_jupyter.formats.schema import ROWS_AT_ONCE, SENTINEL, Schema
from lepton_jupyter.serving.scorer import graph_inputs, take
from lepton_jupyter.serving.text import TextReader
from lepton_jupyter.stages.data.packing import pack_frame
from lepton_jupyter.stages.train.job import Given
from lepton_jupyter.stages.train.planted_images import served_rows

if TYPE_CHECKING:
    from lepton_jupyter.stages.data.store import Dataset, Positions

TOLERANCE = 1e-5  # of a probability, or of the target's standard deviation
ANSWER_SHARE = 0.1  # of an answer, where that is more than the deviation: 1e-6 of it, some last bits of a float32
N_REAL, N_PLACES = 2000, 8  # rows of each split; places that they are read from where it is larger than memory
IMAGE_BYTES = 64 * 2**20  # of a split's images
N_ALONE = 16
N_BATCH = 64
N_PLANTED = 8
N_THRESHOLDS = 200
UNSEEN = "\u2400unseen"
TEXTS = {  # planted in columns of prose
    "empty": "",
    "blank": " \n\t",
    "very long": "a very long text, 🎈 " * 3_000,
    "one word without end": "x" * 20_000,
    "of unknown characters": "\u2400 🜁 ꙮ \u0000 e\u0301 \U000e0067 [PAD] [CLS] 한국어 العربية",
}

Answers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parity:
    """What the comparison found.

    Attributes
    ----------
    rows : int
        Compared.
    worst : float
        Largest absolute difference; for a regression in units of the target's standard deviation, or of
        `ANSWER_SHARE` of the answer where that is more.
    tolerance : float
    message : str
        The worst row, where the difference is above the tolerance.
    """

    rows: int
    worst: float
    tolerance: float
    message: str

    @property
    def is_equal(self) -> bool:
        """Whether every row is within the tolerance."""
        return not self.message

    def to_dict(self) -> dict[str, Any]:
        """Return what the card keeps."""
        return {"rows": self.rows, "worst": self.worst, "tolerance": self.tolerance}


@dataclass(frozen=True)
class Probe:
    """Rows to be compared, each with a name for messages.

    `served` are the same rows as an endpoint makes them of what it is sent; None: there is nothing to make.
    """

    rows: Given
    labels: list[str]
    is_planted: bool = False
    served: Given | None = None


def check_parity(
    live: Callable[[Given], Answers],
    graph: bytes,
    probes: list[Probe],
    *,
    scale: Answers | float = 1.0,
    at_once: int = ROWS_AT_ONCE,
    reader: TextReader | None = None,
) -> Parity:
    """Compare the live model with its graph.

    Parameters
    ----------
    live : callable
        From packed rows to probabilities [N, K] or predictions [N, T].
    graph : bytes
    probes : list of Probe
        A planted probe that the live model itself refuses is passed over: there is nothing to be equal to.
    scale : float or array [T]
        Standard deviation of the targets; 1 for probabilities.
    at_once : int
        Rows that go through the graph at once, as `Schema.rows_at_once` says.
    reader : TextReader, optional
        Of the bundle's tokenizer: the comparison begins at the text.
    """
    run = partial(run_graph, open_graph(graph), at_once=at_once, reader=reader)
    n_rows, worst, message = 0, 0.0, ""
    for probe in probes:
        try:
            expected = live(probe.rows)
        except Exception:
            if not probe.is_planted:
                raise
            continue
        for found, labels, wanted in _answers(run, probe, expected):
            difference = _difference(found, wanted, scale)
            n_rows += len(difference)
            at = int(difference.argmax()) if len(difference) else 0
            if len(difference) and difference[at] > worst:
                worst = float(difference[at])
                if worst > TOLERANCE:
                    message = (
                        f"The graph is off by {worst:.3g} (at most {TOLERANCE:g} is allowed) at {labels[at]}: "
                        f"the live model says {_show(wanted[at])}, the graph {_show(found[at])}."
                    )
    return Parity(n_rows, worst, TOLERANCE, message)


def _answers(
    run: Callable[[Given], Answers], probe: Probe, expected: Answers
) -> list[tuple[Answers, list[str], Answers]]:
    """Return the graph's answers for all rows at once, and for some alone and in a batch of `N_BATCH`."""
    rows = probe.rows if probe.served is None else probe.served
    together = run(rows)
    compared = [(together, probe.labels, expected)]
    picks = np.linspace(0, len(expected) - 1, min(N_ALONE, len(expected))).astype(int)
    if len(picks):
        alone = np.concatenate([run(take(rows, [pick])) for pick in picks])
        labels = [f"{probe.labels[pick]}, alone" for pick in picks]
        compared.append((alone, labels, expected[picks]))
        batch = np.arange(N_BATCH) % len(expected)
        in_batch = [f"{probe.labels[pick]}, in a batch of {N_BATCH}" for pick in batch]
        compared.append((run(take(rows, batch)), in_batch, expected[batch]))
    return compared


def _difference(found: Answers, wanted: Answers, scale: Answers | float) -> Answers:
    """Return the largest difference of each row. Both NaN, or both the same infinity, is equal; one of them is not."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(found - wanted) / np.fmax(scale, ANSWER_SHARE * np.abs(wanted))
    is_same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    apart = np.where(is_same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    return apart.max(axis=1, initial=0.0)


def _show(row: Answers) -> str:
    return ", ".join(f"{value:.6g}" for value in row[:4]) + (" …" if len(row) > 4 else "")


def open_graph(graph: bytes) -> ort.InferenceSession:
    """Return a session of one thread on a graph in memory."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_graph(session: ort.InferenceSession, rows: Given, *, at_once: int, reader: TextReader | None) -> Answers:
    """Return a graph's answers, float64 [N, K] or [N, T]."""
    names, parts = [each.name for each in session.get_inputs()], []
    for start in range(0, max(1, count_rows(rows)), at_once):
        given = graph_inputs(take(rows, slice(start, start + at_once)), reader)
        parts.append(session.run(None, {name: given[name] for name in names})[0])
    return np.concatenate(parts).astype(np.float64)


def rows_of(schema: Schema, dataset: Dataset, split: str, some: Positions | None = None) -> Given:
    """Return a split's rows as a model's own schema packs them: it may take fewer columns than the dataset has.

    Parameters
    ----------
    some : array of int, optional
        Positions in the split, rising; None: all.
    """
    if schema.tensor_shape is not None:
        return dataset.tensors(split, some)
    return pack_frame(schema, dataset.table(split, some))


def n_real(schema: Schema) -> int:
    """Return how many rows of each split are compared at most: of large images fewer, for all are held at once."""
    if schema.image is None:
        return N_REAL
    return max(N_BATCH, min(N_REAL, IMAGE_BYTES // math.prod(schema.image.shape)))


def real_probes(schema: Schema, dataset: Dataset) -> list[Probe]:
    """Return some rows of each split."""
    probes = []
    for split in dataset.splits():
        some = dataset.spread(split, n_real(schema), places=N_PLACES)
        index = some if some is not None else np.arange(dataset.record.split_rows[split])
        served = served_rows(schema, dataset, split, some) if schema.image is not None else None
        labels = [f"row {row} of {split}" for row in index]
        probes.append(Probe(rows_of(schema, dataset, split, some), labels, served=served))
    return probes


def planted_probes(schema: Schema, rows: Packed, thresholds: dict[str, list[float]]) -> list[Probe]:
    """Return rows with holes, unseen categories, nothing at all, and values on a model's thresholds.

    Parameters
    ----------
    schema : Schema
    rows : Packed
        Real rows to plant in; one at least.
    thresholds : dict
        Of a tree: raw values at which it decides, by number column. Each is planted as it is and one float32 up and
        down.
    """
    probes = []
    for place, column in enumerate(schema.num):
        probes.append(_planted(rows, f"'{column.name}' missing", num={place: np.nan}))
    for place, column in enumerate(schema.txt):
        probes.append(_planted(rows, f"'{column.name}' missing", txt={place: SENTINEL}))
        if column.kind == "text":
            probes += [_planted(rows, f"'{column.name}' {what}", txt={place: text}) for what, text in TEXTS.items()]
            continue
        probes.append(_planted(rows, f"'{column.name}' never seen", txt={place: UNSEEN}))
    nothing: dict[int, Any] = dict.fromkeys(range(len(schema.num)), np.nan)
    probes.append(_planted(rows, "nothing known", num=nothing, txt=dict.fromkeys(range(len(schema.txt)), SENTINEL)))
    places = {column.name: place for place, column in enumerate(schema.num)}
    for name, values in thresholds.items():
        picked = np.unique(values)
        picked = picked[np.linspace(0, len(picked) - 1, min(N_THRESHOLDS, len(picked))).astype(int)]
        near = np.unique(np.concatenate([picked, *(_next_float32(picked, way) for way in (-np.inf, np.inf))]))
        index = np.arange(len(near)) % len(rows.num)
        num = rows.num[index]
        num[:, places[name]] = near
        labels = [f"a planted row with '{name}' = {value!r}, on a threshold" for value in near.tolist()]
        probes.append(Probe(Packed(num, rows.txt[index]), labels, is_planted=True))
    return probes


def _next_float32(values: Answers, way: float) -> Answers:
    return np.nextafter(values.astype(np.float32), np.float32(way)).astype(np.float64)


def _planted(
    rows: Packed, what: str, *, num: dict[int, float] | None = None, txt: dict[int, str] | None = None
) -> Probe:
    numbers, texts = rows.num[:N_PLANTED].copy(), rows.txt[:N_PLANTED].copy()
    for place, value in (num or {}).items():
        numbers[:, place] = value
    for place, text in (txt or {}).items():
        texts[:, place] = text
    return Probe(Packed(numbers, texts), [f"a planted row with {what}"] * len(numbers), is_planted=True)
