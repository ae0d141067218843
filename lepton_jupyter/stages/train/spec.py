"""The verb of training: ``train``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, field

from lepton_jupyter.core.states import Task
from lepton_jupyter.stages.data.spec import DataFlags
from lepton_jupyter.stages.verbs import Help


class Train(DataFlags, kw_only=True, frozen=True):
    """Train a model of the notebook in a kernel of its own, and make a version of it."""

    verb: ClassVar[str] = "train"
    does: ClassVar[str] = (
        "Train a model on a dataset in a kernel subprocess; ends with a version that can be judged and served."
    )
    positional: ClassVar[tuple[str, ...]] = ("model",)
    examples: ClassVar[tuple[str, ...]] = (
        "train TumorNet --data wdbc --epochs 30 --lr 1e-2 -p hidden=32",
        "train mymodels:TumorNet --data wdbc --detach",
    )

    model: Annotated[str, Help("class, instance, factory or estimator of the notebook, or module:name")]
    data: Annotated[str, Help("a dataset (NAME or NAME@3), or a variable of the notebook")]
    name: Annotated[str | None, Help("name of the model; else MODEL as typed")] = None
    epochs: Annotated[int, Help("passes over the training rows", ge=1)] = 20
    batch_size: Annotated[Annotated[int, Meta(ge=1)] | Literal["auto"], Help("rows a step")] = "auto"
    lr: Annotated[float, Help("learning rate", gt=0)] = 1e-3
    optimizer: Annotated[str, Help("name in torch.optim, in any case, or a name in the notebook")] = "adamw"
    loss: Annotated[str, Help("name in torch.nn, in any case, a name in the notebook, or auto")] = "auto"
    lr_scheduler: Annotated[str, Help("name in torch.optim.lr_scheduler, cosine, or constant")] = "cosine"
    patience: Annotated[
        Annotated[int, Meta(ge=1)] | None, Help("epochs without a better validation loss before it ends")
    ] = None
    preprocess: Annotated[Literal["auto", "none"], Help("fill, scale and encode columns, or change nothing")] = "auto"
    class_weight: Annotated[Literal["none", "balanced"], Help("weight classes by their rarity")] = "none"
    task: Annotated[Task | Literal["auto"], Help("what is predicted")] = "auto"
    scale_target: Annotated[bool, Help("standardise regression targets inside the loss")] = False
    params: Annotated[dict[str, Any], Help("KEY=VALUE for the model's constructor; JSON, else text")] = field(
        default_factory=dict
    )
    detach: Annotated[bool, Help("return at once; show RUN follows it")] = False


class TrainCell(DataFlags, kw_only=True, frozen=True):
    """``%%lepton train``: the cell is the program."""

    verb: ClassVar[str] = "train"
    does: ClassVar[str] = "Run the cell in a kernel subprocess; lepton.log and lepton.save make a version."
    examples: ClassVar[tuple[str, ...]] = ("train --name digits",)

    name: Annotated[str, Help("name of the model")]
    data: Annotated[str | None, Help("a dataset that lepton.save may name")] = None
    env: Annotated[str | None, Help("kernelspec that runs the cell; else this notebook's interpreter")] = None
    detach: Annotated[bool, Help("return at once; show RUN follows it")] = False
