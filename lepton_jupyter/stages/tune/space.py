"""What is searched: ``lr=loguniform(1e-4,1e-1)`` as typed, checked, and put into a training's flags."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from lepton_jupyter.core.errors import LeptonError, did_you_mean, unknown
from lepton_jupyter.stages.train.construct import BARE, BY_DATA
from lepton_jupyter.stages.train.preflight import is_estimator
from lepton_jupyter.stages.train.spec import Train

if TYPE_CHECKING:
    from optuna.trial import Trial

RANGES = ("uniform", "loguniform", "int", "logint")
KINDS = (*RANGES, "choice")
FLAGS = (
    "lr", "weight_decay", "batch_size", "optimizer", "lr_scheduler", "warmup", "clip", "seed", "label_smoothing", "ema",
    "accumulate", "augment", "epochs", "patience", "loss", "class_weight", "precision", "preprocess", "scale_target",
)  # fmt: skip
OF_ESTIMATORS = ("seed", "class_weight", "preprocess")  # flags that mean something for scikit-learn
OF_OPTIMIZER = ("momentum", "beta1", "beta2", "eps", "alpha", "nesterov", "amsgrad", "dampening", "lr_decay", "rho")
EXAMPLE = '--search "lr=loguniform(1e-4,1e-1)"'

_TYPED = re.compile(r"\s*(\w+)\s*=\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Dimension:
    """One thing that is searched.

    Attributes
    ----------
    name : str
    kind : str
        One of `KINDS`.
    place : str
        ``flag`` of train, ``param`` of the model, or ``optimizer`` argument.
    low, high : float
        Bounds of a range, both included.
    choices : tuple
    text : str
        As typed.
    """

    name: str
    kind: str
    place: Literal["flag", "param", "optimizer"]
    text: str
    low: float = math.nan
    high: float = math.nan
    choices: tuple[Any, ...] = ()

    @property
    def is_log(self) -> bool:
        """Whether values are drawn evenly over the orders of magnitude."""
        return self.kind in ("loguniform", "logint")

    @property
    def is_number(self) -> bool:
        """Whether all its values are numbers."""
        return self.kind != "choice" or all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in self.choices
        )

    def suggest(self, trial: Trial) -> Any:
        """Return the value that a trial of Optuna's is given."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.choices)
        if self.kind in ("int", "logint"):
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.is_log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.is_log)

    def ends(self) -> tuple[Any, ...]:
        """Return the values that bound it: if a training takes them, it takes those between."""
        whole = self.kind in ("int", "logint")
        return self.choices or ((int(self.low), int(self.high)) if whole else (self.low, self.high))


Space = tuple[Dimension, ...]


def parse_space(texts: Sequence[str], model: Any, spec: Train) -> Space:
    """Return what ``--search`` asks for.

    Parameters
    ----------
    texts : sequence of str
    model : class, factory, instance or estimator
        Whose own arguments may be searched.
    spec : Train

    Raises
    ------
    LeptonError
        If nothing is searched, a name is no flag and no argument of the model (did you mean), a kind is unknown, or
        bounds make no range or are refused by the flag.
    """
    if not texts:
        raise LeptonError("tune needs --search: there is nothing to search.", f"For instance: {EXAMPLE}")
    space: list[Dimension] = []
    for text in texts:
        found = _dimension(text, model, spec)
        if any(found.name == other.name for other in space):
            raise LeptonError(f"--search names '{found.name}' twice.", "Leave one out.")
        for value in found.ends():
            settled(spec, (found,), {found.name: value})
        space.append(found)
    return tuple(space)


def _dimension(text: str, model: Any, spec: Train) -> Dimension:
    match = _TYPED.fullmatch(text)
    if match is None:
        raise LeptonError(f"--search '{text}' is not NAME=KIND(…).", f"For instance: {EXAMPLE}")
    name, kind, inside = match.groups()
    if kind not in KINDS:
        raise unknown("kind of search", kind, KINDS, f"For instance: {EXAMPLE}")
    place = _place(name, model, spec)
    values = _values(inside)
    if kind == "choice":
        if not values:
            raise LeptonError(
                f"--search '{text}' is empty: there is nothing to choose from.", f"Say {name}=choice(A,B)."
            )
        return Dimension(name, kind, place, text, choices=tuple(dict.fromkeys(values)))
    low, high = _bounds(text, kind, values)
    return Dimension(name, kind, place, text, low, high)


