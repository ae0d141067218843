"""Batched matrices: the gradients that are written out are those of autograd."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  torch's own way to call it
from torch import nn

from lepton_jupyter.stages.tune.matrices import Matrices
from lepton_jupyter.stages.tune.stacked import NotStackableError, Table, by_autograd

N_TRIALS, N_ROWS, N_FEATURES = 3, 6, 5


class Functional(nn.Module):
    """Functions and methods in the place of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(N_FEATURES, 4), nn.Linear(4, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(F.relu(self.first(x * 2), inplace=True).tanh() + 1)


class Twice(nn.Module):
    """Two steps take the same tensor: no chain."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(N_FEATURES, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        return h + self.second(h)


class Tied(nn.Module):
    """One layer is used twice: no chain."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(N_FEATURES, N_FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(x)))


def chain(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(N_FEATURES, 4), *between, nn.Linear(4, 2))


CHAINS = {
    "relu": lambda: chain(nn.ReLU()),
    "in-place": lambda: chain(nn.ReLU(inplace=True), nn.ELU(inplace=True)),
    "several": lambda: chain(nn.Tanh(), nn.ReLU(), nn.ReLU(), nn.GELU(), nn.Identity()),
    "rows-first": lambda: nn.Sequential(nn.ReLU(), nn.Tanh(), chain(nn.SiLU())),
    "relu-last": lambda: nn.Sequential(chain(nn.Sigmoid()), nn.ReLU()),
    "linear-alone": lambda: nn.Sequential(nn.Linear(N_FEATURES, 1)),
    "functional": Functional,
}
GRAPHS = {"residual": Twice, "tied": Tied}


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("kind", [*CHAINS, *GRAPHS])
def test_gradients_are_those_of_autograd(kind: str, is_shared: bool) -> None:
    torch.manual_seed(0)
    modules = [(CHAINS | GRAPHS)[kind]() for _ in range(N_TRIALS)]
    forward = Matrices(modules[0])
    assert bool(forward._chain) is (kind in CHAINS)
    table = Table(modules, torch.device("cpu"))
    x = torch.randn(N_ROWS, N_FEATURES) if is_shared else torch.randn(N_TRIALS, N_ROWS, N_FEATURES)
    before = x.clone()

    def losses_of(outputs: torch.Tensor) -> torch.Tensor:
        return (outputs**2).flatten(1).mean(1)

    leaves = list(table.leaves)
    losses, gradients = forward.gradients(table.weights, leaves, (x,), losses_of, is_shared=is_shared)
    wanted, theirs = by_autograd(forward, table.weights, leaves, (x,), losses_of, is_shared=is_shared)
    torch.testing.assert_close(losses, wanted)
    torch.testing.assert_close(gradients, theirs)
    assert torch.equal(x, before)


def test_dropout_leaves_gaps_in_values_and_gradients_alike() -> None:
    module = chain(nn.Dropout(0.5))
    forward, table = Matrices(module), Table([module, copy.deepcopy(module)], torch.device("cpu"))
    x = torch.ones(N_ROWS, N_FEATURES)
    found = []
    for way in (forward.gradients, lambda *args, **keywords: by_autograd(forward, *args, **keywords)):
        torch.manual_seed(0)
        found.append(way(table.weights, list(table.leaves), (x,), lambda y: y.flatten(1).mean(1), is_shared=True))
    torch.testing.assert_close(found[0], found[1])


def test_what_is_no_function_of_single_numbers_is_refused() -> None:
    with pytest.raises(NotStackableError, match="no linear layer"):
        Matrices(chain(nn.LayerNorm(4)))
