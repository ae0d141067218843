"""Windows of made or real rows, as an endpoint's log would give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.predicted import pack_predictions, schema_of_predictions
from lepton_jupyter.formats.profile import Profile, build
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.stages.monitor.window import MonitorWindow

EXAMPLES = Path(__file__).resolve().parents[3] / "example_notebooks"
DATASETS = {"wdbc": ("breast_cancer.csv", "diagnosis"), "penguins": ("penguins.csv", "species")}


class Rows:
    """Real rows, packed: draws from them are references and windows."""

    def __init__(self, schema: Schema, packed: Packed, predictions: np.ndarray) -> None:
        self.schema = schema
        self.packed = packed
        self.predictions = predictions  # labels as text [N]: what the model says, here the truth

    @classmethod
    def of(cls, name: str) -> Rows:
        """Return the rows of a dataset among the examples."""
        file, target = DATASETS[name]
        frame = pl.read_csv(EXAMPLES / file, null_values=["NA", ""])
        kinds: dict[str, Any] = {
            column: "string" if frame[column].dtype == pl.String else "number" for column in frame.columns
        }
        columns = tuple(Column(name=one, kind=kinds[one]) for one in frame.columns if one != target)
        classes = tuple(sorted(frame[target].unique().to_list()))
        task: Any = "binary" if len(classes) == 2 else "multiclass"
        positive = classes[-1] if len(classes) == 2 else None
        schema = Schema(columns=columns, targets=(target,), task=task, classes=classes, positive=positive)
        num = frame.select(pl.col(column.name).cast(pl.Float64) for column in schema.num).to_numpy()
        txt = np.empty((frame.height, len(schema.txt)), dtype=object)
        for place, column in enumerate(schema.txt):
            txt[:, place] = frame[column.name].fill_null(SENTINEL).to_list()
        return cls(schema, Packed(num, txt), np.asarray(frame[target].to_list(), dtype=object))

    def __len__(self) -> int:
        return self.packed.n_rows

    def at(self, places: np.ndarray) -> Rows:
        """Return these rows, in this order."""
        packed = Packed(self.packed.num[places].copy(), self.packed.txt[places].copy())
        return Rows(self.schema, packed, self.predictions[places].copy())

    def draw(self, rng: np.random.Generator, n: int) -> Rows:
        """Return rows drawn with replacement."""
        return self.at(rng.integers(0, len(self), n))

    def profiles(self) -> tuple[Profile, Profile]:
        """Return the reference of these rows, and of the predictions."""
        return build(self.schema, self.packed), build(
            schema_of_predictions(self.schema), pack_predictions(self.schema, self.predictions)
        )

    def window(self, reference: Rows | None, *, ids: list[Any] | None = None, **changes: Any) -> MonitorWindow:
        """Return these rows as a window, one request a row, against a reference."""
        n = len(self)
        inputs, predicted = reference.profiles() if reference is not None else (None, None)
        values: dict[str, Any] = {
            "endpoint": "diagnosis",
            "version": "Net@1",
            "start": 1_000_000.0,
            "end": 1_000_000.0 + 300,
            "schema": self.schema,
            "packed": self.packed,
            "outputs": (self.predictions, np.full((n, len(self.schema.classes)), 0.5, np.float32)),
            "request": np.arange(n),
            "ids": ids if ids is not None else [None] * n,
            "requests": requests(n),
            "reference": inputs,
            "predicted": predicted,
        }
        return MonitorWindow(**(values | changes))


def requests(n: int, *, failed: int = 0) -> pl.DataFrame:
    """Return n answered requests of one row, and some that were refused, spread over five minutes."""
    total = n + failed
    return pl.DataFrame(
        {
            "at": np.linspace(1_000_000.0, 1_000_299.0, total) if total else np.empty(0),
            "request_id": [f"r{place}" for place in range(total)],
            "version": ["Net@1"] * total,
            "latency_ms": np.linspace(1.0, 10.0, total) if total else np.empty(0),
            "rows": [1] * n + [0] * failed,
            "weight": [1.0] * total,
            "status": [200] * n + [422] * failed,
            "error": [""] * n + ["Column 'age': missing"] * failed,
        },
        schema_overrides={
            "rows": pl.Int64,
            "weight": pl.Float64,
            "status": pl.Int64,
            "request_id": pl.String,
            "version": pl.String,
            "error": pl.String,
        },
    )
