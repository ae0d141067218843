"""The verbs as functions: ``lepton.train(TumorNet, data="wdbc", epochs=30, hidden=32)``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

from lepton_jupyter.core.errors import LeptonError, did_you_mean
from lepton_jupyter.faces import help as helping
from lepton_jupyter.faces.arguments import Field, build, fields_of, render, usage
from lepton_jupyter.faces.asker import Asker, shell_here
from lepton_jupyter.faces.verbs import VERBS, Command
from lepton_jupyter.stages.verbs import Verb

PROG = "lepton."
TAKES_OBJECTS = {
    "data": ("source",),
    "train": ("model", "data", "optimizer", "loss", "lr_scheduler", "augment"),
    "tune": ("model", "data", "optimizer", "loss", "lr_scheduler", "augment"),
    "predict": ("rows",),
    "feedback": ("labels",),
}  # a value in place of a word; other positions take references, or our objects that have one
TAKES_PARAMS = frozenset({"train", "tune"})  # an unknown keyword goes to the model


def function(verb: str) -> Callable[..., Any]:
    """Return the function of a verb. Its signature and docstring are the struct's."""
    command = VERBS[verb]

    def call(*args: Any, **keywords: Any) -> Any:
        asker = asker_of(sys._getframe(1))
        spec, objects = read(command, asker, args, keywords)
        asker.command = f"%lepton {render(spec)}"
        return command.load()(asker, spec, objects)

    call.__name__ = call.__qualname__ = verb.replace("-", "_")
    call.__module__ = "lepton_jupyter"
    call.__doc__ = helping.page(command.spec)
    call.__signature__ = _signature(command.spec)  # type: ignore[attr-defined]  # what inspect and completion read
    return call


def asker_of(frame: FrameType | None) -> Asker:
    """Return who calls: the notebook's names, with the calling function's own on top."""
    shell = shell_here()
    namespace: Mapping[str, Any] = shell.user_ns if shell is not None else vars(sys.modules["__main__"])
    if frame is not None and frame.f_locals is not namespace and frame.f_locals is not frame.f_globals:
        namespace = {**namespace, **frame.f_globals, **frame.f_locals}
    elif frame is not None and shell is None:
        namespace = frame.f_globals
    return Asker("python", namespace=namespace, shell=shell)


