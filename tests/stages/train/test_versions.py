"""From the first batch to the bundle: the export proof, parity, what a version holds."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.evaluate.engine import evaluate
from lepton_jupyter.stages.evaluate.spec import Evaluate
from lepton_jupyter.stages.train.engine import Trained, finish_stopped, train
from lepton_jupyter.stages.train.spec import Train

pytestmark = pytest.mark.slow  # each of them waits for an exporter process


class LinearRegressionModel(nn.Module):
    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, output_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class TumorNet(nn.Module):
    def __init__(self, n_features: int, n_outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Branching(TumorNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.net(x)
        return self.net(x) + 1


class Mixing(TumorNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x - x.mean(0))


class Embedding(nn.Module):
    def __init__(self, n_features: int, cardinalities: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 4) for n in cardinalities)
        self.layer = nn.Linear(n_features + 4 * len(cardinalities), n_classes)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        parts = [table(categorical[:, place]) for place, table in enumerate(self.tables)]
        return self.layer(torch.cat([numeric, *parts], dim=1))


class Image(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(input_shape[0], 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n_outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def run(session: Any, model: Any, dataset: Dataset, **flags: Any) -> Trained:
    return train(session, model, dataset, Train(model=model.__name__, data=dataset.ref, **flags))


def test_a_line_is_learned_by_heart(session: Any, make_dataset: Any) -> None:
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    dataset = make_dataset((x, 2 * x), target=(), split="none")
    spec = Train(
        model="LinearRegressionModel",
        data=dataset.ref,
        epochs=2000,
        lr=0.01,
        optimizer="SGD",
        loss="MSELoss",
        lr_scheduler="constant",
        preprocess="none",
    )
    (session.folder / "reserve.bin").write_bytes(b"room")
    trained = train(session, LinearRegressionModel, dataset, spec)
    from safetensors.numpy import load

    weights = load(trained.bundle.read("weights.safetensors"))
    assert weights["linear.weight"].item() == pytest.approx(2, abs=0.01)
    assert weights["linear.bias"].item() == pytest.approx(0, abs=0.02)
    assert trained.card.is_deployable and trained.card.best_epoch == 2000
    assert trained.card.trained_splits == ("train",)
    assert trained.card.notes["remark"] == "no validation split: the last epoch is the best"
    assert not (session.folder / "reserve.bin").exists()
    assert not list((session.folder / "export").glob("model.*"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_quickstarts_model_is_good_on_every_split(session: Any, make_dataset: Any, seed: int) -> None:
    wdbc = make_dataset("breast_cancer.csv", name="wdbc", target=("diagnosis",), seed=seed)
    trained = run(session, TumorNet, wdbc, epochs=30, lr=1e-2, params={"hidden": 32}, seed=seed)
    spec = Evaluate(model="TumorNet", require=("roc_auc >= 0.95", "recall >= 0.75"))
    home = Home(wdbc.folder.parents[2])
    judged = evaluate(session, trained.bundle, wdbc, "test", spec=spec, version="TumorNet@1", home=home)
    assert judged.verdict == "PASS", judged.requirements
    assert trained.card.is_deployable and trained.card.parity["worst"] < 1e-5
    assert session.notes["exportable"] is True
    assert set(trained.bundle.manifest.files) == {
        "card.json",
        "graph.onnx",
        "predicted.json",
        "profile.json",
        "schema.json",
        "weights.safetensors",
    }


def test_a_model_that_branches_on_data_is_named_while_it_trains_and_can_be_judged(session: Any, wdbc: Dataset) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    n_epochs = 0

    def until_known() -> bool:
        nonlocal n_epochs
        n_epochs = len(session.metrics)
        return "exportable" in session.notes and n_epochs > 2

    session.stop_when = until_known
    trained = run(session, Branching, wdbc, epochs=1_000_000, compile="no")  # so long a training would be compiled
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10  # a clock would measure the machine
    assert session.notes["exportable"] is False
    assert n_epochs > 2  # training went on meanwhile
    why = trained.card.why_not.splitlines()
    assert why[0] == "'Branching' cannot be exported: its forward takes another way depending on the data"
    assert why[1].startswith("forward, line ") and "`if x.sum() > 0:`" in why[1]
    assert not trained.card.is_deployable
    stored = pl.read_parquet(trained.bundle.read("predictions.parquet"))
    assert set(stored["split"]) == {"train", "validation", "test"} and "probability_M" in stored.columns
    assert trained.card.stopped_at is not None


def test_a_model_that_mixes_rows_is_named(session: Any, wdbc: Dataset) -> None:
    trained = run(session, Mixing, wdbc, epochs=2)
    assert "it mixes rows: the first row alone gives an answer that is off by" in trained.card.why_not
    assert session.notes["exportable"] is False


def test_embeddings_missing_values_and_unseen_categories_are_proved_equal(session: Any, penguins: Dataset) -> None:
    trained = run(session, Embedding, penguins, lr=1e-2)
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.metrics["val_accuracy"] > 0.9


def test_arrays_of_more_dimensions_go_to_the_model_as_they_are(session: Any, make_dataset: Any) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    images = rng.normal(size=(90, 2, 6, 6)).astype(np.float32) + y[:, None, None, None]
    trained = run(session, Image, make_dataset((images, y), name="images"), epochs=3)
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.bundle.schema.tensor_shape == (2, 6, 6)


def test_the_graph_is_the_same_in_every_run_and_holds_no_path(
    new_session: Callable[[], Any], two_blobs: Dataset
) -> None:
    graphs = [run(new_session(), TumorNet, two_blobs, epochs=2).bundle.read("graph.onnx") for _ in range(2)]
    assert graphs[0] == graphs[1]
    for path in (str(Path(__file__).parent), str(Path.home()), ".py", sys.prefix):
        assert path.encode() not in graphs[0]


def test_a_second_kernel_bundles_the_best_checkpoint_of_a_stopped_run(
    new_session: Callable[[], Any], two_blobs: Dataset
) -> None:
    session = new_session()
    session.stop_when = lambda: len(session.metrics) >= 5
    spec = Train(model="TumorNet", data="few", epochs=100)
    first = train(session, TumorNet, two_blobs, spec)
    again = new_session()
    (session.folder / "checkpoints").rename(again.folder / "checkpoints")
    second = finish_stopped(again, TumorNet, two_blobs, spec)
    n = first.card.stopped_at
    assert n is not None and n >= 5  # a stride may end behind the epoch's last step: then one more is whole
    assert second.card.stopped_at == n
    assert first.bundle.read("weights.safetensors") == second.bundle.read("weights.safetensors")
    assert first.bundle.read("graph.onnx") == second.bundle.read("graph.onnx")
    assert first.history == second.history
    assert second.card.notes["remark"] == f"stopped at epoch {n}"
    assert open_bundle(again.folder / "bundle").card == second.card


def test_the_exporter_dies_with_the_kernel(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    code = (
        "import sys, time; from pathlib import Path; from lepton_jupyter.stages.train import exporter_process;"
        "print(exporter_process.start_exporter(Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    exporter = int(parent.stdout.readline())
    os.kill(exporter, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def is_gone() -> bool:
        stat = Path(f"/proc/{exporter}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    eventually(is_gone, timeout_s=5, what="the exporter is gone")
