"""Augmentation of training batches on the device: by name, or by a callable of the notebook."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job

# Whole batches in, whole batches out; what it draws comes from the generator.
Augment = Callable[[Tensors, torch.Tensor, torch.Generator], tuple[Tensors, torch.Tensor]]


def make_augment(job: Job, feed: Feed, head: Head) -> Augment | None:
    """Return what changes a job's training batches; None where nothing does."""
    return None
