"""Channels by name: what is refused, what they stand for, and that no message shows a secret."""

from __future__ import annotations

from collections.abc import Iterator

import keyring
import keyring.backend
import pytest

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.runner.channels import check_channel, resolve

SECRET = "s3cr3t-token"


class Entries(keyring.backend.KeyringBackend):
    """A key store in memory, for real keyring calls."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[(service, username)] = password


@pytest.fixture
def entries() -> Iterator[Entries]:
    before, store = keyring.get_keyring(), Entries()
    keyring.set_keyring(store)
    yield store
    keyring.set_keyring(before)


def refused(text: str, environ: dict[str, str]) -> str:
    with pytest.raises(LeptonError) as caught:
        check_channel(text, environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "resolved"),
    [
        ("https://ops.example/hook", "jsons://ops.example/hook"),
        (" http://127.0.0.1:8080/hook?key=a%20b \n", "json://127.0.0.1:8080/hook?-key=a%20b"),
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", None),
        ("mailto://me:pw@mail.example?to=you@mail.example", None),
        ("json://127.0.0.1/hook", None),
    ],
)
def test_a_variable_stands_for_an_address(address: str, resolved: str | None) -> None:
    assert resolve("env:OPS", {"OPS": address}) == (resolved or address)
    assert check_channel("env:OPS", {"OPS": address}) == "env:OPS"


def test_an_address_is_named_not_typed() -> None:
    said = refused(f"https://ops.example/{SECRET}", {})
    assert "named, not typed" in said and SECRET not in said
    assert "https://…" in said and "env:NAME" in said


def test_a_variable_that_is_not_set_is_named() -> None:
    said = refused("env:OPS_WEBHOK", {"OPS_WEBHOOK": SECRET})
    assert "'OPS_WEBHOK' is not set here" in said and "Did you mean 'OPS_WEBHOOK'?" in said and SECRET not in said
    assert "is empty" in refused("env:OPS", {"OPS": " "})


def test_a_word_that_is_no_channel_is_refused_with_the_forms() -> None:
    assert "env:VARIABLE or keyring:SERVICE/USER" in refused("ops", {})
    assert "Did you mean env:OPS?" in refused("OPS", {"OPS": "x"})
    assert "is no channel" in refused("keyring:nothing", {})


def test_an_address_that_apprise_does_not_know_is_refused_without_being_shown() -> None:
    said = refused("env:OPS", {"OPS": f"slak://{SECRET}"})
    assert "slak://" in said and SECRET not in said
    assert SECRET not in refused("env:OPS", {"OPS": SECRET})


def test_a_variable_that_no_run_sees_is_refused() -> None:
    assert "no run sees it" in refused("env:JUPYTERHUB_API_TOKEN", {"JUPYTERHUB_API_TOKEN": SECRET})


def test_a_keyring_entry_stands_for_an_address(entries: Entries) -> None:
    entries.set_password("ops", "me/team", "https://ops.example/hook")
    assert resolve("keyring:ops/me/team", {}) == "jsons://ops.example/hook"
    assert "no entry 'ops/you'" in refused("keyring:ops/you", {})


def test_a_machine_without_a_keyring_says_so() -> None:
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        assert "The keyring cannot be read" in refused("keyring:ops/me", {})
    finally:
        keyring.set_keyring(before)
