"""What XGBoost and LightGBM share: estimators and trained boosters, given holes and categories as they take them."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.data.plan import NumberStep, OrdinalStep, Plan, fit_plan
from lepton_jupyter.stages.train.frameworks.lift import Lifted
from lepton_jupyter.stages.train.frameworks.sklearn import (
    SklearnFitted,
    SklearnFramework,
    frame_of,
    places_of,
    refuse_kind,
    refuse_tensors,
    refuse_unfitted,
)
from lepton_jupyter.stages.train.job import Job

Categories = dict[str, tuple[str, ...]]  # of each text column, in the order of their codes


@dataclass(frozen=True)
class Facts:
    """What a trained booster says of itself.

    Attributes
    ----------
    names : tuple of str
        Of its features; empty where they were given without names.
    n_features : int
    n_classes : int
        0 for a regression.
    categories : dict
        Those of features that were categories of text.
    """

    names: tuple[str, ...]
    n_features: int
    n_classes: int
    categories: Categories = field(default_factory=dict)


class Native:
    """A trained booster that answers as an estimator does."""

    def __init__(self, booster: Any, facts: Facts) -> None:
        self.booster = booster
        self.classes_ = np.arange(facts.n_classes)

    @abstractmethod
    def predict(self, given: Any) -> npt.NDArray[Any]:
        """Return what the booster says: numbers [N] or [N, T], or probabilities [N] or [N, K]."""

    @property
    @abstractmethod
    def feature_importances_(self) -> npt.NDArray[Any]:
        """Return how much each feature gained, float [F]."""

    def predict_proba(self, given: Any) -> npt.NDArray[Any]:
        """Return probabilities [N, K]."""
        found = self.predict(given)
        return found if found.ndim == 2 else np.column_stack([1 - found, found])


@dataclass
class BoostedFitted(SklearnFitted):
    """A booster, fed by our plan, or by a table whose text columns are categories.

    Attributes
    ----------
    categories : dict
        Of each text column; empty with a plan.
    is_named : bool
        Whether it was fitted on a DataFrame, and is given one.
    """

    categories: Categories = field(default_factory=dict)
    is_named: bool = False

    def columns(self, rows: Packed) -> Any:
        """Return what the booster is given. A category that it never saw is missing."""
        if self.plan is not None:
            return super().columns(rows)
        given = frame_of(self.schema, rows)
        for name, known in self.categories.items():
            given[name] = pd.Categorical(given[name], categories=list(known))
        return given if self.is_named else given.to_numpy(dtype=np.float64)

    def lifted(self) -> Lifted:
        """Return the codes of the categories as a plan, and the booster."""
        rest = self.estimator.booster if isinstance(self.estimator, Native) else self.estimator
        if self.plan is not None:
            return Lifted(self.plan, rest)
        steps = tuple(
            OrdinalStep(column=column.name, categories=known, values=tuple(float(code) for code in range(len(known))))
            if (known := self.categories.get(column.name)) is not None
            else NumberStep(column=column.name)
            for column in self.schema.columns
        )
        num = tuple(column.name for column in self.schema.num)
        return Lifted(Plan(steps=steps, num=num, txt=tuple(self.categories), mode="coded"), rest)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Return how much each feature gained."""
        return {"feature_importances_": np.asarray(self.estimator.feature_importances_, dtype=np.float64)}


