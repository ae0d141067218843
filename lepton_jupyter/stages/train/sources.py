"""Where the rows of a training come from: the device's memory, the machine's, or the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from lepton_jupyter.formats.schema import ROWS_AT_ONCE
from lepton_jupyter.stages.data.packing import pack_frame
from lepton_jupyter.stages.data.row_groups import RowGroups, Some
from lepton_jupyter.stages.data.target import values_of
from lepton_jupyter.stages.train.batches import Batch, Batches, InMemory
from lepton_jupyter.stages.train.feed import Rows, auto_batch_size
from lepton_jupyter.stages.train.loaders import Loaded, Loaders, loader_for, tensors_in, values_of_targets
from lepton_jupyter.stages.train.losses import Loss, encode_targets
from lepton_jupyter.stages.train.streaming import Make, Streamed

if TYPE_CHECKING:
    from lepton_jupyter.stages.train.frameworks.torch import TorchFitted
    from lepton_jupyter.stages.train.job import Given, Job
    from lepton_jupyter.stages.train.spec import Train

DEVICE_SHARE = 0.5  # of a GPU's free memory, which rows may take


def tensors_of(
    job: Job, fitted: TorchFitted, given: Given, values: npt.NDArray[Any], *, loss: Loss, like: tuple[int, ...]
) -> Batch:
    """Return raw rows and their targets as the module and the loss take them.

    Parameters
    ----------
    values : NDArray
        int64 codes [N] or float64 [N, T] in original units.
    like : tuple of int
        Shape of one row of the module's output.
    """
    return fitted.inputs(given), encode_targets(values, loss, fitted.head, like=like)


def rows_of(
    job: Job, fitted: TorchFitted, split: str, *, loss: Loss, like: tuple[int, ...], device: torch.device
) -> Rows:
    """Return a split on the device, or where that has no room for it, in the machine's memory."""
    given: Given = job.dataset.packed(split) if fitted.plan is not None else job.dataset.tensors(split)
    values = job.targets(split)
    inputs, targets = tensors_of(job, fitted, given, values, loss=loss, like=like)
    if device.type == "cuda":
        size = sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, targets))
        if size > torch.cuda.mem_get_info(device)[0] * DEVICE_SHARE:
            device = torch.device("cpu")
    return Rows(tuple(tensor.to(device) for tensor in inputs), targets.to(device), values)


def batches_of(
    job: Job,
    fitted: TorchFitted,
    split: str,
    *,
    loss: Loss,
    like: tuple[int, ...],
    device: torch.device,
    batch_size: int | None = None,
) -> Batches:
    """Return the batches of a split.

    Parameters
    ----------
    like : tuple of int
        Shape of one row of the module's output.
    batch_size : int, optional
        Of a run that goes on; else what ``--batch-size`` says.
    """
    if isinstance(job.dataset, Loaders):
        return _loaded(job, job.dataset, fitted, split, loss=loss, like=like, device=device)
    if job.is_large:
        groups, make = _streamed(job, fitted, split, loss=loss, like=like)
        size = batch_size or asked_batch_size(job.spec, int(groups.counts.sum()))
        return Streamed(groups, make, size, job.spec.seed, device)
    rows = rows_of(job, fitted, split, loss=loss, like=like, device=device)
    return InMemory(rows, batch_size or asked_batch_size(job.spec, len(rows)), job.spec.seed, device)


def asked_batch_size(spec: Train, n_rows: int) -> int:
    """Return the rows of a batch that ``--batch-size`` says, or what ``auto`` is for so many rows."""
    return auto_batch_size(n_rows) if spec.batch_size == "auto" else spec.batch_size


def validation_of(
    job: Job, fitted: TorchFitted, *, loss: Loss, like: tuple[int, ...], device: torch.device
) -> Rows | Batches | None:
    """Return what epochs are judged on, or None where there is no validation split."""
    if "validation" not in job.dataset.splits():
        return None
    if isinstance(job.dataset, Loaders):
        found = _loaded(job, job.dataset, fitted, "validation", loss=loss, like=like, device=device)
        return found.rows if isinstance(found, InMemory) else found
    if job.is_large:
        groups, make = _streamed(job, fitted, "validation", loss=loss, like=like)
        return Streamed(groups, make, ROWS_AT_ONCE, None, device)
    return rows_of(job, fitted, "validation", loss=loss, like=like, device=device)


def _streamed(
    job: Job, fitted: TorchFitted, split: str, *, loss: Loss, like: tuple[int, ...]
) -> tuple[RowGroups, Make]:
    dataset: Any = job.dataset
    schema = job.schema

    def make(some: Some) -> Batch:
        given: Given = pack_frame(schema, some.frame) if some.tensor is None else some.tensor
        return tensors_of(job, fitted, given, values_of(some.frame, schema), loss=loss, like=like)

    return RowGroups(dataset, split), make


def _loaded(
    job: Job,
    loaders: Loaders,
    fitted: TorchFitted,
    split: str,
    *,
    loss: Loss,
    like: tuple[int, ...],
    device: torch.device,
) -> InMemory | Loaded:
    """Return the batches of the notebook's own loader; what is tensors already is taken as such."""

    def encode(y: torch.Tensor) -> torch.Tensor:
        return encode_targets(values_of_targets(y, fitted.head), loss, fitted.head, like=like)

    value = loaders.by_split[split]
    found = tensors_in(value)
    if found is None:
        loader = loader_for(value, job.spec, is_training=split == "train")
        return Loaded(loader, encode, name=loaders.ref, device=device)
    rows = Rows((found[0].to(device),), encode(found[1]).to(device), values_of_targets(found[1], fitted.head))
    return InMemory(rows, asked_batch_size(job.spec, len(rows)), job.spec.seed, device)
