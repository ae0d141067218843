"""What a framework is asked to train, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec
import numpy as np
import numpy.typing as npt

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.session import Session
from lepton_jupyter.core.states import Task
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.team import ALONE, Team

if TYPE_CHECKING:
    import onnx

    from lepton_jupyter.stages.data.store import Dataset

MIN_ROWS = 2
# By which preprocessing and class weights of data that is larger than memory are fitted.
FITTED_ROWS = 200_000
FITTED_BYTES = 2**26
N_LEAST = 1_000

Given = Packed | npt.NDArray[Any]  # packed columns, or tensors [N, *shape]: float32, of images uint8
History = dict[str, list[float]]
InRanks = Callable[[Callable[[], None]], None]


class Source(Protocol):
    """Where rows come from: a dataset, or an example."""

    schema: Schema

    @property
    def ref(self) -> str:
        """What messages call it."""

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have rows."""

    def packed(self, split: str | None = None, some: npt.NDArray[np.intp] | None = None) -> Packed:
        """Columns of a split; `some`: of the rows at these positions of it."""

    def tensors(self, split: str | None = None, some: npt.NDArray[np.intp] | None = None) -> npt.NDArray[Any]:
        """Tensors of a split."""

    def targets(self, split: str | None = None, some: npt.NDArray[np.intp] | None = None) -> npt.NDArray[Any]:
        """Targets of a split."""

    def spread(self, split: str, n: int) -> npt.NDArray[np.intp] | None:
        """Positions of n rows, evenly over a split; None where that is all of them."""

    @property
    def is_large(self) -> bool:
        """Whether it is too large for memory: then some of its rows are read at a time."""


@dataclass(frozen=True)
class Job:
    """One training: whom to tell, what was asked, on which rows.

    Attributes
    ----------
    session : Session
    spec : Train
    dataset : Source
        With the task that ``--task`` settled.
    name : str
        The model as typed, for messages.
    names : Mapping
        Objects of the notebook for ``optimizer``, ``loss``, ``lr_scheduler`` where the spec names one.
    is_finishing : bool
        Whether a second kernel only bundles the best checkpoint of a run that was stopped.
    is_trial : bool
        Whether it is one of many trials, of which only the best is asked whether it can be exported.
    ranks : callable or None
        Trains in as many processes as the session has devices, and returns when they have ended; it calls what it is
        given some times a second meanwhile. None: this process trains.
    team : Team
        Those processes, where this one is of them.
    """

    session: Session
    spec: Train
    dataset: Source
    name: str
    names: Mapping[str, object] = field(default_factory=dict)
    is_finishing: bool = False
    is_trial: bool = False
    ranks: InRanks | None = None
    team: Team = ALONE

    @property
    def schema(self) -> Schema:
        """Columns in, outputs out."""
        return self.dataset.schema

    @property
    def data_name(self) -> str:
        """The dataset's name, without its version."""
        return self.dataset.ref.partition("@")[0]

    @property
    def task(self) -> Task:
        """What is predicted."""
        assert self.schema.task is not None  # `settle_task` saw to it
        return self.schema.task

    @property
    def is_large(self) -> bool:
        """Whether the rows are streamed from disk."""
        return self.dataset.is_large

    def some(self, split: str, n: int = FITTED_ROWS) -> npt.NDArray[np.intp] | None:
        """Return positions of rows that stand for a split that is larger than memory; None: all of them are read."""
        if not self.is_large:
            return None
        row_bytes = 4 * int(np.prod(self.schema.tensor_shape or (2 * len(self.schema.columns),)))
        return self.dataset.spread(split, max(N_LEAST, min(n, FITTED_BYTES // row_bytes)))

    def targets(self, split: str, some: npt.NDArray[np.intp] | None = None) -> npt.NDArray[Any]:
        """Return the targets of a split: int64 codes [N] into the schema's classes, or float64 [N, T]."""
        return self.dataset.targets(split, some)

    @property
    def n_outputs(self) -> int:
        """Number of classes (2 for binary) or of targets."""
        return len(self.schema.classes) or len(self.schema.targets) or 1


class Fitted(Protocol):
    """A trained model, whatever framework it came from: it predicts from raw columns and writes its graph."""

    @property
    def framework(self) -> str:
        """Name of the framework."""

    @property
    def schema(self) -> Schema:
        """Columns in, outputs out."""

    @property
    def outcome(self) -> Outcome:
        """What came out of the training."""

    @property
    def tokenizer(self) -> bytes | None:
        """The ``tokenizer.json`` that makes its tokens; None where it reads no prose."""

    def close(self) -> None:
        """End what still runs beside it."""

    def predict(self, rows: Given) -> npt.NDArray[np.float64]:
        """Return what the live model says of raw rows: probabilities [N, K] or predictions [N, T]."""

    def export(self) -> onnx.ModelProto:
        """Return the graph from packed raw columns to outputs.

        Raises
        ------
        LeptonError
            With code ``refused`` where the model cannot be exported: two lines of why.
        """

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Return the weights as arrays under the model's own names."""

    def thresholds(self) -> dict[str, list[float]]:
        """Return values of raw number columns at which the model decides, by column: parity plants them."""


@dataclass
class Outcome:
    """What came out of a training.

    Attributes
    ----------
    history : dict of list
        ``epoch`` and each metric, one value an epoch.
    metrics : dict
        Those of the epoch that is kept.
    best_epoch, epochs, stopped_at : int or None
        Epochs count from 1. `stopped_at` is set where the user stopped the run.
    why_not : str
        Why the model cannot be exported; empty where it can.
    notes : dict
    """

    history: History = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int | None = None
    stopped_at: int | None = None
    why_not: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


def settle_task(dataset: Dataset, task: str, *, threshold: float | None = None) -> Dataset:
    """Return the dataset as the task that was asked for sees it, with the threshold of its decision.

    Raises
    ------
    LeptonError
        If the dataset has no target, its target does not fit the task, there is nothing to tell apart, or it is not
        binary and a threshold is given.
    """
    schema = dataset.schema
    if schema.task is None or not schema.targets:
        raise LeptonError(
            f"Dataset '{dataset.ref}' has no target column, so there is nothing to learn.",
            f"Name it: %lepton data {dataset.record.name} {dataset.record.source} --target COLUMN",
        )
    if task != "auto":
        dataset = dataset.as_task(cast(Task, task))
    schema = dataset.schema
    if schema.task != "regression" and len(schema.classes) < 2:
        only = schema.classes[0] if schema.classes else "nothing"
        raise LeptonError(
            f"The target '{schema.targets[0]}' of '{dataset.ref}' has one class only: '{only}'.",
            "A classification needs two classes at least: check the rows, or name another --target.",
        )
    n_rows = dataset.record.split_rows.get("train", 0)
    if n_rows < MIN_ROWS:
        raise LeptonError(
            f"Dataset '{dataset.ref}' has {n_rows} training row(s); a model needs {MIN_ROWS} at least.",
            "Bring more rows, or keep them all for training: --split none.",
        )
    return dataset.with_schema(with_threshold(dataset.schema, threshold))


def with_threshold(schema: Schema, threshold: float | None) -> Schema:
    """Return the schema with the threshold that was asked for.

    Raises
    ------
    LeptonError
        If the task has none.
    """
    if threshold is None:
        return schema
    if schema.task != "binary":
        raise LeptonError(
            f"--threshold means nothing for a {schema.task} task: it decides between two classes.", "Leave it out."
        )
    return msgspec.structs.replace(schema, threshold=threshold)
