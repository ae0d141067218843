"""Typed lines to words."""

from __future__ import annotations

import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.faces.words import expand, split_words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train Net --data wdbc     # a comment; with 'quotes", ["train", "Net", "--data", "wdbc"]),
        ("models;", ["models"]),
        ("models ;  # comment", ["models"]),
        ("data x a#b.csv", ["data", "x", "a#b.csv"]),
        ("data x 'my file.csv'", ["data", "x", "my file.csv"]),
        ('evaluate N --require "roc_auc >= 0.95"', ["evaluate", "N", "--require", "roc_auc >= 0.95"]),
        ("run n.ipynb -p price=$5", ["run", "n.ipynb", "-p", "price=$5"]),
        ("data x a\\ b.csv", ["data", "x", "a b.csv"]),
        ('deploy N --force "he said \\"go\\""', ["deploy", "N", "--force", 'he said "go"']),
        ("data x a;b.csv", ["data", "x", "a;b.csv"]),
        ("", []),
    ],
)
def test_a_line_becomes_words(line: str, words: list[str]) -> None:
    assert split_words(line) == words


def test_a_quote_that_is_not_closed_is_named() -> None:
    with pytest.raises(LeptonError, match="not closed") as error:
        split_words("data x 'my file.csv")
    assert "'my file.csv" in error.value.message


def test_expressions_are_filled_in_and_dollars_stay() -> None:
    assert expand("train N --epochs {n * 2} -p a=$n", {"n": 3}) == "train N --epochs 6 -p a=$n"
    assert expand('train N -p layers={{"a": 1}}', {}) == 'train N -p layers={"a": 1}'


def test_an_expression_that_fails_is_named_with_its_reason() -> None:
    with pytest.raises(LeptonError, match="NameError") as error:
        expand("train N --epochs {n}", {})
    assert "{{" in error.value.hint
