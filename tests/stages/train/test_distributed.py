"""Two processes that train as one, on the CPU: the same curve as one process that sees the same batches."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.stages.data.ingest import add
from lepton_jupyter.stages.data.spec import Data
from lepton_jupyter.stages.data.store import Store
from lepton_jupyter.stages.train.checkpoints import read_checkpoint
from lepton_jupyter.stages.train.engine import train
from lepton_jupyter.stages.train.frameworks.torch import TorchFramework
from lepton_jupyter.stages.train.job import Job, settle_task
from lepton_jupyter.stages.train.loaders import loaders_of
from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.train.state_file import read_state
from tests.stages.train.conftest import Recorder

TOLERANCE = 1e-5  # float32 sums in another order


class Told(Recorder):
    """A session that keeps each piece of telemetry, on two devices."""

    devices = ("cpu-0", "cpu-1")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.steps: list[dict[str, float]] = []

    def telemetry(self, **values: float) -> None:
        self.steps.append(values)


class Net(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_features, 16), nn.Tanh(), nn.Linear(16, n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Normed(nn.Module):
    """Has statistics over rows, and weights that no step uses."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_features, 16, bias=False)  # a bias has no gradient here but noise, which Adam follows
        self.norm = nn.BatchNorm1d(16, momentum=None)
        self.last = nn.Linear(16, n_outputs)
        self.idle = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


class Own(Net):
    """Has a training step of its own."""

    def training_step(self, batch: Any) -> dict[str, torch.Tensor]:
        x, y = batch
        return {"loss": 2 * nn.functional.cross_entropy(self(x), y)}