def _signature(spec: type[Verb]) -> inspect.Signature:
    either, only = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = []
    for field in fields_of(spec).values():
        if field.is_positional and field.kind == "repeat":
            parameters.append(inspect.Parameter(field.name, inspect.Parameter.VAR_POSITIONAL))
            continue
        default = inspect.Parameter.empty if field.is_required else field.default
        parameters.append(inspect.Parameter(field.name, either if field.is_positional else only, default=default))
    if spec.verb in TAKES_PARAMS:
        parameters.append(inspect.Parameter("model_params", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)


def read(
    command: Command, asker: Asker, args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[Verb, dict[str, Any]]:
    """Return the struct, and the objects that were given in place of text.

    Raises
    ------
    LeptonError
        As `arguments.parse`; and for a keyword that the verb does not have (of train: it goes to the model).
    """
    spec = command.spec
    values = _placed(spec, args)
    fields = fields_of(spec)
    for name, value in keywords.items():
        if name in values:
            raise LeptonError(f"lepton.{spec.verb} got '{name}' twice.", f"Usage: {usage(spec)}")
        if name in fields:
            values[name] = value
        elif spec.verb in TAKES_PARAMS:
            values["params"] = {**dict(keywords.get("params") or {}), **values.get("params", {}), name: value}
        else:
            raise LeptonError(
                f"lepton.{spec.verb} has no '{name}'. Known: {', '.join(fields)}.{did_you_mean(name, fields)}",
                f"Type 'lepton.{spec.verb}?' for what they mean.",
                code="not_found",
            )
    if spec.verb in TAKES_PARAMS and isinstance(keywords.get("params"), Mapping):
        values["params"] = {**keywords["params"], **values.get("params", {})}
    return _built(spec, asker, values)


def _placed(spec: type[Verb], args: tuple[Any, ...]) -> dict[str, Any]:
    fields = fields_of(spec)
    values: dict[str, Any] = {}
    rest = list(args)
    for name in spec.positional:
        if fields[name].kind == "repeat":
            values[name], rest = tuple(rest), []
        elif rest:
            values[name] = rest.pop(0)
    if rest:
        raise LeptonError(f"lepton.{spec.verb} has no place for {rest[0]!r:.60}.", f"Usage: {usage(spec)}")
    return values


def _built(spec: type[Verb], asker: Asker, values: dict[str, Any]) -> tuple[Verb, dict[str, Any]]:
    fields = fields_of(spec)
    objects: dict[str, Any] = {}
    takes = TAKES_OBJECTS.get(spec.verb, ())
    for name, value in list(values.items()):
        if name in takes and fields[name].kind == "repeat":
            values[name] = _words_for(asker, name, value, objects)
        elif name in takes and not isinstance(value, str):
            text = getattr(value, "ref", None) if name in ("data",) else None
            if isinstance(text, str):
                values[name] = text
            else:
                objects[name] = _with_table(value)
                values[name] = _word_for(asker, name, value)
        else:
            values[name] = _plain(fields[name], value)
    return build(spec, values), objects


def _words_for(asker: Asker, name: str, value: Any, objects: dict[str, Any]) -> tuple[str, ...]:
    """Return the words of several values, and put those that are objects beside, as ``name:word``."""
    words = []
    for item in value if isinstance(value, list | tuple) else [value] if value is not None else []:
        word = item if isinstance(item, str) else _word_for(asker, name, item)
        if not isinstance(item, str):
            objects[f"{name}:{word}"] = item
        words.append(word)
    return tuple(words)


def _with_table(value: Any) -> Any:
    """Return the rows of a dataset's card, anything else as it is."""
    return value.table() if hasattr(value, "record") and hasattr(value, "table") else value


def _word_for(asker: Asker, name: str, value: Any) -> str:
    """Return the word that a record shows for an object: its name in the notebook, else its class's."""
    from lepton_jupyter.faces.flows.meaning import name_of

    own = getattr(value, "__name__", None)
    return name_of(asker, value) or (own if isinstance(own, str) and own.isidentifier() else type(value).__name__)


def _plain(field: Field, value: Any) -> Any:
    """Return what a person gives in Python as the struct takes it: our objects by reference, shares as text."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if field.kind == "repeat":
        return tuple(_reference(item) for item in ([value] if isinstance(value, str) else value))
    if field.kind == "pairs":
        if not isinstance(value, Mapping):
            raise LeptonError(f"{field.name} is {value!r:.60}; wanted: a dict.", field.help.capitalize() + ".")
        return dict(value)
    if field.name == "split" and isinstance(value, (tuple, list)):
        return ",".join(str(share) for share in value)
    return _reference(value)


def _reference(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if hasattr(value, "__fspath__"):
        return str(value)
    found = getattr(value, "ref", None)
    return found if isinstance(found, str) else value


def load(ref: Any) -> Any:
    """Return a dataset's rows (``"wdbc"``, ``"wdbc@2:test"``) as a polars DataFrame, or a model.

    A model has ``.predict(rows)``, ``.weights`` (arrays under the module's own names), ``.schema`` and ``.card``.
    Where a model and a dataset share the name, the model is meant; write ``dataset/NAME`` for the rows.
    """
    from lepton_jupyter.faces.flows.load import load as flow

    return flow(asker_of(sys._getframe(1)), ref)


def save(model: Any, *, name: str | None = None, data: Any = None, example: Any = None) -> Any:
    """Make a version of a model that is trained already.

    Parameters
    ----------
    model : object
        A fitted estimator or pipeline of scikit-learn, XGBoost or LightGBM, a booster of theirs, or a trained torch
        module.
    name : str, optional
        The model's name; in a run its own name is taken, in a notebook the variable's.
    data : str, optional
        Name of the dataset whose columns it takes: NAME or NAME@3.
    example : array or DataFrame, optional
        Some rows as the model takes them, where there is no dataset.

    Returns
    -------
    Version
    """
    from lepton_jupyter.faces.flows.load import save as flow

    asker = asker_of(sys._getframe(1))
    return flow(asker, model, name=name, data=data, example=example)


def log(values: Mapping[str, float] | None = None, /, *, step: int | None = None, **metrics: float) -> None:
    """Record metrics of the run whose kernel this is: ``lepton.log(loss=0.3)``; or a dict, and a step."""
    from lepton_jupyter.faces.flows.load import log as flow

    flow({**(values or {}), **metrics}, step=step)


def checkpoint(state: Mapping[str, Any]) -> None:
    """Keep what a ``%%lepton train`` cell goes on from when it is killed: then the cell runs again.

    Parameters
    ----------
    state : dict
        Tensors, arrays, numbers, text, and dicts and lists of such. Every random generator is kept with it.

    Examples
    --------
    In a cell::

        state = lepton.restore() or {"epoch": 0}
        for epoch in range(state["epoch"], 20):
            ...
            lepton.checkpoint({"epoch": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    """
    from lepton_jupyter.faces.flows.load import checkpoint as flow

    flow(state)


def restore() -> dict[str, Any] | None:
    """Return what this run's cell last gave `checkpoint`, its random generators put back; None on a first start."""
    from lepton_jupyter.faces.flows.load import restore as flow

    return flow()


def retraining(model: str, *, require: Sequence[str] = (), approve: bool = False) -> Any:
    """Begin a retrain in the run whose kernel this is: what the cells of its notebook call.

    Parameters
    ----------
    model : str
        Name of the model, whose champion is trained again.
    require : sequence of str
        What the new version must meet; empty: what its champion had to.
    approve : bool
        Whether a person is asked before a better version is promoted.

    Returns
    -------
    Retraining
        With ``refresh()``, ``train()``, ``evaluate()`` and ``decide()``, in this order.
    """
    from lepton_jupyter.faces.flows.retraining import Retraining
    from lepton_jupyter.runner.session import current

    return Retraining(current(), model, require=require, approve=approve)


def window(endpoint: str | None = None, *, hours: float | None = None) -> Any:
    """Return the requests of a while: in a monitor's run those it reports on, elsewhere those of the last hours.

    Parameters
    ----------
    endpoint : str, optional
        Needed outside of a monitor's run.
    hours : float, optional
        How far back; outside of a run one hour.

    Returns
    -------
    MonitorWindow
        ``.rows`` (a polars DataFrame: at, request_id, version, id, the raw columns, prediction, probabilities),
        ``.requests``, ``.start``, ``.end``, ``.reference`` (the training profile), ``.endpoint``.
    """
    from lepton_jupyter.faces.flows.window import window as flow

    return flow(getattr(endpoint, "name", endpoint), hours=hours)


def check(name: str, value: float | None) -> float | None:
    """Record a value by which alerts are judged, such as ``lepton.check("share_north", 0.31)``; return it.

    Outside of a run nothing is recorded; the value is shown.
    """
    from lepton_jupyter.faces.flows.window import check as flow

    return flow(name, value)
