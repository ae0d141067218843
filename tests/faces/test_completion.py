"""Completion: verbs, flags, choices, live names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from lepton_jupyter.core.paths import Home
from lepton_jupyter.faces.completion import complete

NAMES = {
    "dataset": ["wdbc"],
    "model": ["TumorNet"],
    "endpoint": ["diagnosis"],
    "schedule": ["weekly"],
    "run": ["ab12cd34ef56"],
}


class Net:
    def forward(self, x: object) -> object:
        return x


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%lepton ev", ["evaluate"]),
        ("x = %lepton ev", ["evaluate"]),
        ("%%lepton ", ["train"]),
        ("%lepton train Net --bat", ["--batch-size"]),
        ("%lepton train Net --preprocess ", ["auto", "none"]),
        ("%lepton train ", ["Net"]),
        ("%lepton train Net --data w", ["wdbc"]),
        ("%lepton evaluate ", ["TumorNet"]),
        ("%lepton predict ", ["TumorNet", "diagnosis"]),
        ("%lepton stop ", ["diagnosis", "weekly", "ab12cd34ef56"]),
        ("%lepton tick ", ["weekly"]),
        ("%lepton monitor ", ["diagnosis"]),
        ("%lepton token ", ["diagnosis"]),
        ("%lepton export ", ["TumorNet"]),
        ("%lepton export TumorNet --format ", ["oci", "docker", "kserve", "onnx"]),
        ("%lepton delete ", ["dataset/wdbc", "model/TumorNet", "endpoint/diagnosis", "schedule/weekly"]),
        ("%lepton compare TumorNet ", ["TumorNet", "ab12cd34ef56"]),
        ("%lepton nonsense ", None),
        ("print('%lepton tr", None),
    ],
)
def test_what_fits_is_offered(line: str, expected: list[str] | None) -> None:
    found = complete(line, {"Net": Net, "_hidden": Net, "x": 1}, lambda kind: NAMES[kind])
    assert (list(found.words) if found else None) == expected


def test_a_flag_that_was_given_is_not_offered_again() -> None:
    found = complete("%lepton train Net --epochs 3 --ep", {}, lambda kind: [])
    assert found is not None
    assert found.words == ()


def test_a_flag_that_repeats_is_offered_again() -> None:
    found = complete('%lepton evaluate Net --require "a>=1" --re', {}, lambda kind: [])
    assert found is not None
    assert found.words == ("--require",)


@pytest.fixture
def shell(home: Home) -> Iterator[Any]:
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "lepton_jupyter")
    yield shell
    shell.run_line_magic("unload_ext", "lepton_jupyter")
    InteractiveShell.clear_instance()


def test_a_shell_completes_and_starts_nothing(shell: Any, home: Home) -> None:
    (home.datasets / "wdbc").mkdir()

    def offered(line: str) -> list[str]:
        return list(shell.complete("", line, len(line))[1])

    assert offered("%lepton train Net --da") == ["--data"]
    assert offered("%lepton train Net --data w") == ["wdbc"]
    assert offered("%lepton tr") == ["train"]
    shell.run_line_magic("unload_ext", "lepton_jupyter")
    assert "train" not in offered("%lepton tr")
    shell.run_line_magic("load_ext", "lepton_jupyter")
    assert not home.runtime().socket.exists()
