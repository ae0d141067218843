"""Augmentation: whole batches on their device, from a generator that is part of the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.stages.data.store import Dataset
from lepton_jupyter.stages.train.augment import Augment, check_augment, make_augment
from lepton_jupyter.stages.train.feed import Feed, Tensors
from lepton_jupyter.stages.train.heads import Head
from lepton_jupyter.stages.train.job import Job, settle_task
from lepton_jupyter.stages.train.spec import Train

CLASSES = Head("softmax", 3)
IMAGES, TABLE, CODES = Feed(("tensor",)), Feed(("features",)), Feed(("numeric", "categorical"))


@pytest.fixture
def images(make_dataset: Callable[..., Dataset]) -> Dataset:
    """60 images of 1 × 6 × 8 in three classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1, 6, 8)).astype(np.float32)
    return make_dataset((x, np.arange(60) % 3), name="images")


@pytest.fixture
def job(session: Any, images: Dataset) -> Callable[..., Job]:
    def make(*words: str, data: Dataset = images, names: dict[str, Any] | None = None, **flags: Any) -> Job:
        spec = Train(model="Net", data=data.ref, augment=words, **flags)
        return Job(session, spec, settle_task(data, spec.task), "Net", names or {})

    return make


def drawn(
    augment: Augment | None, inputs: Tensors, target: torch.Tensor, seed: int = 0
) -> tuple[Tensors, torch.Tensor]:
    assert augment is not None
    return augment(inputs, target, torch.Generator().manual_seed(seed))


def pictures(n: int = 200) -> torch.Tensor:
    return torch.arange(n * 48, dtype=torch.float32).reshape(n, 1, 6, 8) + 1


def test_a_flip_mirrors_a_share_of_the_images_and_leaves_the_others(job: Callable[..., Job]) -> None:
    x, y = pictures(), torch.zeros(200, dtype=torch.int64)
    (found,), target = drawn(make_augment(job("flip=0.3"), IMAGES, CLASSES), (x,), y)
    is_same = (found == x).flatten(1).all(1)
    is_mirrored = (found == x.flip(3)).flatten(1).all(1)
    assert bool((is_same | is_mirrored).all())
    assert 0.2 < float(is_mirrored.float().mean()) < 0.4
    assert target is y


def test_a_crop_moves_each_image_its_own_way_and_fills_with_zeros(job: Callable[..., Job]) -> None:
    x, y = pictures(), torch.zeros(200, dtype=torch.int64)
    (found,), _ = drawn(make_augment(job("crop=2"), IMAGES, CLASSES), (x,), y)
    padded = nn.functional.pad(x, (2, 2, 2, 2))
    moves = set()
    for row, image in enumerate(found):
        fitting = [
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if torch.equal(image, padded[row, :, dy : dy + 6, dx : dx + 8])
        ]
        assert len(fitting) == 1
        moves.update(fitting)
    assert len(moves) == 25


def test_noise_has_the_spread_that_was_asked_for_and_leaves_codes_alone(job: Callable[..., Job], wdbc: Dataset) -> None:
    x, codes, y = torch.zeros(500, 20), torch.ones(500, 2, dtype=torch.int64), torch.zeros(500)
    (found, same), _ = drawn(make_augment(job("noise=0.3", data=wdbc), CODES, CLASSES), (x, codes), y)
    assert float(found.std()) == pytest.approx(0.3, rel=0.05) and abs(float(found.mean())) < 0.02
    assert torch.equal(same, codes)


