"""Modules of linear layers and of functions of single numbers as batched matrices, for small ones the fastest way.

Where such a module is a chain, its gradients are written out too: an autograd graph costs as much as the products.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  torch's own way to call it
from torch import fx, nn

from lepton_jupyter.stages.train.feed import Tensors
from lepton_jupyter.stages.tune.stacked import RATE, LossesOf, NotStackableError, Weights, by_autograd, dropped

# T trials, B rows

OF_NUMBERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Identity,
)  # fmt: skip
FUNCTIONS = (
    torch.relu, F.relu, torch.tanh, F.tanh, torch.sigmoid, F.sigmoid, F.gelu, F.silu, F.elu, F.leaky_relu, F.mish,
    F.softplus, operator.add, operator.sub, operator.mul, torch.add, torch.sub, torch.mul,
)  # fmt: skip
METHODS = ("relu", "tanh", "sigmoid")

Operation = Callable[..., torch.Tensor]  # of all trials at once: ``operation(weights, is_training, *args)``


class Matrices:
    """Batched matrices: every linear layer is one `torch.baddbmm` for all trials."""

    name = "batched matrices"

    def __init__(self, module: nn.Module) -> None:
        try:
            twin = copy.deepcopy(module).eval()
            graph = fx.symbolic_trace(twin).graph
        except Exception as error:  # whatever the user's forward does that cannot be traced
            raise NotStackableError(str(error)) from error
        parts = dict(twin.named_modules())
        for part in parts.values():
            if hasattr(part, "inplace"):
                part.inplace = False  # nothing writes over what a gradient needs
        self._steps: list[tuple[str, Operation, Any, dict[str, Any]]] = []
        for node in graph.nodes:
            if node.op == "placeholder":
                self._input = node.name
            elif node.op == "output":
                self._output = node.args[0]
            else:
                self._steps.append((node.name, _operation(node, parts), node.args, _without_inplace(node.kwargs)))
        if not isinstance(self._output, fx.Node) or sum(node.op == "placeholder" for node in graph.nodes) != 1:
            raise NotStackableError("its forward takes or returns more than one tensor")
        self._chain = self._links() if self._is_chain(module) else []

    def __call__(self, weights: Weights, inputs: Tensors, *, is_shared: bool, is_training: bool) -> torch.Tensor:
        """Return the outputs [T, B, …]."""
        known: dict[str, Any] = {self._input: inputs[0]}

        def look(value: Any) -> Any:
            return known[value.name] if isinstance(value, fx.Node) else value

        for name, operation, args, keywords in self._steps:
            given = [look(arg) for arg in args]
            known[name] = operation(weights, is_training, *given, **{key: look(arg) for key, arg in keywords.items()})
        found: torch.Tensor = known[self._output.name]
        return found

    def _is_chain(self, module: nn.Module) -> bool:
        """Whether every step takes what the one before gave and nothing else, and every weight is used once."""
        last = self._input
        for name, _, args, keywords in self._steps:
            taken = [arg.name for arg in (*args, *keywords.values()) if isinstance(arg, fx.Node)]
            if taken != [last] or not isinstance(args[0], fx.Node):
                return False
            last = name
        layers = [operation for _, operation, _, _ in self._steps if isinstance(operation, _Linear)]
        used = sorted(name for layer in layers for name in layer.names)
        return last == self._output.name and used == sorted(name for name, _ in module.named_parameters())

    def _links(self) -> list[Operation]:
        """Return the steps of a chain, each to be called as ``link(weights, True, x)``."""
        return [
            operation if isinstance(operation, _Linear) or operation is _relu else _bound(operation, args[1:], keywords)
            for _, operation, args, keywords in self._steps
        ]

    def gradients(
        self, weights: Weights, leaves: Sequence[str], inputs: Tensors, losses_of: LossesOf, *, is_shared: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return each trial's loss [T] and the gradients of its leaves, each [T, *shape]."""
        if not self._chain or torch.is_autocast_enabled(inputs[0].device.type):
            return by_autograd(self, weights, leaves, inputs, losses_of, is_shared=is_shared)
        given: list[Any] = []  # what each link's gradient needs
        with torch.no_grad():
            x, is_own = inputs[0], False
            for link in self._chain:
                if isinstance(link, _Linear):
                    given.append(x)
                    x, is_own = link(weights, True, x), True
                elif link is _relu:
                    x = torch.relu_(x) if is_own else torch.relu(x)
                    given.append(x)
                else:
                    with torch.enable_grad():
                        x = x.detach().requires_grad_()
                        y = link(weights, True, x)
                    given.append((x, y))
                    x, is_own = y.detach(), False
        x = x.detach().requires_grad_()
        losses = losses_of(x)
        (gradient,) = torch.autograd.grad(losses.sum(), (x,))
        found: Weights = {}
        with torch.no_grad():
            for link, seen in zip(reversed(self._chain), reversed(given), strict=True):
                if isinstance(link, _Linear):
                    link.add_gradients(found, gradient, seen)
                    if len(found) == len(leaves):
                        break  # the rows themselves need none
                    gradient = torch.bmm(gradient, weights[link.weight])
                elif link is _relu:
                    gradient = torch.ops.aten.threshold_backward(gradient, seen, 0)
                else:
                    with torch.enable_grad():  # `grad_outputs` would import sympy
                        (gradient,) = torch.autograd.grad((seen[1] * gradient).sum(), (seen[0],))
        return losses.detach(), [found[name] for name in leaves]


