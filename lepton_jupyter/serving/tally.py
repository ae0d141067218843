"""How two versions do beside each other: counts, latencies and predictions of each, folded some requests at a time."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from lepton_jupyter.formats.endpoint import Beside
from lepton_jupyter.formats.figures import N_EDGES, Figures, VersionFigures, place_of
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.predicted import is_classes, pack_predictions, schema_of_predictions
from lepton_jupyter.formats.profile import Profile, build, count, merge
from lepton_jupyter.formats.schema import SENTINEL, Column, Schema
from lepton_jupyter.serving.edges import Edges
from lepton_jupyter.serving.scorer import Outputs

FOLDED = 256  # requests at a time, or so many rows: a fold takes as long as a few requests
FOLDED_ROWS = 8192
FIRST_ROWS = 500  # of the live version: its predictions' edges are made of these
MOST_HELD = 20_000  # rows that wait for the edges
MOST_KEYS = 65_536  # of which the rows are counted; whoever comes later counts as a new one each time
ALIKE = 0.05  # of the live value: so far a shadow's number may be from it and still agree


class _Answered(NamedTuple):
    key: int
    seconds: float
    outputs: Outputs


class Tally:
    """Counts of one version. For the event loop's thread."""

    def __init__(self, schema: Schema, found: VersionFigures) -> None:
        self._schema = schema
        self._found = found
        self._latency = list(found.latency) or [0] * (N_EDGES + 1)
        self._rows_of: dict[int, int] = {}
        self._fresh: list[_Answered] = []
        self._n_fresh_rows = 0
        self.held: list[Packed] = []  # predictions that are in no profile yet
        self.n_held = 0

    def answered(self, key: int, seconds: float, outputs: Outputs) -> None:
        """Count a request of a sticky key."""
        self._fresh.append(_Answered(key, seconds, outputs))
        self._n_fresh_rows += len(outputs.prediction)
        if len(self._fresh) >= FOLDED or self._n_fresh_rows >= FOLDED_ROWS:
            self.fold()

    def failed(self) -> None:
        """Count a request that was answered 5xx."""
        found = self._found
        self._found = structs.replace(found, n_requests=found.n_requests + 1, n_failed=found.n_failed + 1)

    def fold(self) -> None:
        """Count what came since the last time; its predictions are held."""
        fresh, self._fresh, self._n_fresh_rows = self._fresh, [], 0
        if not fresh:
            return
        found, squares, n_failed = self._found, self._found.squares, 0
        is_bad = ~_is_finite([each.outputs for each in fresh])
        is_any_bad = bool(is_bad.any())
        end = 0
        for key, seconds, outputs in fresh:
            start, end = end, end + len(outputs.prediction)
            if is_any_bad and is_bad[start:end].any():
                n_failed += 1
            else:
                self._latency[place_of(seconds)] += 1
            squares += self._add_rows(key, end - start)
        self._found = structs.replace(
            found,
            n_requests=found.n_requests + len(fresh),
            n_failed=found.n_failed + n_failed,
            n_rows=found.n_rows + end,
            n_bad_rows=found.n_bad_rows + int(is_bad.sum()),
            squares=squares,
        )
        self.held.append(_packed(self._schema, [each.outputs for each in fresh], is_bad))
        self.n_held += end

    def bin(self, edges: Profile) -> None:
        """Count the held predictions over these edges."""
        if not self.held:
            return
        counted = count(edges, _columns(self._schema), _joined(self.held))
        known = self._found.predictions
        self._found = structs.replace(self._found, predictions=merge(known, counted) if known else counted)
        self.held, self.n_held = [], 0

    def figures(self) -> VersionFigures:
        """Return the counts as of the last fold."""
        return structs.replace(self._found, latency=tuple(self._latency))

    def _add_rows(self, key: int, n_rows: int) -> int:
        """Return how much the sum of squares grows."""
        before = self._rows_of.get(key, 0)
        if before or len(self._rows_of) < MOST_KEYS:
            self._rows_of[key] = before + n_rows
        return (before + n_rows) ** 2 - before**2