def test_mixup_mixes_rows_and_classes_by_the_same_share_of_a_beta(job: Callable[..., Job]) -> None:
    y = torch.arange(3).repeat(1000)
    x = nn.functional.one_hot(y, 3).float()
    (found,), target = drawn(make_augment(job("mixup=0.4"), TABLE, CLASSES), (x,), y)
    assert target.shape == (3000, 3)
    assert torch.allclose(found, target, atol=1e-6)
    assert torch.allclose(target.sum(1), torch.ones(3000), atol=1e-6)
    share = target[torch.arange(3000), y]  # 1 where the other row is of the same class, else Beta(0.4, 0.4)
    mixed = share[share < 1 - 1e-6]
    assert float(mixed.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(mixed.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)  # the variance of Beta(a, a)


def test_mixup_mixes_numbers_too(job: Callable[..., Job]) -> None:
    x = torch.randn(50, 4)
    y = x @ torch.ones(4, 1)
    (found,), target = drawn(make_augment(job("mixup=1"), TABLE, Head("identity", 1)), (x,), y)
    assert torch.allclose(found @ torch.ones(4, 1), target, atol=1e-5)
    assert not torch.equal(target, y)


def test_the_same_generator_draws_the_same_batch_again(job: Callable[..., Job]) -> None:
    augment = make_augment(job("flip", "crop=1", "noise", "mixup"), IMAGES, CLASSES)
    x, y = pictures(16), torch.arange(16) % 3
    first, again, other = (drawn(augment, (x,), y, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0][0], again[0][0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0][0], other[0][0])
    assert torch.equal(x, pictures(16))  # the rows themselves stay as they are


def test_augmentations_are_applied_in_the_order_of_the_flags(job: Callable[..., Job]) -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    class AddOne(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    names = {"augment:double": double, "augment:AddOne": AddOne}
    x, y = torch.ones(2, 3), torch.zeros(2)
    assert float(drawn(make_augment(job("double", "AddOne", names=names), TABLE, CLASSES), (x,), y)[0][0][0, 0]) == 3
    assert float(drawn(make_augment(job("AddOne", "double", names=names), TABLE, CLASSES), (x,), y)[0][0][0, 0]) == 4


def test_a_function_of_two_gets_the_targets_as_well(job: Callable[..., Job]) -> None:
    def reverse(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flip(0), y.flip(0)

    augment = make_augment(job("reverse", names={"augment:reverse": reverse}), TABLE, CLASSES)
    (found,), target = drawn(augment, (torch.arange(3.0).reshape(3, 1),), torch.tensor([0, 1, 2]))
    assert found[:, 0].tolist() == [2, 1, 0] and target.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda x: x[:, :, 1:],
            r"'mine' changes the batch: a float32 tensor \[60, 1, 6, 8\] went in, a float32 tensor",
        ),
        (lambda x: x[1:], r"went in, a float32 tensor \[59, 1, 6, 8\] came out"),
        (lambda x: x.double(), r"went in, a float64 tensor"),
        (lambda x: None, r"went in, a NoneType came out"),
        (lambda x, y: (x, y[1:]), r"gives 59 targets for 60 rows"),
    ],
)
def test_an_augmentation_that_changes_the_shape_is_named(job: Callable[..., Job], function: Any, said: str) -> None:
    with pytest.raises(LeptonError, match=said):
        check_augment(job("mine", names={"augment:mine": function}), IMAGES, CLASSES, (pictures(60),))


def test_an_error_of_the_users_own_augmentation_passes_with_what_it_was_given(job: Callable[..., Job]) -> None:
    def mine(x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(3, 3)

    with pytest.raises(RuntimeError) as caught:
        check_augment(job("mine", names={"augment:mine": mine}), IMAGES, CLASSES, (pictures(60),))
    assert "The augmentation 'mine' was given a float32 tensor [60, 1, 6, 8]" in caught.value.__notes__[0]


def test_the_check_leaves_rows_and_random_states_as_they_were(job: Callable[..., Job]) -> None:
    def spoil(x: torch.Tensor) -> torch.Tensor:
        return x.mul_(torch.rand(()))

    x = pictures(8)
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    check_augment(job("spoil", "mixup", names={"augment:spoil": spoil}), IMAGES, CLASSES, (x,))
    assert torch.equal(x, pictures(8))
    assert torch.equal(torch.rand(2), wanted)


@pytest.mark.parametrize(
    ("word", "feed", "flags", "said"),
    [
        ("flip", TABLE, {}, "--augment flip changes images, and 'wdbc@1' is a table"),
        ("crop=2", TABLE, {}, "--augment crop=2 changes images"),
        ("mixup", CODES, {}, "mixup mixes numbers, and 'Net' takes codes of categories"),
        ("mixup", TABLE, {"loss": "multi_margin"}, "gives a row two classes, which --loss multi_margin does not take"),
    ],
)
def test_what_means_nothing_for_these_rows_is_refused(
    job: Callable[..., Job], wdbc: Dataset, word: str, feed: Feed, flags: Any, said: str
) -> None:
    with pytest.raises(LeptonError, match=said):
        make_augment(job(word, data=wdbc, **flags), feed, Head("softmax", 2))


def test_a_crop_of_more_than_the_image_is_refused_with_one_that_fits(job: Callable[..., Job]) -> None:
    with pytest.raises(LeptonError, match="may move images of 6 pixels out of sight") as caught:
        make_augment(job("crop=6"), IMAGES, CLASSES)
    assert "crop=1" in caught.value.hint


def test_nothing_asked_for_is_nothing_done(job: Callable[..., Job]) -> None:
    assert make_augment(job(), IMAGES, CLASSES) is None
