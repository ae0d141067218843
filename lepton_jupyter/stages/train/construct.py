"""Call the user's class or factory with what the data knows and what ``-p`` says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.errors import LeptonError, did_you_mean

N_FEATURES = ("n_features", "in_features", "input_size", "input_dim")
N_OUTPUTS = ("n_outputs", "out_features", "output_size", "output_dim", "num_classes", "n_classes")
VOCAB_SIZE = ("vocab_size", "num_embeddings")
BY_DATA = frozenset({*N_FEATURES, *N_OUTPUTS, *VOCAB_SIZE, "input_shape", "cardinalities", "max_tokens"})
_SAMPLES: dict[object, str] = {int: "32", "int": "32", float: "0.1", "float": "0.1", bool: "true", "bool": "true"}


def facts_of(
    *,
    n_features: int,
    n_outputs: int,
    input_shape: tuple[int, ...],
    cardinalities: tuple[int, ...],
    vocab_size: int | None = None,
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """Return every argument that the data can fill, by name; the last two where it has prose."""
    facts: dict[str, Any] = dict.fromkeys(N_FEATURES, n_features)
    facts.update(dict.fromkeys(N_OUTPUTS, n_outputs))
    facts |= {"input_shape": input_shape, "cardinalities": cardinalities}
    if vocab_size is not None:
        facts |= dict.fromkeys(VOCAB_SIZE, vocab_size) | {"max_tokens": max_tokens}
    return facts


def construct(model: Any, facts: Mapping[str, Any], params: Mapping[str, Any], *, name: str, data: str = "") -> Any:
    """Return an instance of the user's model.

    Parameters
    ----------
    model : class, factory or instance
        An instance is returned as it is; it takes no params.
    facts : Mapping
        Arguments that are filled where the signature names them (`facts_of`).
    params : Mapping
        What ``-p KEY=VALUE`` gave; it goes before the facts.
    name : str
        The model as typed, for messages.
    data : str
        The dataset, for the line to paste.

    Raises
    ------
    LeptonError
        If a param is not named by the signature, or something required is unknown.
    """
    __tracebackhide__ = True
    if not _is_called(model):
        _refuse_params(params, name)
        return model
    arguments = _arguments(model, facts, params, name=name, data=data)
    return model(**arguments)


def check_arguments(model: Any, params: Mapping[str, Any], *, name: str, data: str = "") -> None:
    """Raise as `construct` would for the arguments alone, without calling anything."""
    if _is_called(model):
        facts = facts_of(n_features=0, n_outputs=0, input_shape=(), cardinalities=(), vocab_size=0, max_tokens=0)
        _arguments(model, facts, params, name=name, data=data)


def _is_called(model: Any) -> bool:
    """Whether it is a class or factory, which is called to make the model."""
    return inspect.isclass(model) or inspect.isroutine(model) or _is_factory(model)


def _refuse_params(params: Mapping[str, Any], name: str) -> None:
    if params:
        listed = ", ".join(f"-p {key}" for key in params)
        raise LeptonError(
            f"'{name}' is an instance, so {listed} cannot reach its constructor.", "Name the class instead."
        )


def _is_factory(model: Any) -> bool:
    """Whether it is a callable that makes models (a partial, an object with ``__call__``), not a model itself."""
    return callable(model) and not hasattr(model, "forward") and not hasattr(model, "fit")


def _arguments(
    model: Any, facts: Mapping[str, Any], params: Mapping[str, Any], *, name: str, data: str
) -> dict[str, Any]:
    parameters = _parameters(model)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    named = {parameter.name: parameter for parameter in parameters if parameter.kind in _BY_NAME}
    for key in params:
        if key not in named and not takes_any:
            known = ", ".join(named) or "nothing"
            raise LeptonError(f"'{name}' takes no '{key}'. It takes: {known}.{did_you_mean(key, named)}")
    arguments = {key: value for key, value in facts.items() if key in named} | dict(params)
    missing = [
        parameter
        for key, parameter in named.items()
        if key not in arguments and parameter.default is inspect.Parameter.empty
    ]
    if missing:
        words = " and ".join(f"'{parameter.name}'" for parameter in missing)
        flags = " ".join(f"-p {parameter.name}={_SAMPLES.get(parameter.annotation, 'VALUE')}" for parameter in missing)
        raise LeptonError(
            f"'{name}' needs {words}, which the data does not know (it fills {N_FEATURES[0]}, {N_OUTPUTS[0]}, "
            "input_shape, cardinalities and their usual other names, and vocab_size where a column is --text).",
            f"Say it: %lepton train {name}{' --data ' + data if data else ''} {flags}",
        )
    return arguments


BARE = ("torch.nn.modules.module", "torch._dynamo.mutation_guard")  # the compiler, once loaded, stands in for torch
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(model: Any) -> list[inspect.Parameter]:
    if inspect.isclass(model) and model.__init__.__module__ in BARE:
        return []  # no constructor of its own: torch's says (*args, **kwargs) and takes nothing
    try:
        return list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):  # built in: takes nothing that we could fill
        return []


def names_arguments(model: Any, *wanted: str) -> bool:
    """Whether a callable's signature names all of these arguments."""
    found = {parameter.name for parameter in _parameters(model)}
    return all(name in found for name in wanted)


def is_free_factory(model: Any) -> bool:
    """Whether it is a factory that asks for nothing that the data knows: only calling it shows what it makes."""
    if inspect.isclass(model) or not (inspect.isroutine(model) or _is_factory(model)):
        return False
    return not BY_DATA & {parameter.name for parameter in _parameters(model)}