def _values(inside: str) -> list[Any]:
    """Return what stands between the brackets: each JSON, else text."""
    try:
        found = json.loads(f"[{inside}]")
    except ValueError:
        found = [_value(word.strip()) for word in inside.split(",") if word.strip()]
    return [tuple(item) if isinstance(item, list) else item for item in found]


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        pass
    try:
        return float(word)  # such as .5, which is no JSON
    except ValueError:
        return word.strip("'\"")


def _bounds(text: str, kind: str, values: list[Any]) -> tuple[float, float]:
    if len(values) != 2 or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        raise LeptonError(f"--search '{text}' wants two numbers: {kind}(LOW,HIGH).", f"For instance: {EXAMPLE}")
    low, high = map(float, values)
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise LeptonError(
            f"--search '{text}' is empty: {values[0]} is not below {values[1]}.", f"Write it as {kind}(LOW,HIGH)."
        )
    if kind in ("int", "logint") and not (low.is_integer() and high.is_integer()):
        raise LeptonError(f"--search '{text}' wants whole numbers.", "Or say uniform, for any number.")
    if kind in ("loguniform", "logint") and low <= 0:
        raise LeptonError(
            f"--search '{text}' begins at {values[0]}, which has no logarithm.",
            f"Begin above 0, or say {kind.removeprefix('log')}.",
        )
    return low, high


def _place(name: str, model: Any, spec: Train) -> Literal["flag", "param", "optimizer"]:
    """Return where a name belongs: to train's flags, else to the model, else to its optimizer."""
    is_of_torch = not is_estimator(model)
    flags = FLAGS if is_of_torch else OF_ESTIMATORS
    if name in flags:
        return "flag"
    params, takes_any = _params(model)
    if name in params:
        return "param"
    if is_of_torch and name in OF_OPTIMIZER:
        return "optimizer"
    if takes_any:
        return "param"
    known = [*flags, *params]
    raise LeptonError(
        f"--search names '{name}', which is no flag of train and no argument of '{spec.model}'. "
        f"Known: {', '.join(known)}.{did_you_mean(name, known)}",
        f"For instance: {EXAMPLE}",
        code="not_found",
    )


def _params(model: Any) -> tuple[list[str], bool]:
    """Return the names that a model's class or factory takes and the data does not know, and whether it takes any."""
    if not (
        inspect.isclass(model) or inspect.isroutine(model) or not (hasattr(model, "forward") or hasattr(model, "fit"))
    ):
        return [], False  # an instance is made already
    try:
        parameters = list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):
        return [], False
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [one.name for one in parameters if one.kind in by_name and one.name not in BY_DATA]
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    return named, takes_any and getattr(getattr(model, "__init__", None), "__module__", "") not in BARE


def settled(spec: Train, space: Iterable[Dimension], values: Mapping[str, Any]) -> Train:
    """Return the training of a trial.

    Parameters
    ----------
    spec : Train
        What all trials share.
    space : iterable of Dimension
    values : mapping
        Of a trial, by the dimensions' names.

    Raises
    ------
    LeptonError
        If a flag does not take a value.
    """
    flags: dict[str, Any] = {}
    params, of_optimizer = dict(spec.params), dict(spec.optimizer_args)
    for one in space:
        value = values[one.name]
        if one.place == "param":
            params[one.name] = value
        elif one.place == "optimizer":
            _put_argument(of_optimizer, one.name, value)
        else:
            flags[one.name] = _flag_value(one, value)
    return msgspec.structs.replace(spec, **flags, params=params, optimizer_args=of_optimizer)


def _put_argument(arguments: dict[str, Any], name: str, value: Any) -> None:
    if name in ("beta1", "beta2"):
        first, second = arguments.get("betas", (0.9, 0.999))
        arguments["betas"] = [value, second] if name == "beta1" else [first, value]
    else:
        arguments[name] = value


def _flag_value(one: Dimension, value: Any) -> Any:
    """Return a value as the flag takes it: its type and bounds are the struct's."""
    if one.name == "augment":
        return () if value in (None, "none") else (value,) if isinstance(value, str) else tuple(value)
    try:
        msgspec.convert({"model": "", "data": "", one.name: value}, Train)
    except msgspec.ValidationError as error:
        reason = str(error).split(" - at")[0].replace("`", "'")
        raise LeptonError(
            f"--search '{one.text}' holds {value!r}, which --{one.name.replace('_', '-')} does not take: {reason}.",
            f"Type '%lepton tune --help' for what {one.name} may be.",
        ) from error
    return value
