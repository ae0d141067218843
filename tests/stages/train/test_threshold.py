"""One threshold from the flag to every place that decides, and a licence from the flag to the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.predicted import decide
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.pyfunc_loader import _load_pyfunc
from lepton_jupyter.serving.scorer import Scorer
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.evaluate.sample import classified
from lepton_jupyter.stages.evaluate.scoring import score_split
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.judged import headline
from lepton_jupyter.stages.train.spec import Train


def train_with(session: Any, model: Any, data: Dataset, **flags: Any) -> Any:
    torch.manual_seed(0)
    return train(session, model, data, Train(model="model", data=data.ref, **flags))


@pytest.mark.parametrize(
    "model", [LogisticRegression(max_iter=5000), nn.Linear(30, 2), nn.Linear(30, 1)], ids=["estimator", "two", "logit"]
)
@pytest.mark.slow
def test_a_threshold_decides_alike_in_metrics_graph_and_evaluation(session: Any, wdbc: Dataset, model: Any) -> None:
    of_nets = {"epochs": 10, "lr": 0.05} if isinstance(model, nn.Module) else {}
    made = train_with(session, model, wdbc, threshold=0.99, license="MIT", **of_nets)
    schema = made.bundle.schema
    assert (schema.threshold, made.card.license, made.card.params["threshold"]) == (0.99, "MIT", 0.99)
    frame = wdbc.table("validation")
    outputs = Scorer(made.bundle).score(wdbc.packed("validation"))
    assert outputs.probability is not None
    is_positive = outputs.probability[:, schema.positive_index] >= 0.99
    assert 0 < is_positive.sum() < (outputs.probability[:, schema.positive_index] >= 0.5).sum()
    wanted = np.where(is_positive, schema.positive_index, 1 - schema.positive_index)
    assert outputs.prediction.tolist() == wanted.tolist()
    sample = score_split(made.bundle, wdbc, "validation", version="model@1")
    assert sample.predicted.tolist() == wanted.tolist()
    assert made.metrics["val_accuracy"] == pytest.approx(float(np.mean(sample.predicted == sample.actual)))
    table = _load_pyfunc(str(made.bundle.root)).predict(frame.to_pandas())
    assert table["prediction"].tolist() == [schema.classes[code] for code in wanted]


def test_a_probability_on_the_threshold_is_positive_wherever_it_is_asked() -> None:
    shares = np.array([[0.3, 0.7], [0.1, 0.9]], np.float32)
    shares[1] = 1 - np.float32(0.9), 0.9
    for threshold in (0.7, 0.9):
        schema = Schema(columns=(), task="binary", classes=("no", "yes"), positive="yes", threshold=threshold)
        served = decide(schema, shares)
        assert served.tolist() == [int(threshold == 0.7), 1]
        for given in (shares, shares.astype(np.float64)):
            sample = classified(
                actual=served, probability=given, classes=schema.classes, positive=1, task="binary", threshold=threshold
            )
            assert sample.predicted.tolist() == decide(schema, given).tolist() == served.tolist()
            head = Head("softmax", 2, threshold=threshold)
            assert headline(given.astype(np.float64), served, head) == {"accuracy": 1.0}


def test_a_threshold_of_more_than_two_classes_is_refused(session: Any, penguins: Dataset) -> None:
    with pytest.raises(LeptonError, match="--threshold means nothing for a multiclass task"):
        train_with(session, LogisticRegression(), penguins, threshold=0.4)


def test_without_one_nothing_is_written(session: Any, two_blobs: Dataset, tmp_path: Path) -> None:
    made = train_with(session, LogisticRegression(), two_blobs)
    assert made.bundle.schema.threshold == 0.5
    assert b"threshold" not in made.bundle.read("schema.json")
    assert b"license" not in made.bundle.read("card.json")
