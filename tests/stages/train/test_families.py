"""Bundles of every family answer as their models do, on planted rows too, or are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_jupyter.core.paths import Home
from tests.stages.train.families import TOLERANCE, Case, attempt
from tests.stages.train.zoo import CASES
from tests.stages.train.zoo_data import make

TABLE = Path(__file__).parents[3] / "docs" / "parity.md"


@pytest.fixture(scope="module")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("families") / "home").make()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_familys_bundle_answers_as_its_model_or_is_refused(case: Case, data_home: Home, tmp_path: Path) -> None:
    if not case.is_here:
        pytest.skip(f"needs {case.needs}")
    found = attempt(case, make(data_home, case.data), tmp_path / "run")
    if case.refused:
        assert not found.card.is_deployable
        assert case.refused in found.card.why_not
        return
    assert found.card.is_deployable, found.card.why_not
    assert found.worst <= TOLERANCE
    assert found.n_rows > 300


def test_the_table_of_the_documents_lists_every_family_as_it_is() -> None:
    equal, _, refused = TABLE.read_text().partition("## Refused")
    for case in CASES:
        assert f"| {case.name} | {case.data} |" in (refused if case.refused else equal), case.name
