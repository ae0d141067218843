"""The fitted preprocessing: from packed columns to a model's features, the same in numpy here and in ONNX (plan_graph).

A plan is an ordered list of small steps. Each reads one column and gives one or more features, so that any order that a
scikit-learn ColumnTransformer gives can be said. Everything is computed in float64 and cast to float32 at the end:
float32 before scaling loses dates, and moves values over the thresholds of trees.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import SENTINEL, Schema

Mode: TypeAlias = Literal["dense", "embed", "coded", "none"]


class NumberStep(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="number"):
    """``(x - center) / scale * factor + shift`` of a ``num`` column. One feature.

    A missing x is `fill` (None: it stays missing). Two ways to say a scaling, for each rounds as its scaler does.
    """

    column: str
    fill: float | None = None
    center: float = 0.0
    scale: float = 1.0
    factor: float = 1.0
    shift: float = 0.0

    def raw(self, feature: float) -> float:
        """Return the x of a feature."""
        return (feature - self.shift) / self.factor * self.scale + self.center


class MissingStep(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="missing"):
    """1 where a ``num`` column is missing, else 0; then ``(x - center) / scale``. One feature."""

    column: str
    center: float = 0.0
    scale: float = 1.0


class LevelsStep(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="levels"):
    """One feature for each level of a ``num`` column: 1 where x equals it. The level None stands for missing."""

    column: str
    levels: tuple[float | None, ...]
    fill: float | None = None


class OneHotStep(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="onehot"):
    """`width` features of a ``txt`` column, 1 at the value's place.

    Attributes
    ----------
    categories : tuple of str
    places : tuple of int
        The feature of each category. One that is `width` or more gives zeros only (a dropped category).
    missing, other : int
        Likewise for a missing value and for one that is no category.
    """

    column: str
    categories: tuple[str, ...]
    places: tuple[int, ...]
    width: int
    missing: int
    other: int


class OrdinalStep(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="ordinal"):
    """A number for each value of a ``txt`` column, then ``(x - center) / scale``. One feature.

    Attributes
    ----------
    categories : tuple of str
    values : tuple of float or None
        The number of each category; None is NaN.
    missing, other : float or None
        Likewise for a missing value and for one that is no category.
    fill : float or None
        What a NaN becomes before scaling.
    """

    column: str
    categories: tuple[str, ...]
    values: tuple[float | None, ...]
    missing: float | None = None
    other: float | None = None
    fill: float | None = None
    center: float = 0.0
    scale: float = 1.0


class CodeStep(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="code"):
    """A code for an embedding: the category's place, then one code for missing and one for unseen values."""

    column: str
    categories: tuple[str, ...]

    @property
    def cardinality(self) -> int:
        """Codes are 0 … cardinality - 1."""
        return len(self.categories) + 2