class BoostingFramework(SklearnFramework):
    """Train a package's estimators as those of scikit-learn, and take over its boosters."""

    name = ""
    native: Callable[[Any, Facts], Native]
    fitted_type = BoostedFitted

    def recognises(self, model: Any) -> bool:
        """Whether it is an estimator or booster of the package, a class of them, or one made of one."""
        kind = model if inspect.isclass(model) else type(model)
        return any(base.__module__.partition(".")[0] == self.name for base in kind.__mro__)

    @abstractmethod
    def facts(self, model: Any) -> Facts:
        """Return what a trained model says of itself."""

    def is_native(self, model: Any) -> bool:
        """Whether it is a booster, not an estimator around one."""
        return not hasattr(model, "fit")

    def fit(self, model: Any, job: Job) -> SklearnFitted:
        """Fit a fresh clone on the training split."""
        __tracebackhide__ = True
        if self.is_native(model):
            raise LeptonError(
                f"'{job.name}' is a {type(model).__name__}, which is trained already.",
                f"Register it: lepton.save({job.name}, data=…), or train an estimator of {self.name}.",
            )
        return super().fit(model, job)

    def plan(self, job: Job, packed: Packed) -> Plan:
        """Return numbers as they are and text as codes: trees take holes and categories by themselves."""
        return fit_plan(job.schema, packed, mode="none" if job.spec.preprocess == "none" else "coded")

    def describe(self, model: Any, job: Job) -> dict[str, Any]:
        """Return the task and classes of a trained model."""
        if not self.is_native(model):
            return super().describe(model, job)
        n = self.facts(model).n_classes
        if n == 0:
            return {"task": "regression"}
        return {
            "task": "binary" if n == 2 else "multiclass",
            "classes": tuple(str(code) for code in range(n)),
            "class_kind": "integer",
            "positive": "1" if n == 2 else None,
        }

    def adopt(self, model: Any, job: Job) -> SklearnFitted:
        """Take over a trained model. It is given the raw columns, text as categories."""
        refuse_tensors(job)
        is_native = self.is_native(model)
        if not is_native:
            refuse_unfitted(model, job)
            refuse_kind(model, job)
        facts = self.facts(model)
        if (facts.n_classes > 0) is not (job.task != "regression") and is_native:
            found = f"tells {facts.n_classes} classes apart" if facts.n_classes else "predicts numbers"
            raise LeptonError(
                f"'{job.name}' {found}, and the task is {job.task}.", "Give the data that it was made for."
            )
        schema = _narrowed(facts, job)
        estimator = self.native(model, facts) if is_native else model
        fitted = BoostedFitted(
            estimator,
            schema,
            job.name,
            framework=self.name,
            categories=_categories(facts, schema, job.name),
            is_named=bool(facts.names),
        )
        if schema.task != "regression":
            fitted.places = places_of(estimator, schema, job.name)
        return fitted


def _narrowed(facts: Facts, job: Job) -> Schema:
    """Return the schema with the columns that a booster takes, in its order.

    Raises
    ------
    LeptonError
        If the dataset has not what it was fitted on.
    """
    schema = job.schema
    if not facts.names:
        if facts.n_features != len(schema.columns) or schema.txt:
            raise LeptonError(
                f"'{job.name}' was fitted on {facts.n_features} unnamed numbers; '{job.dataset.ref}' has "
                f"{len(schema.columns)} features, {len(schema.txt)} of them text.",
                "Fit it on a DataFrame, so that it knows its columns by name, or save it with example=.",
            )
        return schema
    by_name = {column.name.replace(" ", "_"): column for column in schema.columns}  # LightGBM writes no blanks
    by_name |= {column.name: column for column in schema.columns}
    missing = [name for name in facts.names if name not in by_name]
    if missing:
        raise LeptonError(
            f"'{job.name}' was fitted on columns that '{job.dataset.ref}' has not as features: "
            f"{', '.join(missing[:8])}.",
            f"It has: {', '.join(column.name for column in schema.columns[:12])}.",
        )
    columns = tuple(by_name[name] for name in facts.names)
    unused = tuple(column.name for column in schema.columns if column not in columns)
    return msgspec.structs.replace(schema, columns=columns, dropped=(*schema.dropped, *unused))


def _categories(facts: Facts, schema: Schema, name: str) -> Categories:
    """Return the categories of each text column, which a booster must know by name."""
    found: Categories = {}
    for column, own in zip(schema.columns, facts.names or [column.name for column in schema.columns], strict=True):
        if column.is_text and own in facts.categories:
            found[column.name] = facts.categories[own]
        elif column.is_text:
            raise LeptonError(
                f"'{name}' does not know which text in column '{column.name}' is which of its categories.",
                "Fit it on a DataFrame whose text columns are of the dtype 'category', or train it: "
                f"%lepton train {name} --data …",
            )
    clashing = [column.name for column in schema.num if column.name in facts.categories]
    if clashing:
        raise LeptonError(
            f"'{name}' takes '{clashing[0]}' as text categories, and its column here holds numbers.",
            "Give the data that it was fitted on.",
        )
    return found


def refuse_objective(objective: str, name: str) -> LeptonError:
    """Return the error for an objective whose answers a graph of ours cannot say."""
    return LeptonError(
        f"{name} with the objective '{objective}' cannot be exported: what follows its trees is not known here.",
        "Train with a usual objective of classification or regression.",
        code="refused",
    )
