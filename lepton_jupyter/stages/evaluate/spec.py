"""The verb of judging: ``evaluate``."""

from __future__ import annotations

from typing import Annotated, ClassVar

from lepton_jupyter.stages.verbs import Help, Verb


class Evaluate(Verb, kw_only=True, frozen=True):
    """Judge a version on rows that it was never trained on."""

    verb: ClassVar[str] = "evaluate"
    does: ClassVar[str] = "Measure a version on held-out rows, with intervals, charts and a verdict."
    positional: ClassVar[tuple[str, ...]] = ("model",)
    examples: ClassVar[tuple[str, ...]] = (
        'evaluate TumorNet --require "roc_auc >= 0.95" --require "recall >= 0.75"',
        "evaluate TumorNet@2 --data wdbc:test --against champion",
    )

    model: Annotated[str, Help("NAME, NAME@3, NAME@champion or a training run")]
    data: Annotated[str | None, Help("NAME:SPLIT; else the test split of the data it was trained on")] = None
    require: Annotated[
        tuple[str, ...], Help("a metric and its bound, such as 'roc_auc >= 0.95'; repeat it for several")
    ] = ()
    against: Annotated[str | None, Help("version to compare with, such as champion")] = None
    seed: Annotated[int, Help("seed of the bootstrap", ge=0)] = 0
