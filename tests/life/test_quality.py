"""The quickstart's model over split seeds, and the same numbers from the same seed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.life.conftest import NET, Notebook

REQUIRE = "require=['roc_auc >= 0.95', 'recall >= 0.75']"


def _verdict(notebook: Notebook, seed: int) -> str:
    notebook.run(f"%lepton data wdbc breast_cancer.csv --target diagnosis --seed {seed}")
    notebook.run(f"%lepton train TumorNet --data wdbc --epochs 30 --lr 1e-2 -p hidden=32 --seed {seed}")
    return notebook.run(f"print(lepton.evaluate('TumorNet', {REQUIRE}).verdict)").strip().splitlines()[-1]


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_of_twenty_split_seeds_eighteen_pass_and_none_fails(notebook: Notebook) -> None:
    notebook.run(NET)
    verdicts = [_verdict(notebook, seed) for seed in range(20)]
    assert verdicts.count("PASS") >= 18, verdicts
    assert "FAIL" not in verdicts


@pytest.mark.slow
def test_the_same_seed_gives_the_same_metrics_to_the_last_digit(with_data: Notebook, client: Any) -> None:
    for _ in range(2):
        with_data.run("%lepton train TumorNet --data wdbc --epochs 5 --lr 1e-2")
    first, second = (
        {k: v for k, v in run.metrics.items() if not k.endswith("_per_s")} for run in client().runs(kind="train")
    )
    assert first == second
