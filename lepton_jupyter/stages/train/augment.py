"""Augmentation of training batches, on their device: flip, crop, noise and mixup by name, or the notebook's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  as torch's own pages write it

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.preflight import augment_of

# B batch, C channels, H height, W width, K classes

N_QUANTILES = 4096  # of mixup's Beta: a draw is one of them, which is a look-up on the device

Batch = tuple[Tensors, torch.Tensor]
# Whole batches in, whole batches out; what it draws comes from the generator.
Augment = Callable[[Tensors, torch.Tensor, torch.Generator], Batch]


def make_augment(job: Job, feed: Feed, head: Head) -> Augment | None:
    """Return what changes a job's training batches, in the order of the flags; None where nothing does.

    Raises
    ------
    LeptonError
        If a word is unknown, or means nothing for these rows or this loss.
    """
    words = job.spec.augment
    if not words:
        return None
    return Chain([_step(job, feed, head, word) for word in words], feed)


def check_augment(job: Job, feed: Feed, head: Head, inputs: Tensors) -> None:
    """Put some training rows through each augmentation of a job, and throw the answer away.

    Parameters
    ----------
    job : Job
    feed : Feed
    head : Head
    inputs : tuple of Tensor
        As the model takes them.

    Raises
    ------
    LeptonError
        If one changes the batch's shape or kind; it is named. Errors of the user's own code pass as they are.
    """
    __tracebackhide__ = True
    codes = torch.zeros(len(inputs[0]), dtype=torch.int64)
    target = codes if head.kind == "softmax" else codes.float()
    given = tuple(tensor.clone() for tensor in feed.given(inputs))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for word in job.spec.augment:
            step = _step(job, feed, head, word)
            try:
                found, found_target = step(given, target, torch.Generator().manual_seed(0))
            except LeptonError:
                raise
            except Exception as error:
                error.add_note(f"The augmentation '{word}' was given {feed.describe(given)}: the first training rows.")
                raise
            _compare(word, feed, given, found)
            if len(found_target) != len(target):
                raise LeptonError(
                    f"The augmentation '{word}' gives {len(found_target)} targets for {len(target)} rows.",
                    "Return as many targets as rows.",
                )


def _compare(word: str, feed: Feed, given: Tensors, found: Any) -> None:
    for before, after in zip(given, found, strict=True):
        if not torch.is_tensor(after) or after.shape != before.shape or after.dtype != before.dtype:
            said = feed.describe((after,) * len(given)) if torch.is_tensor(after) else f"a {type(after).__name__}"
            raise LeptonError(
                f"The augmentation '{word}' changes the batch: {feed.describe(given)} went in, {said} came out.",
                "Return a tensor of the same shape and dtype.",
            )


class Chain:
    """Several augmentations, one after the other."""

    def __init__(self, steps: Sequence[Augment], feed: Feed) -> None:
        self.steps, self.feed = tuple(steps), feed

    def __call__(self, inputs: Tensors, target: torch.Tensor, draw: torch.Generator) -> Batch:
        """Return the batch, changed."""
        __tracebackhide__ = True
        inputs = self.feed.given(inputs)
        for step in self.steps:
            inputs, target = step(inputs, target, draw)
        return inputs, target


def _step(job: Job, feed: Feed, head: Head, word: str) -> Augment:
    own: Any = job.names.get(f"augment:{word}")
    if own is not None:
        return Own(own)
    name, number = augment_of(word)
    if "tokens" in feed.names and name in ("noise", "mixup"):
        raise LeptonError(
            f"--augment {word} changes numbers, and '{job.name}' takes tokens of text.",
            "Leave it out, or give an augmentation of your own: a name in the notebook.",
        )
    if name == "noise":
        return Noise(number)
    if name == "mixup":
        _refuse_mixup(job, feed, head)
        return Mixup(number, head.n_outputs)
    shape = job.schema.tensor_shape
    if shape is None or len(shape) not in (2, 3):
        found = "a table" if shape is None else f"arrays of shape {list(shape)}"
        raise LeptonError(
            f"--augment {word} changes images, and '{job.dataset.ref}' is {found}.",
            "Leave it out. For tables there are noise and mixup."
            if shape is None
            else "Images are [C, H, W] or [H, W].",
        )
    if name == "flip":
        return Flip(number)
    if number >= min(shape[-2:]):
        raise LeptonError(
            f"--augment {word} may move images of {min(shape[-2:])} pixels out of sight.",
            f"Try --augment crop={max(1, min(shape[-2:]) // 8)}.",
        )
    return Crop(int(number))


def _refuse_mixup(job: Job, feed: Feed, head: Head) -> None:
    """Refuse to mix where half of each of two rows, or of their targets, has no meaning."""
    if "categorical" in feed.names:
        raise LeptonError(
            f"--augment mixup mixes numbers, and '{job.name}' takes codes of categories.",
            "Leave it out, or let forward take one tensor.",
        )
    own = job.names.get("loss")
    if head.kind != "softmax" or (own is None and job.spec.loss == "auto"):
        return
    cls = own if inspect.isclass(own) else type(own)
    word = job.spec.loss.lower().replace("_", "").replace("-", "").removesuffix("loss")
    if not (issubclass(cls, nn.CrossEntropyLoss) if own is not None else word in ("crossentropy", "bcewithlogits")):
        raise LeptonError(
            f"--augment mixup gives a row two classes, which --loss {job.spec.loss} does not take.",
            "Try --loss auto.",
        )


def _uniform(n: int, draw: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    return torch.rand(n, generator=draw, device=draw.device).to(like.device)


@dataclass(frozen=True)
class Flip:
    """Mirror a share of the images left to right."""

    share: float

    def __call__(self, inputs: Tensors, target: torch.Tensor, draw: torch.Generator) -> Batch:
        """Return the batch, changed."""
        x = inputs[0]
        is_flipped = _uniform(len(x), draw, x) < self.share
        return (torch.where(is_flipped.reshape(-1, *(1,) * (x.ndim - 1)), x.flip(-1), x), *inputs[1:]), target


@dataclass(frozen=True)
class Crop:
    """Move each image by up to so many pixels, zeros coming in at its edges: the crop of a padded image.

    K. He et al. (2016), "Deep residual learning for image recognition", section 4.2.
    """

    n_pixels: int

    def __call__(self, inputs: Tensors, target: torch.Tensor, draw: torch.Generator) -> Batch:
        """Return the batch, changed."""
        x = inputs[0]
        n, (height, width), pad = len(x), x.shape[-2:], self.n_pixels
        offsets = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=draw, device=draw.device).to(x.device)
        rows = offsets[0] + torch.arange(height, device=x.device)  # [B, H]
        columns = offsets[1] + torch.arange(width, device=x.device)  # [B, W]
        padded = F.pad(x, (pad, pad, pad, pad))
        flat = padded.reshape(n, -1, *padded.shape[-2:])  # [B, C, H + 2 pad, W + 2 pad]
        picked = flat.gather(2, rows[:, None, :, None].expand(-1, flat.shape[1], -1, flat.shape[3]))
        picked = picked.gather(3, columns[:, None, None, :].expand(-1, flat.shape[1], height, -1))
        return (picked.reshape(x.shape), *inputs[1:]), target


@dataclass(frozen=True)
class Noise:
    """Add normal noise to the numbers: to prepared features in units of a standard deviation."""

    spread: float

    def __call__(self, inputs: Tensors, target: torch.Tensor, draw: torch.Generator) -> Batch:
        """Return the batch, changed."""
        x = inputs[0]
        noise = torch.randn(x.shape, generator=draw, device=draw.device).to(x.device, x.dtype)
        return (x + self.spread * noise, *inputs[1:]), target


class Mixup:
    """Mix each row, and its target, with another one of the batch.

    H. Zhang et al. (2018), "mixup: beyond empirical risk minimization"; each row draws a share of its own from
    Beta(alpha, alpha).
    """

    def __init__(self, alpha: float, n_classes: int) -> None:
        from scipy.special import betaincinv  # its import is slow, and few runs mix

        self.n_classes = n_classes
        levels = (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
        self.quantiles = torch.from_numpy(betaincinv(alpha, alpha, levels).astype(np.float32))

    def __call__(self, inputs: Tensors, target: torch.Tensor, draw: torch.Generator) -> Batch:
        """Return the batch, changed; codes become float32 [B, K], the share of each class."""
        x = inputs[0]
        if self.quantiles.device != x.device:
            self.quantiles = self.quantiles.to(x.device)
        share = self.quantiles[(_uniform(len(x), draw, x) * N_QUANTILES).long()]
        other = torch.randperm(len(x), generator=draw, device=draw.device).to(x.device)
        if not target.is_floating_point():
            target = F.one_hot(target, self.n_classes).to(x.dtype)
        return tuple(_mixed(part, share, other) for part in inputs), _mixed(target, share, other)


def _mixed(rows: torch.Tensor, share: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    weight = share.reshape(-1, *(1,) * (rows.ndim - 1)).to(rows.dtype)
    return torch.lerp(rows[other], rows, weight)


class Own:
    """The notebook's callable or module: of the rows, or of the rows and their targets where it names two."""

    def __init__(self, function: Callable[..., Any]) -> None:
        made: Any = function() if inspect.isclass(function) else function
        self.function: Any = made
        self.takes_target = _n_required(made) == 2
        self._is_placed = not isinstance(made, nn.Module)

    def __call__(self, inputs: Tensors, target: torch.Tensor, draw: torch.Generator) -> Batch:
        """Return the batch, changed."""
        __tracebackhide__ = True
        x, *rest = inputs
        if not self._is_placed:
            self.function.to(x.device)
            self._is_placed = True
        if self.takes_target:
            x, target = self.function(x, target)
        else:
            x = self.function(x)
        return (x, *rest), target


def _n_required(function: Callable[..., Any]) -> int:
    """Return how many arguments must be given by position."""
    counted = function.forward if isinstance(function, nn.Module) else function
    try:
        parameters = inspect.signature(counted).parameters.values()
    except (TypeError, ValueError):  # built in
        return 1
    return sum(
        one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters
    )