class _Linear:
    """A linear layer of all trials."""

    def __init__(self, name: str, *, has_bias: bool) -> None:
        self.weight = f"{name}.weight"
        self.bias = f"{name}.bias" if has_bias else None
        self.names = [self.weight, self.bias] if self.bias else [self.weight]

    def __call__(self, weights: Weights, is_training: bool, x: torch.Tensor) -> torch.Tensor:
        """Return [T, B, out] of [T, B, in], or of rows [B, in] that all share."""
        weight = weights[self.weight].transpose(1, 2)
        if x.ndim == 2:
            x = x.expand(len(weight), *x.shape)
        if x.ndim != 3:
            raise NotStackableError("a linear layer is given more than rows of numbers")
        return torch.baddbmm(weights[self.bias].unsqueeze(1), x, weight) if self.bias else torch.bmm(x, weight)

    def add_gradients(self, found: Weights, gradient: torch.Tensor, x: torch.Tensor) -> None:
        """Add the weights' gradients, by the output's [T, B, out] and the input."""
        if x.ndim == 2:
            x = x.expand(len(gradient), *x.shape)
        found[self.weight] = torch.bmm(gradient.transpose(1, 2), x)
        if self.bias:
            found[self.bias] = gradient.sum(1)


def _relu(_weights: Weights, _training: bool, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x)


def _without_inplace(keywords: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keywords.items() if key != "inplace"}


def _bound(operation: Operation, args: Any, keywords: dict[str, Any]) -> Operation:
    return lambda weights, is_training, x: operation(weights, is_training, x, *args, **keywords)


def _operation(node: fx.Node, parts: dict[str, nn.Module]) -> Operation:
    """Return what a node does, for all trials at once."""
    if node.op == "call_module":
        part = parts[str(node.target)]
        if type(part) is nn.Linear:
            return _Linear(str(node.target), has_bias=part.bias is not None)
        if type(part) is nn.Dropout:
            return _dropout(str(node.target) + RATE)
        if type(part) is nn.ReLU:
            return _relu
        if type(part) in OF_NUMBERS:
            return lambda _weights, _training, x: part(x)
    elif node.op == "call_function" and node.target in FUNCTIONS:
        if node.target in (torch.relu, F.relu):
            return _relu
        function: Any = node.target
        return lambda _weights, _training, *args, **keywords: function(*args, **keywords)
    elif node.op == "call_method" and node.target in METHODS:
        method = str(node.target)
        if method == "relu":
            return _relu
        return lambda _weights, _training, x: getattr(x, method)()
    raise NotStackableError(f"{node.target} is no linear layer and no function of single numbers")


def _dropout(name: str) -> Operation:
    def apply(weights: Weights, is_training: bool, x: torch.Tensor) -> torch.Tensor:
        if not is_training:
            return x
        rate = weights[name].reshape(-1, 1, 1)
        return dropped(x if x.ndim == 3 else x.expand(len(rate), *x.shape), rate)

    return apply
