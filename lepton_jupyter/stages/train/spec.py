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
    batch_size: Annotated[
        Annotated[int, Meta(ge=1)] | Literal["auto"], Help("rows a step; auto finds what fits and learns well")
    ] = "auto"
    lr: Annotated[float, Help("learning rate", gt=0)] = 1e-3
    optimizer: Annotated[str, Help("name in torch.optim, in any case, or a name in the notebook")] = "adamw"
    weight_decay: Annotated[Annotated[float, Meta(ge=0)] | None, Help("else the optimizer's own default")] = None
    optimizer_args: Annotated[dict[str, Any], Help("KEY=VALUE for the optimizer, such as momentum=0.9")] = field(
        default_factory=dict
    )
    loss: Annotated[str, Help("name in torch.nn, in any case, a name in the notebook, or auto")] = "auto"
    label_smoothing: Annotated[float, Help("share of a label that is spread over all classes", ge=0, lt=1)] = 0.0
    class_weight: Annotated[Literal["none", "balanced"], Help("weight classes by their rarity")] = "none"
    lr_scheduler: Annotated[
        str, Help("cosine (with warm-up), one-cycle, step, plateau, constant, or a name in torch.optim.lr_scheduler")
    ] = "cosine"
    warmup: Annotated[float, Help("share of all steps in which the rate rises to --lr", ge=0, lt=1)] = 0.0
    clip: Annotated[Annotated[float, Meta(gt=0)] | None, Help("largest norm of the gradient")] = None
    accumulate: Annotated[int, Help("parts in which a batch goes through the model", ge=1)] = 1
    ema: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Help("decay of an average of the weights that is kept, such as 0.999"),
    ] = None
    augment: Annotated[
        tuple[str, ...],
        Help("changes training batches only: flip, crop=4, noise=0.1, mixup=0.2, or a name in the notebook; repeat it"),
    ] = ()
    metric: Annotated[
        str, Help("what the best epoch is chosen by and --patience looks at, such as val_accuracy; else val_loss")
    ] = "val_loss"
    patience: Annotated[Annotated[int, Meta(ge=1)] | None, Help("epochs without a better --metric before it ends")] = (
        None
    )
    precision: Annotated[Literal["auto", "fp32", "bf16"], Help("auto: bf16 on GPUs that have it, else fp32")] = "auto"
    compile: Annotated[
        Literal["auto", "yes", "no"], Help("torch.compile; auto: where it is shown to earn its cost back")
    ] = "auto"
    devices: Annotated[
        str, Help("auto (a GPU where there is one), cpu, how many, or which: 0,1; several train as one")
    ] = "auto"
    shard: Annotated[bool, Help("lay weights and optimizer out over the devices (FSDP)")] = False
    priority: Annotated[Literal["low", "normal", "high"], Help("of the run in your own queue")] = "normal"
    checkpoint_every_s: Annotated[float, Help("seconds between checkpoints inside an epoch", gt=0)] = 30.0
    resume: Annotated[str | None, Help("a run whose last checkpoint it goes on from")] = None
    preprocess: Annotated[Literal["auto", "none"], Help("fill, scale and encode columns, or change nothing")] = "auto"
    tokenizer: Annotated[
        str | None, Help("a tokenizer.json for the columns of prose; else one is learned from the training rows")
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=8192)] | None, Help("tokens of a text that the model reads; else 128")
    ] = None
    task: Annotated[Task | Literal["auto"], Help("what is predicted")] = "auto"
    threshold: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Help("binary: probability from which the positive class is predicted; else 0.5"),
    ] = None
    scale_target: Annotated[bool, Help("standardise regression targets inside the loss")] = False
    license: Annotated[
        str | None, Help("of the version: an SPDX identifier such as MIT; stands in its card and on its image")
    ] = None
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
    devices: Annotated[
        str, Help("auto (a GPU where there is one), cpu, how many, or which: 0,1; the cell runs once a device")
    ] = "auto"
    priority: Annotated[Literal["low", "normal", "high"], Help("of the run in your own queue")] = "normal"
    env: Annotated[str | None, Help("kernelspec that runs the cell; else this notebook's interpreter")] = None
    detach: Annotated[bool, Help("return at once; show RUN follows it")] = False
