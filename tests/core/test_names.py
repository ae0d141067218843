"""References and names, and the errors that teach them."""

from __future__ import annotations

import pytest

from lepton_jupyter.core.errors import LeptonError, unknown
from lepton_jupyter.core.names import Reference, check_name, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wdbc", Reference("wdbc")),
        ("wdbc@latest", Reference("wdbc")),
        ("wdbc@3", Reference("wdbc", version=3)),
        ("Net@champion", Reference("Net", alias="champion")),
        ("wdbc@3:test", Reference("wdbc", version=3, split="test")),
        ("model/Net", Reference("Net", kind="model")),
        ("run/3f9a2c", Reference("3f9a2c", kind="run")),
    ],
)
def test_a_reference_reads_as_the_contract_says(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wdbc:tset", "No split named 'tset'. Known: train, validation, test. Did you mean 'test'?"),
        ("modle/Net", "'modle' in 'modle/Net' is no kind. Known: dataset, model, endpoint, schedule, run."),
        ("wdbc@", "'wdbc@' ends in '@' without a version or an alias."),
        ("3Net", "'3Net' cannot be the name of a thing"),
        ("a b", "'a b' cannot be the name"),
    ],
)
def test_a_malformed_reference_says_what_is_known(text: str, said: str) -> None:
    with pytest.raises(LeptonError) as error:
        parse(text)
    assert said in str(error.value)


def test_a_reference_of_another_kind_is_refused() -> None:
    with pytest.raises(LeptonError, match="'endpoint/x' is a endpoint; a model is wanted here"):
        parse("endpoint/x", "model")


def test_a_reference_reads_back_as_it_prints() -> None:
    for text in ("wdbc", "wdbc@3:test", "model/Net@champion"):
        assert str(parse(text)) == text


def test_a_name_of_sixty_five_characters_is_refused() -> None:
    assert check_name("a" * 64) == "a" * 64
    with pytest.raises(LeptonError):
        check_name("a" * 65)


def test_an_unknown_word_shows_the_known_ones_and_the_closest() -> None:
    assert str(unknown("dataset", "chrun", ["churn", "wdbc"])) == (
        "No dataset named 'chrun'. Known: churn, wdbc. Did you mean 'churn'?"
    )
    assert "Known: none yet." in str(unknown("dataset", "x", []))


def test_an_error_travels_whole_over_the_wire() -> None:
    error = LeptonError("what happened", "what to type", code="refused", detail="last lines")
    again = LeptonError.from_dict(error.to_dict())
    assert (again.message, again.hint, again.code, again.detail) == (
        error.message,
        error.hint,
        error.code,
        error.detail,
    )
    assert again._render_traceback_() == ["LeptonError: what happened", "what to type", "last lines"]
