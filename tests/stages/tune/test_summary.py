"""A search in words and pictures."""

from __future__ import annotations

import json

from lepton_jupyter.formats.tuning import TrialRecord, TuningRecord
from lepton_jupyter.stages.tune.charts import figures
from lepton_jupyter.stages.tune.summary import as_text


def a_record(*trials: TrialRecord, **more: object) -> TuningRecord:
    about: dict[str, object] = {
        "run_id": "0123456789ab", "model": "Net", "dataset": "d@1", "metric": "val_loss", "direction": "minimize",
        "space": {"lr": "loguniform(1e-4,1e-1)", "act": "choice(relu,tanh)"}, "log_names": ("lr",), "trials": trials,
    }  # fmt: skip
    return TuningRecord(**(about | more))  # type: ignore[arg-type]


def a_trial(number: int, value: float | None, state: str = "complete", lr: float = 0.01) -> TrialRecord:
    return TrialRecord(number=number, state=state, params={"lr": lr, "act": "relu"}, value=value, epochs=3)


def test_the_best_trial_is_said_first_and_pruned_ones_come_last() -> None:
    trials = (a_trial(0, 0.5), a_trial(1, 0.1, "pruned"), a_trial(2, 0.25), a_trial(3, None, "failed"))
    text = as_text(a_record(*trials, best=2, how="one after the other", importance={"lr": 0.9, "act": 0.1}))
    assert "4 trials (2 completed, 1 pruned, 1 failed), one after the other" in text
    assert "best: trial 2, val_loss 0.25 with lr=0.01  act=relu" in text
    assert [line.split()[0] for line in text.splitlines()[3:6]] == ["2", "0", "1"]
    assert text.endswith("what mattered: lr 90%, act 10%")


def test_charts_show_what_there_is() -> None:
    assert figures(a_record(a_trial(0, None, "failed"))) == []
    assert len(figures(a_record(a_trial(0, 0.5)))) == 1
    trials = (a_trial(0, 0.5), a_trial(1, 0.2, lr=0.1), a_trial(2, 0.9, "pruned"), a_trial(3, 0.3, lr=1e-4))
    drawn = figures(a_record(*trials, best=1, importance={"lr": 1.0}))
    assert [figure.data[-1].type for figure in drawn] == ["scatter", "bar", "parcoords"]
    best = json.loads(drawn[0].to_json())["data"][-1]["y"]
    assert best == [0.5, 0.2, 0.2, 0.2]
    rates = drawn[2].data[0].dimensions[1]
    assert list(rates.ticktext) == ["0.0001", "0.001", "0.01", "0.1"]


def test_one_value_on_a_logarithmic_axis_is_drawn() -> None:
    drawn = figures(a_record(a_trial(0, 0.5), a_trial(1, 0.4)))
    assert list(drawn[-1].data[0].dimensions[1].ticktext) == ["0.01"]
