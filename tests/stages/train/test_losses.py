"""Losses by name, compared with torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job
from lepton_jupyter.stages.train.losses import encode_targets, make_loss
from lepton_jupyter.stages.train.torch_names import LOSSES, REFUSED

SOFTMAX, SIGMOID = Head("softmax", 2, positive_index=1), Head("sigmoid", 2, positive_index=1)


@pytest.mark.parametrize("name", sorted(value.__name__ for value in LOSSES.values()))
@pytest.mark.parametrize("head", [SOFTMAX, SIGMOID, Head("identity", 1)], ids=["classes", "logit", "numbers"])
def test_every_loss_of_torch_learns_or_is_refused_with_what_to_do(
    job: Callable[..., Job], numbers: Dataset, two_blobs: Dataset, head: Head, name: str
) -> None:
    data = numbers if head.kind == "identity" else two_blobs
    one = job(loss=name.lower(), data=data)
    try:
        loss = make_loss(one, head)
    except LeptonError as error:
        is_said = name in str(error) and bool(error.hint)
        assert is_said
        return
    assert name not in REFUSED
    values = one.targets("train")
    target = encode_targets(values, loss, head, like=(1,) if head.kind == "sigmoid" else ())
    output = (torch.rand(len(values), 2 if head.kind == "softmax" else 1) + 0.5).requires_grad_()
    optimizer = torch.optim.SGD([output], lr=0.5)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        value = loss(output, target)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0]


def test_the_soft_margin_is_taken_between_signs(job: Callable[..., Job]) -> None:
    loss = make_loss(job(loss="softmargin"), SIGMOID)
    target = encode_targets(np.array([0, 1]), loss, SIGMOID, like=(1,))
    assert target.tolist() == [[-1.0], [1.0]]
    assert float(loss(torch.tensor([[-30.0], [30.0]]), target)) == pytest.approx(0, abs=1e-6)


def test_label_smoothing_is_torchs_for_classes_and_drawn_to_a_half_for_one_logit(job: Callable[..., Job]) -> None:
    output, codes = torch.tensor([[2.0, -1.0], [0.3, 0.1]]), torch.tensor([0, 1])
    of_classes = make_loss(job(label_smoothing=0.2, class_weight="balanced"), SOFTMAX)
    assert isinstance(of_classes.function, nn.CrossEntropyLoss)
    assert of_classes.function.label_smoothing == 0.2 and of_classes.function.weight is not None
    assert float(make_loss(job(label_smoothing=0.2), SOFTMAX)(output, codes)) == pytest.approx(
        float(nn.functional.cross_entropy(output, codes, label_smoothing=0.2))
    )
    logit = output[:, 1] - output[:, 0]  # the same probabilities by one logit: the same loss
    of_logit = make_loss(job(label_smoothing=0.2), SIGMOID)
    assert float(of_logit(logit, codes.float())) == pytest.approx(
        float(nn.functional.cross_entropy(output, codes, label_smoothing=0.2))
    )


@pytest.mark.parametrize(
    ("flags", "head", "said"),
    [
        (
            {"loss": "multimargin", "label_smoothing": 0.1},
            SOFTMAX,
            "--label-smoothing means nothing for MultiMarginLoss",
        ),
        ({"loss": "CrossEntropyLoss"}, SIGMOID, "wants a logit for each class"),
        ({"loss": "triplet_margin"}, SOFTMAX, "compares rows with one another"),
        ({"loss": "KLDivLoss"}, SOFTMAX, "takes probabilities"),
    ],
)
def test_a_loss_that_cannot_be_meant_is_refused(job: Callable[..., Job], flags: Any, head: Head, said: str) -> None:
    with pytest.raises(LeptonError, match=said):
        make_loss(job(**flags), head)


def test_a_loss_that_is_made_already_gets_no_flags(job: Callable[..., Job]) -> None:
    one = job(loss="mine", label_smoothing=0.1, names={"loss": nn.CrossEntropyLoss()})
    with pytest.raises(LeptonError, match="--label-smoothing cannot reach 'mine', which is made already"):
        make_loss(one, SOFTMAX)


def test_label_smoothing_means_nothing_for_numbers(job: Callable[..., Job], numbers: Dataset) -> None:
    with pytest.raises(LeptonError, match="--label-smoothing means nothing for a regression"):
        make_loss(job(data=numbers, label_smoothing=0.1), Head("identity", 1))
