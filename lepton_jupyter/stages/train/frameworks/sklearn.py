"""scikit-learn: estimators and pipelines."""

from __future__ import annotations

import copy
import inspect
import warnings
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.packing import Packed
from lepton_jupyter.formats.schema import SENTINEL, ColumnKind, Schema
from lepton_jupyter.stages.data.plan import Plan, apply_plan, fit_plan
from lepton_jupyter.stages.data.plan_graph import plan_graph
from lepton_jupyter.stages.data.target import label_of
from lepton_jupyter.stages.train.construct import construct
from lepton_jupyter.stages.train.frameworks.forests import forest_of, forests_in
from lepton_jupyter.stages.train.frameworks.lift import Lifted, lift, refuse_encoding
from lepton_jupyter.stages.train.frameworks.linear import linear_graph, linear_of
from lepton_jupyter.stages.train.frameworks.tree_graph import forest_graph
from lepton_jupyter.stages.train.frameworks.trees import plan_thresholds
from lepton_jupyter.stages.train.graph import OPSET, add_classes, add_head, align, join
from lepton_jupyter.stages.train.heads import Head, head_of_classes
from lepton_jupyter.stages.train.job import Given, Job, Outcome
from lepton_jupyter.stages.train.judged import headline
from lepton_jupyter.stages.train.preflight import refuse_flags
from lepton_jupyter.stages.train.randomness import seed_everything
from lepton_jupyter.stages.train.tokenizer import refuse_prose


