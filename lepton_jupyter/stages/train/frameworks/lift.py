"""Lift a pipeline's known steps into our preprocessing plan; what is left of it goes through skl2onnx.

skl2onnx refuses string imputers on missing values and scales in float32, which moves values over the thresholds of
trees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import msgspec
import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.validation import check_array

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.data.plan import LevelsStep, MissingStep, NumberStep, OneHotStep, OrdinalStep, Plan

KNOWN = "SimpleImputer, StandardScaler, MinMaxScaler, RobustScaler, MaxAbsScaler, OneHotEncoder, OrdinalEncoder"


@dataclass(frozen=True)
class Lifted:
    """A plan, and the estimator (or what is left of a pipeline) that takes its features."""

    plan: Plan
    rest: Any


@dataclass(frozen=True)
class _Text:
    """A text column on its way to an encoder; a missing value may be filled already."""

    column: str
    fill: str | None = None


_Piece: TypeAlias = _Text | NumberStep | MissingStep | LevelsStep | OneHotStep | OrdinalStep
_SCALABLE = (NumberStep, MissingStep, OrdinalStep)


class _CannotLiftError(Exception):
    """A step is not among the known ones, or set in a way that a plan cannot say."""


def lift(estimator: Any, schema: Schema, name: str) -> Lifted:
    """Return the plan of an estimator's first steps, and what is left.

    Parameters
    ----------
    estimator : fitted estimator or Pipeline
        It takes the schema's columns in their order.
    schema : Schema
    name : str
        The model as typed, for messages.

    Raises
    ------
    LeptonError
        With code ``refused`` if text reaches a step that is not known.
    """
    pieces: list[_Piece] = [
        _Text(column.name) if column.is_text else NumberStep(column=column.name) for column in schema.columns
    ]
    steps = list(estimator.steps) if isinstance(estimator, Pipeline) else [("estimator", estimator)]
    why = ""
    while len(steps) > 1:
        try:
            pieces = _through(steps[0][1], pieces)
        except _CannotLiftError as error:
            why = str(error)
            break
        steps.pop(0)
    encoding = encoding_of(steps[0][1]) if len(steps) == 1 else None
    if encoding is not None:
        try:
            pieces = _through(encoding, pieces)
        except _CannotLiftError as error:
            raise _encoding_refused(name, str(error)) from error
    text = [piece.column for piece in pieces if isinstance(piece, _Text)]
    if text:
        raise LeptonError(
            f"'{name}' cannot be exported: the text of column '{text[0]}' reaches {why or type(steps[0][1]).__name__}.",
            f"Known steps for columns: {KNOWN}, in a Pipeline or ColumnTransformer.",
            code="refused",
        )
    plan = Plan(
        steps=tuple(piece for piece in pieces if not isinstance(piece, _Text)),
        num=tuple(column.name for column in schema.num),
        txt=tuple(column.name for column in schema.txt),
        mode="lifted",
    )
    return Lifted(plan, steps[0][1] if len(steps) == 1 else Pipeline(steps))


def encoding_of(estimator: Any) -> Any | None:
    """Return what HistGradientBoosting makes of categories before its trees see them: an encoder, or None."""
    return getattr(estimator, "_preprocessor", None)


def refuse_encoding(estimator: Any, name: str) -> None:
    """Raise `LeptonError` (``refused``) for one that encodes features of ours as categories."""
    if encoding_of(estimator) is not None:
        raise _encoding_refused(name, "OrdinalEncoder of numbers")


def _encoding_refused(name: str, why: str) -> LeptonError:
    return LeptonError(
        f"'{name}' cannot be exported: its categorical_features reach {why}.",
        "Let categories be text columns of a table, and the estimator the last step of a Pipeline, or leave "
        "categorical_features out.",
        code="refused",
    )


def _through(transformer: Any, pieces: list[_Piece]) -> list[_Piece]:
    """Return what a fitted transformer makes of the pieces."""
    if transformer is None or transformer == "passthrough":
        return pieces
    if isinstance(transformer, str) and transformer == "drop":
        return []
    if isinstance(transformer, Pipeline):
        for _, step in transformer.steps:
            pieces = _through(step, pieces)
        return pieces
    if isinstance(transformer, ColumnTransformer):
        return _columns(transformer, pieces)
    if isinstance(transformer, FunctionTransformer) and _changes_nothing(transformer.func):
        return pieces
    if isinstance(transformer, SimpleImputer):
        return _impute(transformer, pieces)
    if isinstance(transformer, OneHotEncoder):
        return [_onehot(transformer, place, piece) for place, piece in enumerate(pieces)]
    if isinstance(transformer, OrdinalEncoder):
        return [_ordinal(transformer, place, piece) for place, piece in enumerate(pieces)]
    if isinstance(transformer, MinMaxScaler):
        return _ranged(transformer, pieces)
    if isinstance(transformer, (StandardScaler, RobustScaler, MaxAbsScaler)):
        centers, scales = _scaling(transformer, len(pieces))
        return [_scaled(*each) for each in zip(pieces, centers, scales, strict=True)]
    raise _CannotLiftError(type(transformer).__name__)


def _changes_nothing(function: Any) -> bool:
    return function is None or (isinstance(function, partial) and function.func is check_array)


def _columns(transformer: ColumnTransformer, pieces: list[_Piece]) -> list[_Piece]:
    out: list[_Piece] = []
    for label, part, _ in transformer.transformers_:
        indices = transformer._transformer_to_input_indices[label]  # names, slices, masks, callables: resolved by fit
        out += _through(part, [pieces[index] for index in indices])
    return out


def _impute(imputer: SimpleImputer, pieces: list[_Piece]) -> list[_Piece]:
    if not _is_nan(imputer.missing_values):
        raise _CannotLiftError(f"SimpleImputer(missing_values={imputer.missing_values!r})")
    out: list[_Piece] = []
    for piece, fill in zip(pieces, imputer.statistics_, strict=True):
        if _is_nan(fill):
            continue  # a column without any value: the imputer leaves it out
        if isinstance(piece, _Text):
            out.append(piece if piece.fill is not None else replace(piece, fill=str(fill)))
        elif isinstance(piece, (NumberStep, OrdinalStep)):
            raw = piece.raw(float(fill)) if isinstance(piece, NumberStep) else float(fill) * piece.scale + piece.center
            out.append(piece if piece.fill is not None else msgspec.structs.replace(piece, fill=raw))
        else:
            out.append(piece)  # it is never missing
    indicator = getattr(imputer, "indicator_", None)
    if imputer.add_indicator and indicator is not None:
        out += [_is_missing(pieces[place]) for place in indicator.features_]
    return out


def _is_missing(piece: _Piece) -> _Piece:
    if isinstance(piece, NumberStep) and piece.fill is None:
        return MissingStep(column=piece.column)
    if isinstance(piece, _Text) and piece.fill is None:
        return OneHotStep(column=piece.column, categories=(), places=(), width=1, missing=0, other=1)
    raise _CannotLiftError("SimpleImputer(add_indicator=True)")


def _ranged(scaler: MinMaxScaler, pieces: list[_Piece]) -> list[_Piece]:
    if scaler.clip:
        raise _CannotLiftError("MinMaxScaler(clip=True)")
    out: list[_Piece] = []
    for piece, factor, shift in zip(pieces, scaler.scale_.tolist(), scaler.min_.tolist(), strict=True):
        if isinstance(piece, NumberStep) and piece.factor == 1.0 and piece.shift == 0.0:
            out.append(msgspec.structs.replace(piece, factor=factor, shift=shift))  # rounded as the scaler does
        else:
            out.append(_scaled(piece, -shift / factor, 1.0 / factor))
    return out


def _scaling(scaler: Any, n: int) -> tuple[list[float], list[float]]:
    """Return center and scale of each feature: ``(x - center) / scale``."""
    centers = getattr(scaler, "center_", None) if isinstance(scaler, RobustScaler) else getattr(scaler, "mean_", None)
    if isinstance(scaler, StandardScaler) and not scaler.with_mean:
        centers = None
    scales = getattr(scaler, "scale_", None)
    return (
        [0.0] * n if centers is None else centers.tolist(),
        [1.0] * n if scales is None else scales.tolist(),
    )


def _scaled(piece: _Piece, center: float, scale: float) -> _Piece:
    if not isinstance(piece, _SCALABLE):
        raise _CannotLiftError(f"a scaler behind {type(piece).__name__.removesuffix('Step')}")
    if isinstance(piece, NumberStep) and (piece.factor != 1.0 or piece.shift):
        piece = msgspec.structs.replace(
            piece,
            center=piece.raw(0.0),
            scale=piece.scale / piece.factor,
            factor=1.0,
            shift=0.0,
        )
    return msgspec.structs.replace(piece, center=piece.center + piece.scale * center, scale=piece.scale * scale)


def _onehot(encoder: OneHotEncoder, place: int, piece: _Piece) -> _Piece:
    if encoder.min_frequency is not None or encoder.max_categories is not None:
        raise _CannotLiftError("OneHotEncoder(min_frequency=…)")
    categories = list(encoder.categories_[place])
    dropped = None if encoder.drop_idx_ is None else encoder.drop_idx_[place]
    kept = [index for index in range(len(categories)) if index != dropped]
    width = len(kept)
    places = [kept.index(index) if index in kept else width for index in range(len(categories))]
    if isinstance(piece, NumberStep) and piece == NumberStep(column=piece.column, fill=piece.fill):
        levels = tuple(None if _is_nan(categories[index]) else float(categories[index]) for index in kept)
        return LevelsStep(column=piece.column, levels=levels, fill=piece.fill)
    if not isinstance(piece, _Text):
        raise _CannotLiftError("OneHotEncoder behind another step")
    known = {str(value): at for value, at in zip(categories, places, strict=True) if not _is_nan(value)}
    missing = next((at for value, at in zip(categories, places, strict=True) if _is_nan(value)), width)
    if piece.fill is not None:
        missing = known.get(piece.fill, width)
    return OneHotStep(
        column=piece.column,
        categories=tuple(known),
        places=tuple(known.values()),
        width=width,
        missing=missing,
        other=width,
    )


def _ordinal(encoder: OrdinalEncoder, place: int, piece: _Piece) -> _Piece:
    if not isinstance(piece, _Text) or encoder.min_frequency is not None or encoder.max_categories is not None:
        raise _CannotLiftError("OrdinalEncoder of numbers or with min_frequency")
    categories = list(encoder.categories_[place])
    known = {str(value): float(code) for code, value in enumerate(categories) if not _is_nan(value)}
    other = None if encoder.unknown_value is None else _number(encoder.unknown_value)
    has_missing = any(_is_nan(value) for value in categories)
    missing = _number(encoder.encoded_missing_value) if has_missing else other
    if piece.fill is not None:
        missing = known.get(piece.fill, other)
    return OrdinalStep(
        column=piece.column, categories=tuple(known), values=tuple(known.values()), missing=missing, other=other
    )


def _number(value: Any) -> float | None:
    return None if _is_nan(value) else float(value)


def _is_nan(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and bool(np.isnan(value)))
