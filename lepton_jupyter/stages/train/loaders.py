"""A torch Dataset or DataLoader of the notebook's own, used as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import SPLITS
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.stages.data.splits import parse_shares
from lepton_jupyter.stages.train.batches import Batch
from lepton_jupyter.stages.train.examples import Example, read_example
from lepton_jupyter.stages.train.feed import auto_batch_size
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import with_threshold
from lepton_jupyter.stages.train.spec import Train

WANTED = "Let each item be a pair (x, y) of tensors, x float and y a class's number or numbers to predict."


class Loaders(Example):
    """The notebook's own loaders in place of a dataset: nobody knows their rows but they themselves.

    Attributes
    ----------
    by_split : dict
        A Dataset or a DataLoader for each of `SPLITS` that there is.
    """

    def __init__(self, by_split: dict[str, Any], schema: Schema, rows: Any, name: str) -> None:
        super().__init__(schema, rows)
        self.by_split = by_split
        self.ref = name

    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits that there are."""
        return tuple(self.by_split)

    @property
    def is_exact(self) -> bool:
        """Whether its order is ours to draw: it is tensors in memory."""
        return tensors_in(self.by_split["train"]) is not None

    def targets(self, split: str | None = None, some: Any = None) -> Any:
        """Raise: targets come with their batches."""
        raise LeptonError(
            f"'{self.ref}' is a loader: its targets are known only batch by batch.",
            "Leave out --class-weight and --scale-target, or give arrays in place of a loader.",
        )

    def head(self, split: str) -> str:
        """Return what a batch looks like."""
        x, y = first_pair(self.by_split[split], self.ref)
        return f"x {x.dtype} {list(x.shape)}, y {y.dtype} {list(y.shape)}"

    def about(self) -> str:
        """Return its name, and how many rows each split has where that is known."""
        rows = {split: n_rows_of(value) or "?" for split, value in self.by_split.items()}
        return f"{self.ref} {', '.join(f'{split} {n}' for split, n in rows.items())}"


def is_loader(value: Any) -> bool:
    """Whether a value is a Dataset or a DataLoader of torch, or two or three of them."""
    if isinstance(value, tuple):
        return 2 <= len(value) <= 3 and all(is_loader(one) for one in value)
    return isinstance(value, Dataset | DataLoader)


def loaders_of(value: Any, spec: Train) -> Loaders:
    """Return the notebook's loaders as what a training takes.

    Parameters
    ----------
    value : Dataset, DataLoader, or a tuple of two or three of them
        Training, validation, test. One Dataset is split at random by ``--split``; one DataLoader is all for training.

    Raises
    ------
    LeptonError
        If what it gives is no pair of tensors, or ``--task`` does not fit its targets.
    """
    parts = value if isinstance(value, tuple) else _split(value, spec)
    by_split = dict(zip(SPLITS, parts, strict=False))
    x, y = first_pair(parts[0], spec.data)
    example = read_example(x.numpy())
    schema = with_threshold(_with_targets(example.schema, parts[0], y, spec), spec.threshold)
    return Loaders(by_split, schema, example.rows, spec.data)


def _split(value: Any, spec: Train) -> tuple[Any, ...]:
    shares = parse_shares(spec.split)
    if not isinstance(value, Dataset) or isinstance(value, IterableDataset) or shares is None:
        return (value,)
    generator = torch.Generator().manual_seed(spec.seed)
    return tuple(part for part in random_split(value, list(shares), generator) if len(part))