class Comparison:
    """A live version and the one beside it. For the event loop's thread.

    Parameters
    ----------
    beside : Beside
    schema : Schema
        Of both.
    found : Figures, optional
        What an earlier process of the endpoint counted; taken over where it is of the same release.

    Attributes
    ----------
    n_dropped : int
        Requests that a shadow could not take.
    """

    def __init__(self, beside: Beside, schema: Schema, found: Figures | None = None) -> None:
        if found is None or found.since != beside.since:
            found = Figures(since=beside.since, at=0.0, live=VersionFigures(), beside=VersionFigures())
        self.about = beside
        self.live, self.beside = Tally(schema, found.live), Tally(schema, found.beside)
        self.n_compared, self.n_agreed, self.n_dropped = found.n_compared, found.n_agreed, found.n_dropped
        self._schema = schema
        self._edges = found.live.predictions or found.beside.predictions
        self._shared: Edges | None = None

    def share(self, edges: Edges) -> None:
        """Count predictions over the edges that other processes of the endpoint count over too."""
        self._shared = edges
        if self._edges is not None:
            edges.offer(self._edges)

    @property
    def agreement_share(self) -> float:
        """Of a shadow's rows, those in which both versions agree; NaN where none was compared."""
        return self.n_agreed / self.n_compared if self.n_compared else float("nan")

    def fold(self) -> None:
        """Count what came since the last time."""
        for tally in (self.live, self.beside):
            tally.fold()
        if self._edges is None and self._shared is not None:
            self._edges = self._shared.look()
        is_enough = self.live.n_held >= FIRST_ROWS or self.live.n_held + self.beside.n_held > MOST_HELD
        if self._edges is None and is_enough:
            self._edges = build(_columns(self._schema), _joined(self.live.held or self.beside.held))
            if self._shared is not None:
                self._edges = self._shared.offer(self._edges)
        if self._edges is not None:
            self.live.bin(self._edges)
            self.beside.bin(self._edges)

    def agree(self, live: Outputs, shadow: Outputs) -> None:
        """Compare what both say of the same rows: the class, or numbers within 5 %."""
        with np.errstate(invalid="ignore"):
            if live.probability is None:
                is_alike = np.isclose(shadow.prediction, live.prediction, rtol=ALIKE, atol=1e-9).all(axis=1)
            else:
                is_alike = shadow.prediction == live.prediction
        self.n_compared += len(is_alike)
        self.n_agreed += int(is_alike.sum())

    def figures(self) -> Figures:
        """Return the figures of this moment."""
        self.fold()
        return Figures(
            since=self.about.since,
            at=time.time(),
            live=self.live.figures(),
            beside=self.beside.figures(),
            n_compared=self.n_compared,
            n_agreed=self.n_agreed,
            n_dropped=self.n_dropped,
        )


def _columns(schema: Schema) -> Schema:
    """Return the columns in which predictions are counted: of two classes, the probability of the positive one."""
    if len(schema.classes) == 2:
        name = f"(probability of {schema.classes[schema.positive_index]})"
        return Schema(columns=(Column(name=name, kind="number"),))
    return schema_of_predictions(schema)


def _packed(schema: Schema, outputs: list[Outputs], is_bad: NDArray[np.bool_]) -> Packed:
    """Pack predictions [N]; those that are not finite are missing."""
    if len(schema.classes) == 2:
        shares = np.concatenate([_shares(each)[:, schema.positive_index] for each in outputs]).astype(np.float64)
        shares[is_bad] = np.nan
        return Packed(shares[:, None], np.empty((len(shares), 0), dtype=object))
    prediction = np.concatenate([each.prediction for each in outputs])
    if is_classes(schema):
        labels = np.array(schema.classes, dtype=object)[prediction]
        labels[is_bad] = SENTINEL
        return pack_predictions(schema, labels)
    return pack_predictions(schema, np.where(is_bad[:, None], np.nan, prediction))


def _is_finite(outputs: list[Outputs]) -> NDArray[np.bool_]:
    """Return of each row [N] whether all of its outputs are finite."""
    values: Any = [each.prediction if each.probability is None else each.probability for each in outputs]
    found: NDArray[np.bool_] = np.isfinite(np.concatenate(values)).all(axis=1)
    return found


def _shares(outputs: Outputs) -> NDArray[np.float32]:
    assert outputs.probability is not None
    return outputs.probability


def _joined(parts: list[Packed]) -> Packed:
    return Packed(np.concatenate([part.num for part in parts]), np.concatenate([part.txt for part in parts]))