Step: TypeAlias = NumberStep | MissingStep | LevelsStep | OneHotStep | OrdinalStep | CodeStep


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fitted preprocessing, JSON-ready.

    Attributes
    ----------
    steps : tuple of Step
        The numeric features in the steps' order; codes in the order of the `CodeStep`.
    num, txt : tuple of str
        Names of the packed columns, in their order.
    mode : str
        ``dense``, ``embed``, ``coded``, ``none``, or ``lifted`` for one made from a scikit-learn pipeline.
    """

    steps: tuple[Step, ...]
    num: tuple[str, ...]
    txt: tuple[str, ...]
    mode: str = "dense"

    @property
    def n_features(self) -> int:
        """Numeric features: Fn."""
        return sum(width_of(step) for step in self.steps)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each categorical feature: Fc numbers."""
        return tuple(step.cardinality for step in self.steps if isinstance(step, CodeStep))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the numeric features, then of the codes."""
        numeric = [name for step in self.steps for name in _names(step)]
        return (*numeric, *(step.column for step in self.steps if isinstance(step, CodeStep)))


class Features(NamedTuple):
    """What a model gets: ``numeric`` float32 [N, Fn] and ``codes`` int64 [N, Fc] (Fc is 0 without a `CodeStep`)."""

    numeric: NDArray[np.float32]
    codes: NDArray[np.int64]


def width_of(step: Step) -> int:
    """Return how many numeric features a step gives."""
    if isinstance(step, CodeStep):
        return 0
    if isinstance(step, LevelsStep):
        return len(step.levels)
    return step.width if isinstance(step, OneHotStep) else 1


def _names(step: Step) -> list[str]:
    if isinstance(step, CodeStep):
        return []
    if isinstance(step, MissingStep):
        return [f"{step.column}_is_missing"]
    if isinstance(step, LevelsStep):
        return [f"{step.column}={'missing' if level is None else f'{level:g}'}" for level in step.levels]
    if not isinstance(step, OneHotStep):
        return [step.column]
    names: list[list[str]] = [[] for _ in range(step.width)]
    for label, place in (
        *zip(step.categories, step.places, strict=True),
        ("missing", step.missing),
        ("other", step.other),
    ):
        if place < step.width:
            names[place].append(label)
    return [f"{step.column}={'|'.join(labels)}" for labels in names]


def fit_plan(schema: Schema, packed: Packed, *, mode: Mode = "dense") -> Plan:
    """Fit the preprocessing on the training rows.

    Parameters
    ----------
    schema : Schema
    packed : Packed
        The training rows.
    mode : str
        ``dense``: numbers filled with the median (and a feature that says where one was missing), centred and
        scaled by mean and standard deviation; text one-hot, with a feature of its own for missing (where
        training has one) and for values never seen. ``embed``: text as codes. ``coded``, for trees that take
        categories and holes: numbers as they are, text as the number of its category, NaN for missing and unseen.
        ``none``: numbers as they are, NaN included.

    Raises
    ------
    LeptonError
        If the mode is ``none`` and there are columns of text.
    """
    if mode == "none":
        if schema.categorical:
            names = ", ".join(column.name for column in schema.categorical)
            raise LeptonError(
                f"--preprocess none changes nothing, but these columns are text: {names}.",
                f"Leave out --preprocess none, or make the dataset with --ignore {schema.categorical[0].name}.",
            )
        return _plan(schema, _as_they_are(schema), mode)
    if mode == "coded":
        return _plan(schema, (*_as_they_are(schema), *_fit_codes(schema, packed)), mode)
    numbers = [_fit_number(column.name, packed.num[:, place]) for place, column in enumerate(schema.num)]
    flags = [
        MissingStep(column=column.name)
        for place, column in enumerate(schema.num)
        if np.isnan(packed.num[:, place]).any()
    ]
    texts: list[OneHotStep] | list[CodeStep]
    if mode == "embed":
        texts = [
            CodeStep(column=column.name, categories=_categories(packed.txt[:, place]))
            for place, column in enumerate(schema.txt)
            if column.kind == "string"
        ]
    else:
        texts = [
            _fit_text(column.name, packed.txt[:, place])
            for place, column in enumerate(schema.txt)
            if column.kind == "string"
        ]
    return _plan(schema, (*numbers, *flags, *texts), mode)


def _plan(schema: Schema, steps: tuple[Step, ...], mode: str) -> Plan:
    num = tuple(column.name for column in schema.num)
    return Plan(steps=steps, num=num, txt=tuple(column.name for column in schema.txt), mode=mode)


def _as_they_are(schema: Schema) -> tuple[NumberStep, ...]:
    return tuple(NumberStep(column=column.name) for column in schema.num)


def _fit_codes(schema: Schema, packed: Packed) -> list[OrdinalStep]:
    steps = []
    for place, column in enumerate(schema.txt):
        categories = _categories(packed.txt[:, place])
        values = tuple(float(code) for code in range(len(categories)))
        steps.append(OrdinalStep(column=column.name, categories=categories, values=values))
    return steps


def _fit_number(name: str, values: NDArray[np.float64]) -> NumberStep:
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return NumberStep(column=name, fill=0.0)
    fill = float(np.median(present))
    filled = np.where(np.isnan(values), fill, values)
    center, spread = float(filled.mean()), float(filled.std())
    if float(np.ptp(present)) == 0.0:  # its mean and spread are off by rounding
        return NumberStep(column=name, fill=fill, center=fill)
    return NumberStep(column=name, fill=fill, center=center, scale=spread if spread > 1e-12 * abs(center) else 1.0)


def _categories(values: NDArray[np.object_]) -> tuple[str, ...]:
    return tuple(sorted(set(values.tolist()) - {SENTINEL}))


def _fit_text(name: str, values: NDArray[np.object_]) -> OneHotStep:
    categories = _categories(values)
    n = len(categories)
    has_missing = bool((values == SENTINEL).any())
    return OneHotStep(
        column=name,
        categories=categories,
        places=tuple(range(n)),
        width=n + 1 + has_missing,
        missing=n + 1 if has_missing else n,
        other=n,
    )


def apply_plan(plan: Plan, packed: Packed) -> Features:
    """Return the features of packed rows.

    Parameters
    ----------
    plan : Plan
    packed : Packed
        N rows, their columns as ``plan.num`` and ``plan.txt`` say.
    """
    num = {name: packed.num[:, place] for place, name in enumerate(plan.num)}
    txt = {name: packed.txt[:, place] for place, name in enumerate(plan.txt)}
    numeric = np.empty((packed.n_rows, plan.n_features), np.float32)
    codes = np.empty((packed.n_rows, len(plan.cardinalities)), np.int64)
    place = code_place = 0
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite in the graph too
        for step in plan.steps:
            if isinstance(step, CodeStep):
                n = len(step.categories)
                codes[:, code_place] = lookup(
                    txt[step.column], step.categories, tuple(range(n)), missing=n, other=n + 1
                )
                code_place += 1
                continue
            width = width_of(step)
            numeric[:, place : place + width] = _apply(step, num, txt)
            place += width
    return Features(numeric, codes)


def _apply(step: Step, num: dict[str, NDArray[np.float64]], txt: dict[str, NDArray[np.object_]]) -> NDArray[np.float64]:
    """Return a step's features in float64: [N, width]."""
    if isinstance(step, NumberStep):
        scaled = (_filled(num[step.column], step.fill) - step.center) / step.scale
        return (scaled * step.factor + step.shift)[:, None]
    if isinstance(step, MissingStep):
        return ((np.isnan(num[step.column]).astype(np.float64) - step.center) / step.scale)[:, None]
    if isinstance(step, LevelsStep):
        values = _filled(num[step.column], step.fill)
        return np.column_stack(
            [np.isnan(values) if level is None else values == level for level in step.levels]
        ).astype(np.float64)
    if isinstance(step, OneHotStep):
        places = lookup(txt[step.column], step.categories, step.places, missing=step.missing, other=step.other)
        return (places[:, None] == np.arange(step.width)).astype(np.float64)
    if isinstance(step, OrdinalStep):
        n = len(step.categories)
        codes = lookup(txt[step.column], step.categories, tuple(range(n)), missing=n, other=n + 1)
        return ((_filled(ordinal_table(step)[codes], step.fill) - step.center) / step.scale)[:, None]
    raise TypeError(type(step).__name__)


def ordinal_table(step: OrdinalStep) -> NDArray[np.float64]:
    """Return the numbers of the categories, of missing and of other, float64 [n_categories + 2], None as NaN."""
    return np.array(
        [np.nan if value is None else value for value in (*step.values, step.missing, step.other)], np.float64
    )


def lookup(
    values: NDArray[np.object_], categories: tuple[str, ...], places: tuple[int, ...], *, missing: int, other: int
) -> NDArray[np.int64]:
    """Return the place of each text, int64 [N]."""
    known = {**dict(zip(categories, places, strict=True)), SENTINEL: missing}
    return np.fromiter((known.get(value, other) for value in values.tolist()), np.int64, len(values))


def _filled(values: NDArray[np.float64], fill: float | None) -> NDArray[np.float64]:
    return values if fill is None else np.where(np.isnan(values), fill, values)
