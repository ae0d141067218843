"""Models of image files: what they are given, what is proved, what is shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import polars as pl
import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats import pixels
from lepton_jupyter.formats.bundle import CARD, GRAPH, SCHEMA
from lepton_jupyter.formats.schema import ImageInput, Schema
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.serving.pictures import under_way
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Dataset, Store
from lepton_jupyter.stages.deploy.scoring import LoadedModel
from lepton_jupyter.stages.evaluate.scoring import score_split
from lepton_jupyter.stages.train.engine import Trained, train
from lepton_jupyter.stages.train.parity import n_real
from lepton_jupyter.stages.train.planted_images import (
    KINDS,
    _sent,
    encoded,
    picture,
    planted_files,
    planted_rows,
)
from lepton_jupyter.stages.train.saving import save
from lepton_jupyter.stages.train.spec import Train
from tests.pictures import write_digits, write_shapes
from tests.stages.train.conftest import Recorder


class Net(nn.Module):
    """A small network; it keeps what it was given last."""

    def __init__(self, input_shape: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.layers = nn.Sequential(
            nn.Conv2d(input_shape[0], 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(8 * 16, n_outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Stepping(Net):
    """A network with steps of its own."""

    seen: tuple[torch.dtype, float]

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        Stepping.seen = images.dtype, float(images.max())
        return nn.functional.cross_entropy(self(images), labels)


def dataset_of(root: Path, folder: Path, **flags: Any) -> Dataset:
    home = Home(root / "home").make()
    add(home, Data(name="pictures", source=str(folder), **flags))
    return Store(home).open("pictures")


@pytest.fixture
def digits(tmp_path: Path) -> Dataset:
    return dataset_of(tmp_path, write_digits(tmp_path / "digits"))


@pytest.fixture
def shapes(tmp_path: Path) -> Dataset:
    return dataset_of(tmp_path, write_shapes(tmp_path / "shapes"), image_size="24x32")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """One network that was trained on shapes, and the folder of its files."""
    root = tmp_path_factory.mktemp("once")
    (root / "run").mkdir()
    dataset = dataset_of(root, write_shapes(root / "shapes"), image_size="24x32")
    return fitted(Recorder(root / "run"), dataset), root / "shapes"


def fitted(session: Recorder, dataset: Dataset, model: Any = Net, **flags: Any) -> Trained:
    return train(session, model, dataset, Train(model="Net", data="pictures", **{"epochs": 2, "lr": 1e-2} | flags))


def test_a_network_learns_from_files_and_its_graph_is_proved_from_their_bytes(
    session: Recorder, digits: Dataset
) -> None:
    trained = fitted(session, digits, epochs=8)
    assert trained.metrics["val_accuracy"] > 0.9
    assert trained.card.is_deployable, trained.card.why_not
    assert trained.card.parity["worst"] < 1e-5
    assert trained.card.parity["pixels"] == pixels.fingerprint() and trained.card.parity["pillow"]
    assert trained.card.parity["rows"] > len(KINDS) + digits.record.n_rows
    graph = onnx.load_from_string(trained.bundle.read(GRAPH))
    (given,) = graph.graph.input
    assert (given.name, given.type.tensor_type.elem_type) == ("tensor", onnx.TensorProto.UINT8)
    sample = score_split(trained.bundle, digits, "test", version="Net@1")
    table = LoadedModel(trained.bundle).predict(digits.pictures._root)
    found = dict(zip(table["path"], table["prediction"], strict=True))
    wanted = np.array(digits.schema.classes)[sample.predicted].tolist()
    assert [found[path] for path in digits.table("test")["path"]] == wanted


def test_it_is_given_shares_of_255_as_float32(session: Recorder, digits: Dataset) -> None:
    seen: list[tuple[torch.dtype, float, float]] = []

    class Watching(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_exporting():
                seen.append((x.dtype, float(x.min()), float(x.max())))
            return super().forward(x)

    fitted(session, digits, Watching)
    assert {dtype for dtype, _, _ in seen} == {torch.float32}
    assert min(low for _, low, _ in seen) == 0.0 and max(high for _, _, high in seen) == 1.0


def test_steps_of_its_own_and_augmentations_are_given_the_same(session: Recorder, digits: Dataset) -> None:
    trained = fitted(session, digits, Stepping, augment=("crop=1", "noise=0.01", "mixup=0.2"), loss="CrossEntropyLoss")
    assert trained.card.is_deployable
    assert Stepping.seen[0] == torch.float32 and 0.9 < Stepping.seen[1] < 1.2


def test_a_model_of_colours_is_proved_on_every_kind_of_file(once: tuple[Trained, Path]) -> None:
    trained, _ = once
    assert trained.card.is_deployable, trained.card.why_not
    assert str(trained.bundle.schema.image) == "32x24 RGB"
    assert trained.bundle.schema.tensor_shape == (3, 24, 32)


def test_what_an_endpoint_would_decode_otherwise_is_not_deployable(
    session: Recorder, shapes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton_jupyter.serving import pictures

    def mirrored(content: bytes, **size: int) -> Any:
        return pixels.decode(content, **size)[:, :, ::-1]

    monkeypatch.setattr(pictures, "decode", mirrored)
    trained = fitted(session, shapes)
    assert not trained.card.is_deployable and "The graph is off by" in trained.card.why_not


def test_large_images_are_proved_beside_no_request_and_in_moderate_numbers() -> None:
    large = ImageInput(height=224, width=224, channels=3)
    schema = Schema(columns=(), tensor_shape=large.shape, image=large)
    assert n_real(schema) == 445 and schema.rows_at_once == 13
    before = under_way.n_bytes
    monster = ImageInput(height=4000, width=4000, channels=3)
    found = _sent(monster, [encoded(picture("RGB", (8, 8)), "PNG")] * 6)  # more than a request may have
    assert found.shape == (6, 3, 4000, 4000) and under_way.n_bytes == before


def test_planted_files_are_what_they_say() -> None:
    from lepton_jupyter.formats.pixels import inspect
    from lepton_jupyter.formats.schema import ImageInput

    modes = {what: inspect(content).mode for what, content in planted_files()}
    assert set(modes.values()) >= {"1", "L", "LA", "RGB", "RGBA", "P", "CMYK", "I;16"}
    labels, read, served = planted_rows(ImageInput(height=24, width=32, channels=3))
    assert len(labels) == len(KINDS) and np.array_equal(read, served)
    assert read.std(axis=(1, 2, 3))[labels.index("that is grey")] > 10


def test_the_same_training_packs_to_the_same_bytes(
    new_session: Callable[[], Recorder], shapes: Dataset, tmp_path: Path
) -> None:
    first, second = (fitted(new_session(), shapes, epochs=1).bundle for _ in range(2))
    assert first.manifest.files[GRAPH] == second.manifest.files[GRAPH]
    assert first.manifest.files[SCHEMA] == second.manifest.files[SCHEMA]
    for name in first.manifest.files:
        assert str(tmp_path).encode() not in first.read(name) or name == CARD


def test_predict_takes_folders_files_bytes_and_tables(once: tuple[Trained, Path]) -> None:
    from PIL import Image

    trained, root = once
    model = LoadedModel(trained.bundle)
    whole = model.predict(root)
    assert whole.columns == ["path", "prediction", "probability_circle", "probability_square"]
    assert whole["path"].to_list() == sorted(whole["path"]) and whole.height == 24
    path = root / "circle" / "3.png"
    wanted = whole.filter(pl.col("path") == "circle/3.png")["probability_circle"][0]
    content = path.read_bytes()
    image = Image.open(path)
    for rows in (path, str(path), [path], [str(path)], content, [content], image, {"image": [content]}):
        assert model.predict(rows)["probability_circle"].to_list() == [pytest.approx(wanted, abs=1e-6)], rows
    assert model.predict([str(path)])["path"].to_list() == [str(path)]
    table = pl.DataFrame({"image": [content] * 2, "path": ["a", "b"]})
    assert model.predict(table)["path"].to_list() == ["a", "b"]
    assert model.predict(pixels.decode(content, height=24, width=32, channels=3)[None])["prediction"].len() == 1
    assert model.predict([]).columns == ["prediction", "probability_circle", "probability_square"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("nowhere.png", "'nowhere.png' cannot be read"),
        ([b"hello"], "Row 0 is no image that is taken: it is no JPEG or PNG"),
        ([3], "Row 0 is a int"),
        ({"picture": [1]}, "no column 'image'"),
        ({"image": ["%%"]}, "Row 0, column 'image': it is no base64"),
    ],
)
def test_rows_that_are_no_images_are_named(once: tuple[Trained, Path], rows: Any, said: str) -> None:
    with pytest.raises(LeptonError, match=said):
        LoadedModel(once[0].bundle).predict(rows)


def test_it_is_evaluated_on_files_that_another_dataset_sees_otherwise(
    once: tuple[Trained, Path], tmp_path: Path
) -> None:
    bundle, other = once[0].bundle, dataset_of(tmp_path, once[1], image_size="8")
    sample = score_split(bundle, other, "test", version="Net@1")
    table = LoadedModel(bundle).predict([once[1] / path for path in other.table("test")["path"]])
    assert sample.probability is not None
    assert np.allclose(sample.probability[:, 0], table["probability_circle"], atol=1e-6)


def test_evaluating_on_arrays_says_what_is_wanted(once: tuple[Trained, Path], tmp_path: Path) -> None:
    home = Home(tmp_path / "home").make()
    labels = np.array(["circle", "square"] * 20)
    add(home, Data(name="arrays", source="pair", target=("class",)), (np.zeros((40, 3, 24, 32)), {"class": labels}))
    with pytest.raises(LeptonError, match=r"holds rows of shape \(3, 24, 32\); Net@1 takes images of 32x24 RGB"):
        score_split(once[0].bundle, Store(home).open("arrays"), "test", version="Net@1")


def test_a_trained_network_is_saved_with_its_images(tmp_path: Path, shapes: Dataset) -> None:
    bundle = save(model=Net((3, 24, 32), 2), name="net", run_id="r1", folder=tmp_path / "bundle", dataset=shapes)
    assert bundle.card.is_deployable, bundle.card.why_not
    assert bundle.schema.image == shapes.schema.image


def test_a_file_that_was_changed_stops_the_training_by_name(session: Recorder, shapes: Dataset) -> None:
    path = shapes.pictures._root / shapes.table("train")["path"][0]
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(LeptonError, match=f"{path.name}' is not what it was"):
        fitted(session, shapes)


@pytest.mark.slow
def test_mlflow_loads_it_without_us(once: tuple[Trained, Path], tmp_path: Path) -> None:
    from lepton_jupyter.backend.tracking import write_artifact

    trained, root = once
    version = msgspec.convert(
        {"model": "Net", "number": 1, "run_id": "r1", "bundle": str(trained.bundle.root), "is_deployable": True,
         "manifest_hash": trained.bundle.manifest_hash, "created_at": 0.0},
        VersionView,
    )  # fmt: skip
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    write_artifact(artifact, version, "mlflow-run")
    assert "pillow" in (artifact / "requirements.txt").read_text()
    path = root / "circle" / "3.png"
    shutil.copy(path, tmp_path / "one.png")
    code = (
        "import base64, sys; sys.modules['lepton_jupyter'] = None\n"
        "import mlflow, pandas as pd\n"
        f"model = mlflow.pyfunc.load_model({str(artifact)!r}); content = open('one.png', 'rb').read()\n"
        "rows = pd.DataFrame({'image': [content, base64.b64encode(content).decode()], 'path': ['a', 'b']})\n"
        "print(model.predict(rows).to_csv(index=False))\n"
        "try: model.predict(pd.DataFrame({'image': ['one.png']}))\n"
        "except Exception as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.strip().splitlines()
    wanted = LoadedModel(trained.bundle).predict([path.read_bytes()])
    assert head == "path,prediction,probability_circle,probability_square"
    for name, line in zip("ab", (line.split(",") for line in lines[:2]), strict=True):
        assert line[0] == name and float(line[2]) == pytest.approx(wanted["probability_circle"][0], abs=1e-6)
    assert "Column 'image', row 0" in done.stdout