def first_pair(value: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first batch of a DataLoader, or the first items of a Dataset as one.

    Raises
    ------
    LeptonError
        If it is empty, or no pair of tensors.
    """
    state = torch.get_rng_state()
    found = next(iter(value if isinstance(value, DataLoader) else DataLoader(value, batch_size=32)), None)
    torch.set_rng_state(state)
    if found is None:
        raise LeptonError(f"'{name}' gives no batch at all.", "Give it rows.")
    return pair_of(found, name)


def pair_of(found: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a loader's batch as inputs and targets.

    Raises
    ------
    LeptonError
        If it is anything else.
    """
    is_pair = isinstance(found, tuple | list) and len(found) == 2 and all(torch.is_tensor(one) for one in found)
    if not is_pair:
        kind = f"{type(found).__name__} of {len(found)}" if hasattr(found, "__len__") else type(found).__name__
        raise LeptonError(f"A batch of '{name}' is a {kind}.", WANTED)
    x, y = found
    if len(x) != len(y):
        raise LeptonError(f"A batch of '{name}' has {len(x)} inputs and {len(y)} targets.", WANTED)
    return (x if x.is_floating_point() else x.float()), y


def _with_targets(schema: Schema, value: Any, y: torch.Tensor, spec: Train) -> Schema:
    is_classes = not y.is_floating_point() and y.ndim == 1
    task = spec.task
    if task == "auto":
        task = "multiclass" if is_classes else "regression"
    elif task != "regression" and not is_classes:
        raise LeptonError(
            f"--task {task} wants each y to be a class's number; '{spec.data}' gives {y.dtype} {list(y.shape)}.", WANTED
        )
    if task == "regression":
        width = 1 if y.ndim == 1 else int(y.shape[1])
        names = ("y",) if width == 1 else tuple(f"y{place}" for place in range(width))
        return msgspec.structs.replace(schema, targets=names, task="regression")
    n = max(2, _n_classes(value, spec.data))
    if task == "binary" and n > 2:
        raise LeptonError(f"--task binary: '{spec.data}' has {n} classes.", "Leave out --task.")
    return msgspec.structs.replace(
        schema,
        targets=("y",),
        task="binary" if n == 2 else "multiclass",
        classes=tuple(map(str, range(n))),
        class_kind="integer",
        positive="1" if n == 2 else None,
    )


def _n_classes(value: Any, name: str) -> int:
    """Return the number of classes: what a Dataset says of itself, else what one pass over it shows."""
    dataset = value.dataset if isinstance(value, DataLoader) else value
    while hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # a part of another
        dataset = dataset.dataset
    if hasattr(dataset, "classes"):
        return len(dataset.classes)
    tensors = getattr(dataset, "tensors", None)
    said = tensors[1] if tensors is not None and len(tensors) == 2 else getattr(dataset, "targets", None)
    if said is not None:
        return int(torch.as_tensor(said).max()) + 1
    loader = value if isinstance(value, DataLoader) else DataLoader(value, batch_size=256)
    state = torch.get_rng_state()
    most = max(int(pair_of(found, name)[1].max()) for found in loader)
    torch.set_rng_state(state)
    return most + 1


def n_rows_of(value: Any) -> int | None:
    """Return how many rows a loader gives, where that is known."""
    dataset: Any = value.dataset if isinstance(value, DataLoader) else value
    try:
        return len(dataset)
    except TypeError:
        return None


class Loaded:
    """Batches of a loader, as it gives them. Its order is drawn from torch's own generator, unless it has another."""

    is_exact = False

    def __init__(
        self,
        loader: DataLoader[Any],
        encode: Callable[[torch.Tensor], torch.Tensor],
        *,
        name: str,
        device: torch.device,
    ) -> None:
        self.loader = loader
        self.n_rows = n_rows_of(loader)
        try:
            self.n_batches: int | None = len(loader)
        except TypeError:
            self.n_batches = None
        self.batch_size: int | None = loader.batch_size
        self._encode, self._name, self._device = encode, name, device

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch; those that are left out are read all the same."""
        sampler: Any = getattr(self.loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(number)
        for place, found in enumerate(self.loader):
            if place < start:
                continue
            x, y = pair_of(found, self._name)
            targets = self._encode(y)
            yield (x.to(self._device, non_blocking=True),), targets.to(self._device, non_blocking=True)


def values_of_targets(y: torch.Tensor, head: Head) -> npt.NDArray[Any]:
    """Return a loader's targets as a dataset gives them: int64 codes [N], or float64 [N, T]."""
    if head.kind != "identity":
        return y.cpu().numpy().astype(np.int64)
    return y.cpu().numpy().astype(np.float64).reshape(len(y), head.n_outputs)


def tensors_in(value: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the tensors of a TensorDataset, or of a part of one: they need no loader. None for anything else."""
    if isinstance(value, Subset):
        found = tensors_in(value.dataset)
        index = torch.as_tensor(list(value.indices))
        return (found[0][index], found[1][index]) if found is not None else None
    if type(value) is TensorDataset and len(value.tensors) == 2:
        x, y = value.tensors
        return (x if x.is_floating_point() else x.float()), y
    return None


def loader_for(value: Any, spec: Train, *, is_training: bool) -> DataLoader[Any]:
    """Return a DataLoader: the notebook's own, or one over its Dataset, shuffled where it is for training.

    Raises
    ------
    LeptonError
        If ``--batch-size`` is given for a DataLoader, which has its own.
    """
    if isinstance(value, DataLoader):
        if is_training and spec.batch_size != "auto":
            raise LeptonError(
                f"--batch-size means nothing for '{spec.data}', a DataLoader: it has a batch size of its own.",
                "Leave it out, or give the Dataset itself.",
            )
        return value
    is_stream = isinstance(value, IterableDataset)
    if not is_training:
        return DataLoader(value, batch_size=256)
    size = auto_batch_size(n_rows_of(value) or 10_000) if spec.batch_size == "auto" else spec.batch_size
    return DataLoader(value, batch_size=size, shuffle=not is_stream)
