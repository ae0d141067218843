"""Networks of torch: what they are made of, what shape they answer in, and what cannot be served."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from lepton_jupyter.stages.data.store import Dataset
from tests.stages.train.families import Case

# B batch, F features, K outputs, T rows of an image taken as time, D values of such a row


class Mlp(nn.Module):
    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, n_outputs)
        )

    def forward(self, x: torch.Tensor) -> Any:
        return self.net(x)


class Embedded(nn.Module):
    def __init__(self, n_features: int, cardinalities: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 4) for n in cardinalities)
        self.layer = nn.Linear(n_features + 4 * len(cardinalities), n_outputs)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        parts = [table(categorical[:, place]) for place, table in enumerate(self.tables)]
        return self.layer(torch.cat([numeric, *parts], dim=1))


class Flat(Mlp):
    """Answers [B], not [B, 1]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).squeeze(1)


class Told(Mlp):
    """Answers a dict, as many libraries do."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"hidden": x, "logits": self.net(x)}


class Paired(Mlp):
    """Answers a tuple."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.net(x), x


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind: str, n_layers: int = 1, is_both_ways: bool = False) -> None:
        super().__init__()
        made = getattr(nn, kind)
        self.body = made(8, 16, num_layers=n_layers, bidirectional=is_both_ways, batch_first=True)
        self.head = nn.Linear(32 if is_both_ways else 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.body(x.squeeze(1))  # [B, T, D] to [B, T, H]
        return self.head(states[:, -1])


class Attentive(nn.Module):
    """A transformer over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.place = nn.Parameter(torch.zeros(8, 16))
        self.inside = nn.Linear(8, 16)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.inside(x.squeeze(1)) + self.place).mean(1))


class Mixing(Mlp):
    """Centres a row by the others of its batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x - x.mean(0))


class Branching(Mlp):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 0:
            return self.net(x)
        return self.net(-x)


def trained(make: Callable[..., nn.Module], dataset: Dataset, *, n_outputs: int = 0) -> nn.Module:
    """Return a module trained a little by a loop of its own, on the raw rows, as somebody else would have."""
    torch.manual_seed(0)
    schema = dataset.schema
    rows: Any = dataset.tensors("train") if schema.tensor_shape is not None else dataset.packed("train").num
    x = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    is_number = schema.task == "regression"
    y = torch.from_numpy(np.ascontiguousarray(dataset.targets("train"))).to(torch.float32 if is_number else torch.int64)
    n_outputs = n_outputs or len(schema.classes) or y.shape[1]
    module = make() if schema.tensor_shape is not None else make(x.shape[1], n_outputs)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(20):
        output = module(x)
        output = output["logits"] if isinstance(output, dict) else output[0] if isinstance(output, tuple) else output
        if is_number:
            loss = nn.functional.mse_loss(output.reshape(y.shape), y)
        elif n_outputs == 1:
            loss = nn.functional.binary_cross_entropy_with_logits(output.reshape(-1), y.float())
        else:
            loss = nn.functional.cross_entropy(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module


def _saved(name: str, data: str, make: Callable[..., nn.Module], *, n_outputs: int = 0, refused: str = "") -> Case:
    return Case(name, data, partial(trained, make, n_outputs=n_outputs), refused=refused, is_saved=True)


CASES = (
    Case("MLP with BatchNorm and dropout", "penguins with holes", lambda: Mlp, {"epochs": 2}),
    Case("embeddings", "penguins with holes", lambda: Embedded, {"epochs": 2}),
    _saved("MLP, one logit [B]", "tumours", Flat, n_outputs=1),
    _saved("MLP, one logit [B, 1]", "tumours", Mlp, n_outputs=1),
    _saved("MLP, two logits", "tumours", Mlp),
    _saved("MLP, one number [B]", "diabetes", Flat),
    _saved("MLP, one number [B, 1]", "diabetes", Mlp),
    _saved("MLP, answer in a dict", "tumours", Told),
    _saved("MLP, answer in a tuple", "diabetes", Paired),
    _saved("CNN", "digits", Conv),
    Case("CNN, of PNG and JPEG files", "digits in files", lambda: Conv, {"epochs": 2}),
    _saved("RNN", "digits", partial(Recurrent, "RNN")),
    _saved("LSTM, two layers both ways", "digits", partial(Recurrent, "LSTM", 2, True)),
    _saved("GRU", "digits", partial(Recurrent, "GRU")),
    _saved("transformer", "digits", Attentive),
    _saved("a module that mixes rows", "tumours", Mixing, refused="it mixes rows"),
    _saved("a module that branches on data", "tumours", Branching, refused="takes another way depending on the data"),
)