class Dropping(Net):
    """Draws from torch's generator and from numpy's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 0.01 * float(np.random.normal()) if self.training else x
        return self.net(nn.functional.dropout(x, 0.3, self.training))


CASES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "plain": (Net, {}),
    "everything": (
        Net,
        {"optimizer": "sgd", "optimizer_args": {"momentum": 0.9}, "clip": 0.5, "accumulate": 3, "ema": 0.9}
        | {"augment": ("noise=0.1", "mixup=0.2"), "lr_scheduler": "one-cycle", "metric": "accuracy"},
    ),
    "weighted": (Net, {"class_weight": "balanced", "label_smoothing": 0.1}),
    "normed": (Normed, {}),
    "own step": (Own, {}),
    "few rows": (Normed, {"batch_size": 3, "epochs": 5}),
    "sharded": (Net, {"shard": True}),
    "sharded, everything": (Own, {"shard": True, "ema": 0.9, "clip": 0.1, "accumulate": 2, "augment": ("noise=0.1",)}),
}
MORE: dict[str, tuple[type[nn.Module], dict[str, Any], int]] = {  # the last: at which stride it is stopped
    "never stopped": (Dropping, {"epochs": 5}, -1),
    "stopped": (Dropping, {"epochs": 5}, 6),
    "stopped, then on": (Dropping, {"epochs": 5}, -1),
    "from one": (Net, {"lr_scheduler": "constant"}, -1),
    "diverging": (Net, {"optimizer": "sgd", "lr": 3e38}, -1),
}


@dataclass
class Found:
    """A folder, and what both ranks told."""

    folder: Path
    first: dict[str, Any]
    second: dict[str, Any]


def often() -> None:
    """Let a stride be one step, and tell of each."""
    from lepton_jupyter.stages.train import checkpoints, loop, strides

    strides.STRIDE_S = loop.TELL_S = loop.PAUSE_S = checkpoints.PAUSE_S = 0.0
    checkpoints.COST_SHARE = 1e9


def spec_of(flags: dict[str, Any]) -> Train:
    return Train(model="Net", data="few", **{"lr": 0.01, "batch_size": 18, "epochs": 34} | flags)


def alone(session: Told, home: Path, model: type[nn.Module], flags: dict[str, Any]) -> None:
    spec = spec_of({**flags, "shard": False})
    fitted = TorchFramework().fit(model, Job(session, spec, settle_task(Store(Home(home)).open("few"), "auto"), "Net"))
    fitted.close()


def rank(number: int, port: int, home: Path, asked: list[tuple[Path, type[nn.Module], dict[str, Any], int]]) -> None:
    """Train what is asked as one of two ranks, one after the other; leave what was told beside the checkpoints."""
    from lepton_jupyter.stages.train.distributed import train_as_rank

    often()
    torch.set_num_threads(1)
    for i, (folder, model, flags, n_strides) in enumerate(asked):
        os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {"MASTER_PORT": str(port + i), "GLOO_SOCKET_IFNAME": "lo"}
        session = Told(folder)
        seen = iter(range(10**9))
        session.stop_when = lambda: number == 1 and next(seen) == n_strides  # noqa: B023  the rank that writes nothing
        error = ""
        try:
            train_as_rank(session, model, Store(Home(home)).open("few"), spec_of(flags), names={})
        except LeptonError as raised:
            error = raised.message
        dist.destroy_process_group()
        told = {"steps": session.steps, "metrics": session.metrics, "notes": session.notes, "error": error}
        (folder / f"told{i}-{number}.json").write_text(json.dumps(told))


def free_ports(n: int) -> int:
    """Return the first of so many free ports in a row, below those that the system gives to whoever asks for one."""
    while True:
        first = random.randrange(20_000, 30_000)
        try:
            for port in range(first, first + n):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


def in_ranks(home: Path, asked: list[tuple[Path, type[nn.Module], dict[str, Any], int]]) -> list[list[dict[str, Any]]]:
    port = free_ports(len(asked))
    context = get_context("spawn")
    processes = [context.Process(target=rank, args=(number, port, home, asked)) for number in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
        assert process.exitcode == 0
    return [
        [json.loads((folder / f"told{i}-{n}.json").read_text()) for n in (0, 1)] for i, (folder, *_) in enumerate(asked)
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of three classes and 60 training rows: batches of 18 end with one of 6, shares of 3 are uneven."""
    root: Path = tmp_path_factory.mktemp("ranks") / "home"
    rng = np.random.default_rng(0)
    rows = [
        {"a": float(rng.normal() + i % 3), "b": float(rng.normal() - i % 3), "y": "ppqpqr"[i % 6]} for i in range(101)
    ]
    add(Home(root).make(), Data(name="few", source="table", target=("y",)), pl.DataFrame(rows))
    return root


