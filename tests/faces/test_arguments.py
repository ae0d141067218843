"""Structs to flags: what is typed, what is refused, and that lines and structs say the same."""

from __future__ import annotations

from typing import Any

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.faces.arguments import build, fields_of, parse, render, usage
from lepton_jupyter.faces.help import overview, page
from lepton_jupyter.faces.verbs import COMMANDS, VERBS, find
from lepton_jupyter.faces.words import split_words
from lepton_jupyter.stages.verbs import Verb


def _parsed(line: str) -> Verb:
    verb, *words = split_words(line)
    return parse(find(verb).spec, words)


EXAMPLES = [example for command in COMMANDS for example in command.spec.examples]
NONSENSE = [
    ("trian Net", "trian", "Did you mean 'train'?"),
    ("train Net --data x --epoch 3", "--epoch", "Did you mean '--epochs'?"),
    ("train Net --data x --preprocess atuo", "atuo", "Did you mean 'auto'?"),
    ("train Net --data x --task binry", "binry", "Did you mean 'binary'?"),
    ("train Net --data x --batch-size many", "many", "a whole number of at least 1 or 'auto'"),
    ("train Net --data x --batch-size 0", "0", "at least 1"),
    ("train Net --data x --epochs 0", "0", "at least 1"),
    ("train Net --data x --epochs 2.5", "2.5", "a whole number"),
    ("train Net --data x --lr nan", "nan", "a number more than 0"),
    ("train Net --data x --lr inf", "inf", "a number more than 0"),
    ("train Net --data x --lr -1", "-1", "--lr"),
    ("train Net --data x --patience 0", "0", "at least 1"),
    ("train Net --data x --lr 1 --lr 2", "twice", "'1' and '2'"),
    ("train Net --data x -p hidden", "hidden", "KEY=VALUE"),
    ("train Net --data x --detach=maybe", "maybe", "true or false"),
    ("train Net --data", "--data", "needs a value"),
    ("train --data x", "MODEL", "Usage: %lepton train MODEL --data DATA"),
    ("train Net", "--data", "Usage: %lepton train MODEL --data DATA"),
    ("train Net Other --data x", "Other", "Usage"),
    ("evaluate Net --require roc_auc >= 0.9", ">= 0.9", "quotes"),
    ("deploy Net --as d --port 99999", "99999", "at most 65535"),
    ("deploy Net --as d --canary 0", "'0'", "more than 0 and less than 1"),
    ("deploy Net --as d --canary 1.5", "1.5", "more than 0 and less than 1"),
    ("deploy Net --as d --canary nan", "nan", "more than 0 and less than 1"),
    ("deploy Net --as d --canary 0.1 --canary-requests 0", "--canary-requests", "at least 1"),
    ("show --ref x", "--ref", "without a flag"),
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_of_the_help_can_be_typed(line: str) -> None:
    assert _parsed(line).verb == line.split()[0]


@pytest.mark.parametrize("line", EXAMPLES)
def test_a_struct_becomes_the_line_that_gives_it(line: str) -> None:
    spec = _parsed(line)
    assert _parsed(render(spec)) == spec


@pytest.mark.parametrize(("line", "value", "known"), NONSENSE)
def test_nonsense_is_named_with_what_is_known(line: str, value: str, known: str) -> None:
    with pytest.raises(LeptonError) as error:
        _parsed(line)
    assert value in str(error.value)
    assert known in str(error.value)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [({"epochs": 0}, "0"), ({"epochs": "many"}, "many"), ({"lr": float("nan")}, "nan"), ({"preprocess": "x"}, "x"),
     ({"epochs": True}, "True"), ({"batch_size": -2}, "-2")],
)  # fmt: skip
def test_bounds_and_choices_hold_for_python_too(values: dict[str, Any], wrong: str) -> None:
    with pytest.raises(LeptonError, match=wrong):
        build(VERBS["train"].spec, {"model": "Net", "data": "x", **values})


def test_flags_repeat_and_never_swallow_what_follows() -> None:
    spec: Any = _parsed('evaluate --require "a >= 1" Net --require "b >= 2" --against champion')
    assert (spec.model, spec.require, spec.against) == ("Net", ("a >= 1", "b >= 2"), "champion")


def test_parameters_are_json_else_text() -> None:
    spec: Any = _parsed("train N --data x -p hidden=32 -p act=relu -p sizes=[1,2] -p deep=true")
    assert spec.params == {"hidden": 32, "act": "relu", "sizes": [1, 2], "deep": True}


def test_help_names_every_flag_and_ends_with_examples() -> None:
    for command in COMMANDS:
        text = page(command.spec)
        assert all(field.is_positional or field.flag in text for field in fields_of(command.spec).values())
        assert command.spec.verb in overview()
        assert command.spec.does in overview()
        assert all(example in text for example in command.spec.examples)
        assert usage(command.spec) in " ".join(text.split())


def test_every_verb_has_a_flow_that_can_be_loaded() -> None:
    for command in COMMANDS:
        assert callable(command.load())
        assert command.cell is None or callable(command.load(is_cell=True))