@dataclass
class SklearnFitted:
    """A fitted estimator, fed either by our plan or by the table's own columns.

    Attributes
    ----------
    plan : Plan or None
        None where the estimator is a pipeline that reads columns itself.
    places : list of int
        For each class that the estimator knows, its place in the schema's classes.
    """

    estimator: Any
    schema: Schema
    name: str
    plan: Plan | None = None
    places: list[int] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    framework: str = "sklearn"
    tokenizer: bytes | None = None

    def predict(self, rows: Given) -> npt.NDArray[np.float64]:
        """Return probabilities [N, K] or predictions [N, T] of the live estimator."""
        assert isinstance(rows, Packed)  # a table: `fit` and `adopt` saw to it
        given = self.columns(rows)
        if self.schema.task == "regression":
            return np.asarray(self.estimator.predict(given), dtype=np.float64).reshape(rows.n_rows, -1)
        found = np.asarray(self.estimator.predict_proba(given), dtype=np.float64)
        answers = np.zeros((rows.n_rows, len(self.schema.classes)))
        answers[:, self.places] = found
        return answers

    def columns(self, rows: Packed) -> Any:
        """Return what the estimator is given: features by our plan, or a DataFrame of the raw columns."""
        if self.plan is not None:
            return apply_plan(self.plan, rows).numeric
        frame = frame_of(self.schema, rows)
        return frame if hasattr(self.estimator, "feature_names_in_") else frame.to_numpy(dtype=np.float64)

    def export(self) -> onnx.ModelProto:
        """Return the graph from raw columns to outputs."""
        lifted = self.lifted()
        model = _written(lifted, is_double=self.plan is None)  # our own plan's features are rounded to float32
        is_double = model is not None and self.plan is None
        if model is None:
            model = _convert(lifted.rest, lifted.plan.n_features, self.name)
        if self.schema.task == "regression":
            model = add_head(model, Head("identity", len(self.schema.targets) or 1))
        else:
            model = add_classes(model, self.places, len(self.schema.classes))
        plan = plan_graph(lifted.plan, self.schema, opset=OPSET, is_double=is_double)
        return join(plan, model, [("numeric", "features")])

    def lifted(self) -> Lifted:
        """Return the preprocessing as a plan, and what takes its features.

        Raises
        ------
        LeptonError
            With code ``refused`` where a plan cannot say it.
        """
        if self.plan is not None:
            refuse_encoding(self.estimator, self.name)
            return Lifted(self.plan, self.estimator)
        return lift(self.estimator, self.schema, self.name)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Return the fitted arrays: ``coef_``, ``intercept_`` …, of a pipeline those of its last step."""
        last = self.estimator[-1] if isinstance(self.estimator, Pipeline) else self.estimator
        return {
            name: np.atleast_1d(np.asarray(value))
            for name, value in vars(last).items()
            if name.endswith("_")
            and not name.startswith("_")
            and isinstance(value, (np.ndarray, float, np.floating))
            and np.asarray(value).dtype.kind in "fiu"
        }

    def thresholds(self) -> dict[str, list[float]]:
        """Return raw values at which trees decide, by number column."""
        found: dict[str, list[float]] = {}
        try:
            lifted = self.lifted()
            forests = forests_in(lifted.rest)
        except LeptonError:  # it will not be exported: nothing to compare
            return {}
        for forest in forests:
            for column, values in plan_thresholds(forest, lifted.plan).items():
                found.setdefault(column, []).extend(values)
        return found

    def close(self) -> None:
        """Do nothing: nothing runs beside it."""


class SklearnFramework:
    """Train scikit-learn estimators."""

    name = "sklearn"
    fitted_type = SklearnFitted

    def recognises(self, model: Any) -> bool:
        """Whether it is an estimator or a class of estimators."""
        if inspect.isclass(model):
            return issubclass(model, BaseEstimator)
        return isinstance(model, BaseEstimator)

    def fit(self, model: Any, job: Job) -> SklearnFitted:
        """Fit a fresh clone on the training split."""
        __tracebackhide__ = True
        refuse_flags(job.spec, job.name)
        refuse_tensors(job)
        seed_everything(job.spec.seed)
        made = construct(model, {}, job.spec.params, name=job.name, data=job.data_name)
        estimator = _settled(clone(made), job)
        refuse_kind(estimator, job)
        packed = job.dataset.packed("train")
        plan = None if reads_columns(estimator) else self.plan(job, packed)
        fitted = self.fitted_type(estimator, job.schema, job.name, plan, framework=self.name)
        targets = job.targets("train")
        started = perf_counter()
        is_one = job.task == "regression" and targets.shape[1] == 1
        given = fitted.columns(packed) if plan is not None else frame_of(job.schema, packed)
        self.learn(fitted, given, targets[:, 0] if is_one else targets)
        rows_per_s = packed.n_rows / max(perf_counter() - started, 1e-9)
        if job.task != "regression":
            fitted.places = [int(code) for code in estimator.classes_]
        fitted.outcome = self._outcome(fitted, job, rows_per_s)
        return fitted

    def plan(self, job: Job, packed: Packed) -> Plan:
        """Return the preprocessing of an estimator that brings none."""
        return fit_plan(job.schema, packed, mode="none" if job.spec.preprocess == "none" else "dense")

    def learn(self, fitted: SklearnFitted, given: Any, target: npt.NDArray[Any]) -> None:
        """Fit the estimator on what it is given."""
        fitted.estimator.fit(given, target)

    def _outcome(self, fitted: SklearnFitted, job: Job, rows_per_s: float) -> Outcome:
        head = Head("identity", job.n_outputs) if job.task == "regression" else head_of_classes(job.schema)
        metrics = {"rows_per_s": rows_per_s}
        for split, prefix in (("train", "train_"), ("validation", "val_")):
            if split in job.dataset.splits():
                answers = fitted.predict(job.dataset.packed(split))
                metrics |= headline(answers, job.targets(split), head, prefix=prefix)
        notes = {"seed": job.spec.seed, "device": "cpu", "estimator": type(fitted.estimator).__name__}
        for key, value in notes.items():
            job.session.note(key, value)
        job.session.log(step=1, **metrics)
        job.session.progress(1, 1, "fits")
        return Outcome(metrics=metrics, notes=notes)

    def describe(self, model: Any, job: Job) -> dict[str, Any]:
        """Return the task and classes of a fitted estimator."""
        refuse_unfitted(model, job)
        if is_regressor(model):
            return {"task": "regression"}
        labels = [_plain(label) for label in getattr(model, "classes_", ())]
        kinds: dict[type, ColumnKind] = {bool: "boolean", int: "integer"}
        texts = tuple(label_of(label) for label in labels)
        return {
            "task": "binary" if len(texts) == 2 else "multiclass",
            "classes": texts,
            "class_kind": kinds.get(type(labels[0]), "string") if labels else "string",
            "positive": texts[1] if len(texts) == 2 else None,
        }

    def adopt(self, model: Any, job: Job) -> SklearnFitted:
        """Take over a fitted estimator. It is given the raw columns; its preprocessing is its own."""
        refuse_unfitted(model, job)
        refuse_kind(model, job)
        refuse_tensors(job)
        schema = _narrowed(model, job)
        fitted = SklearnFitted(model, schema, job.name)
        if schema.task != "regression":
            fitted.places = places_of(model, schema, job.name)
        return fitted


def reads_columns(estimator: Any) -> bool:
    """Whether an estimator brings its own preprocessing: a pipeline of several steps."""
    return isinstance(estimator, Pipeline) and len(estimator.steps) > 1


def frame_of(schema: Schema, rows: Packed) -> pd.DataFrame:
    """Return packed rows as the DataFrame that a pipeline reads: numbers float64, text object, missing NaN."""
    num = {column.name: rows.num[:, place] for place, column in enumerate(schema.num)}
    txt = {column.name: rows.txt[:, place] for place, column in enumerate(schema.txt)}
    frame = pd.DataFrame(index=range(rows.n_rows))
    columns: dict[str, Any] = {}
    for column in schema.columns:
        if column.is_text:
            values = txt[column.name].astype(object)
            values[values == SENTINEL] = np.nan
            columns[column.name] = pd.Series(values, dtype=object)
        else:
            columns[column.name] = num[column.name]
    return pd.DataFrame(columns, index=frame.index)


def refuse_tensors(job: Job) -> None:
    """Raise `LeptonError` for data that is no table."""
    refuse_prose(job)
    if job.schema.tensor_shape is not None:
        raise LeptonError(
            f"'{job.dataset.ref}' holds arrays of shape {list(job.schema.tensor_shape)}; scikit-learn takes tables.",
            "Flatten them, or train a torch module.",
        )


def _settled(estimator: Any, job: Job) -> Any:
    """Return the estimator with its random states seeded and its classes weighted, where it leaves them open."""
    params = estimator.get_params()
    seeds = {key: job.spec.seed for key, value in params.items() if key.endswith("random_state") and value is None}
    if seeds:
        estimator.set_params(**seeds)
    if job.spec.class_weight == "balanced":
        keys = [key for key in params if key.split("__")[-1] == "class_weight"]
        if not keys:
            raise LeptonError(
                f"--class-weight means nothing for '{job.name}': {type(estimator).__name__} has no class_weight.",
                "Leave it out.",
            )
        estimator.set_params(**dict.fromkeys(keys, "balanced"))
    return estimator


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def refuse_unfitted(model: Any, job: Job) -> None:
    """Raise `LeptonError` for an estimator that was not fitted."""
    if inspect.isclass(model):
        raise LeptonError(f"'{job.name}' is a class, not a fitted estimator.", "Give the instance that was fitted.")
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise LeptonError(
            f"'{job.name}' is not fitted yet.", f"Call its fit first, or train it: %lepton train {job.name} --data …"
        ) from error


def refuse_kind(estimator: Any, job: Job) -> None:
    """Raise `LeptonError` for an estimator that does not fit the task."""
    is_regression = job.task == "regression"
    if is_regression and not is_regressor(estimator):
        raise LeptonError(
            f"'{job.name}' is no regressor, and the target '{', '.join(job.schema.targets)}' is a number.",
            "Name a regressor, or say --task multiclass.",
        )
    if not is_regression and not is_classifier(estimator):
        raise LeptonError(
            f"'{job.name}' is no classifier, and the task is {job.task}.",
            "Name a classifier, or say --task regression.",
        )
    if not is_regression and not hasattr(estimator, "predict_proba"):
        raise LeptonError(
            f"'{job.name}' ({type(estimator).__name__}) gives no probabilities.",
            "Wrap it: CalibratedClassifierCV(estimator) from sklearn.calibration.",
        )


def _narrowed(model: Any, job: Job) -> Schema:
    """Return the schema with the columns that a fitted estimator takes.

    Raises
    ------
    LeptonError
        If the dataset has not what it was fitted on.
    """
    schema = job.schema
    names = [str(name) for name in getattr(model, "feature_names_in_", [])]
    by_name = {column.name: column for column in schema.columns}
    if names:
        missing = [name for name in names if name not in by_name]
        if missing:
            raise LeptonError(
                f"'{job.name}' was fitted on columns that '{job.dataset.ref}' has not as features: "
                f"{', '.join(missing[:8])}.",
                f"It has: {', '.join(list(by_name)[:12])}.",
            )
        unused = tuple(name for name in by_name if name not in names)
        return msgspec.structs.replace(
            schema, columns=tuple(by_name[name] for name in names), dropped=(*schema.dropped, *unused)
        )
    n = getattr(model, "n_features_in_", len(schema.columns))
    if n != len(schema.columns) or schema.txt:
        text = f", {len(schema.txt)} of them text" if schema.txt else ""
        raise LeptonError(
            f"'{job.name}' was fitted on {n} unnamed numbers; '{job.dataset.ref}' has {len(schema.columns)} "
            f"features{text}.",
            "Fit it on a DataFrame, so that it knows its columns by name, or save it with example= instead of data=.",
        )
    return schema


def places_of(model: Any, schema: Schema, name: str) -> list[int]:
    """Return the place of each of the estimator's classes among the schema's."""
    places = []
    for label in model.classes_:
        text = label_of(_plain(label))
        if text not in schema.classes:
            raise LeptonError(
                f"'{name}' knows the class '{text}', which the target '{', '.join(schema.targets)}' has not: "
                f"{', '.join(schema.classes[:12])}.",
                "Save it with the dataset that it was fitted on.",
            )
        places.append(schema.classes.index(text))
    return places


def _written(lifted: Lifted, *, is_double: bool) -> onnx.ModelProto | None:
    """Return a graph of our own, from ``features`` [N, F]; None where the estimator is left to skl2onnx."""
    forest = forest_of(lifted.rest)
    if forest is not None:
        return forest_graph(forest, lifted.plan.n_features, is_double=is_double)
    linear = linear_of(lifted.rest)
    return None if linear is None else linear_graph(linear, is_double=is_double)


def _convert(estimator: Any, n_features: int, name: str) -> onnx.ModelProto:
    """Return the graph of an estimator by skl2onnx, from ``features`` float32 [N, F].

    Raises
    ------
    LeptonError
        With code ``refused`` if skl2onnx cannot.
    """
    if isinstance(estimator, VotingClassifier):  # how it transforms, which skl2onnx refuses, is not asked for here
        estimator = copy.copy(estimator).set_params(flatten_transform=False)
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = convert_sklearn(
                estimator,
                name="model",  # without a name it makes one up, another each time
                initial_types=[("features", FloatTensorType([None, n_features]))],
                target_opset={"": 18, "ai.onnx.ml": 3},
                options=options,
            )
    except Exception as error:  # skl2onnx raises what it likes
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise LeptonError(
            f"'{name}' cannot be exported: skl2onnx does not take {type(estimator).__name__} here.",
            first.strip()[:300],
            code="refused",
        ) from error
    return align(model)