@pytest.fixture(scope="module")
def found(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What two ranks told of each case; both are started once for all of them."""
    folders = {name: tmp_path_factory.mktemp("case") for name in (*CASES, *MORE)}
    folders["stopped, then on"] = folders["stopped"]
    alone(Told(folders["from one"]), home, Net, {"lr_scheduler": "constant", "epochs": 10})
    asked = [(folders[name], model, flags, -1) for name, (model, flags) in CASES.items()]
    asked += [(folders[name], model, flags, n_strides) for name, (model, flags, n_strides) in MORE.items()]
    told = in_ranks(home, asked)
    return {name: Found(folders[name], *both) for name, both in zip((*CASES, *MORE), told, strict=True)}


def losses(steps: list[dict[str, float]]) -> npt.NDArray[np.float64]:
    return np.array([step["loss"] for step in steps])


def tell_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("strides.STRIDE_S", "loop.TELL_S", "loop.PAUSE_S", "checkpoints.PAUSE_S"):
        monkeypatch.setattr(f"lepton_jupyter.stages.train.{place}", 0.0)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_give_the_curve_of_one_process(
    name: str, home: Path, tmp_path: Path, found: dict[str, Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_each_step(monkeypatch)
    session = Told(tmp_path)
    alone(session, home, *CASES[name])
    one, two = losses(session.steps), losses(found[name].first["steps"])
    assert len(one) >= 100 and len(one) == len(two)
    assert np.abs(one - two).max() < TOLERANCE
    for ours, theirs in zip(session.metrics, found[name].first["metrics"], strict=True):
        for key in ours.keys() - {"rows_per_s"}:
            assert ours[key] == pytest.approx(theirs[key], abs=TOLERANCE), key


def test_what_a_stop_tells_one_rank_stops_all_and_they_go_on_to_the_last_bit(found: dict[str, Found]) -> None:
    stopped, again, whole = found["stopped"], found["stopped, then on"], found["never stopped"]
    assert len(stopped.first["steps"]) == len(stopped.second["steps"]) == 7
    assert again.first["notes"]["resumed"] == {"epoch": 2, "step": 3}
    assert (losses(stopped.first["steps"] + again.first["steps"]) == losses(whole.first["steps"])).all()
    states = [read_state(one.folder / "checkpoints" / "last.safetensors")["module"] for one in (again, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_a_run_goes_on_with_another_number_of_devices(
    found: dict[str, Found], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found["from one"].first["notes"]["resumed"] == {"epoch": 11, "step": 0}
    tell_each_step(monkeypatch)
    session = Told(tmp_path)
    alone(session, home, Net, {"lr_scheduler": "constant"})
    assert np.abs(losses(session.steps[40:]) - losses(found["from one"].first["steps"])).max() < TOLERANCE
    for name in ("plain", "sharded"):
        folder = tmp_path / name
        shutil.copytree(found[name].folder / "checkpoints", folder / "checkpoints")
        session = Told(folder)
        alone(session, home, Net, {"epochs": 36})
        assert session.notes["resumed"] == {"epoch": 35, "step": 0}
        best = read_checkpoint(folder / "checkpoints")
        assert best is not None and best[0].keys() == Net(2, 3).state_dict().keys()


def test_every_rank_names_the_step_at_which_the_loss_is_no_number(found: dict[str, Found]) -> None:
    one = found["diverging"]
    assert one.first["error"] == one.second["error"]
    assert one.first["error"].startswith("The loss became ") and "in epoch 1" in one.first["error"]


def test_only_the_first_rank_writes(found: dict[str, Found]) -> None:
    outcome = json.loads((found["plain"].folder / "checkpoints" / "outcome.json").read_text())
    assert outcome["epochs"] == 34 and outcome["stopped_at"] is None
    assert outcome["history"]["val_loss"] == [told["val_loss"] for told in found["plain"].first["metrics"]]


@pytest.mark.parametrize(
    ("devices", "spec", "said"),
    [
        (("cpu-0", "cpu-1"), {"model": "forest"}, "'forest' is a model of sklearn, which trains on one device"),
        (("cpu-0", "cpu-1"), {"model": "loaded"}, "'few' is a loader that draws its own order, which 2 processes"),
        (("cpu-0", "cpu-1"), {"model": "Net", "compile": "yes"}, "--compile yes means nothing on several devices"),
        (("cpu-0",), {"model": "Net", "shard": True}, "--shard lays a model out over several devices; this run has"),
        (("cpu-0", "cpu-1"), {"model": "Net", "shard": True, "optimizer": "muon"}, "Muon steps whole matrices"),
    ],
)
def test_what_does_not_fit_several_devices_is_refused_before_they_start(
    home: Path, tmp_path: Path, devices: tuple[str, ...], spec: dict[str, Any], said: str
) -> None:
    from sklearn.ensemble import RandomForestClassifier

    session = Told(tmp_path)
    session.devices = devices  # type: ignore[assignment]
    model: Any = RandomForestClassifier() if spec["model"] == "forest" else Net
    data: Any = Store(Home(home)).open("few")
    if spec["model"] == "loaded":
        rows = TensorDataset(torch.randn(20, 2), torch.arange(20) % 2)
        data = loaders_of(DataLoader(rows, batch_size=5, shuffle=True), Train(model="Net", data="few"))

    def never(_: Any) -> None:
        raise AssertionError("the ranks were started")

    with pytest.raises(LeptonError, match=said):
        train(session, model, data, Train(data="few", **spec), ranks=never)
