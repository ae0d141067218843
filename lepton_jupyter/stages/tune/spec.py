"""The verb of searching: ``tune``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from lepton_jupyter.stages.train.spec import Train
from lepton_jupyter.stages.verbs import Help


class Tune(Train, kw_only=True, frozen=True):
    """Search for the best settings of a training: many trials, of which the best becomes a version."""

    verb: ClassVar[str] = "tune"
    does: ClassVar[str] = (
        "Search settings of a training by many trials, pruned and several at once; the best becomes a version."
    )
    positional: ClassVar[tuple[str, ...]] = ("model",)
    examples: ClassVar[tuple[str, ...]] = (
        'tune TumorNet --data wdbc --search "lr=loguniform(1e-4,1e-1)" --search "weight_decay=loguniform(1e-6,1e-1)"',
        'tune TumorNet --data wdbc --search "hidden=choice(16,32,64)" --trials 20 --metric val_accuracy',
    )

    search: Annotated[
        tuple[str, ...],
        Help(
            "NAME=uniform(A,B), loguniform(A,B), int(A,B), logint(A,B) or choice(X,Y,…) of a flag or of the model's "
            "own; repeat it"
        ),
    ]
    trials: Annotated[int, Help("how many", ge=1)] = 50
    sampler: Annotated[
        Literal["tpe", "random", "qmc"], Help("how values are drawn: by what went well, at random, or evenly")
    ] = "tpe"
    pruner: Annotated[
        Literal["asha", "hyperband", "none"], Help("how trials that do badly are ended early, by their epochs")
    ] = "asha"
    direction: Annotated[Literal["auto", "minimize", "maximize"], Help("auto: as --metric wants")] = "auto"
    batched: Annotated[
        Literal["auto", "yes", "no"], Help("many trials of a small model as one program; auto: where it is faster")
    ] = "auto"


OWN = frozenset(field.name for field in msgspec.structs.fields(Tune)) - {
    field.name for field in msgspec.structs.fields(Train)
}


def training_of(spec: Tune) -> Train:
    """Return the training that every trial is a variation of."""
    values = {field.name: getattr(spec, field.name) for field in msgspec.structs.fields(Train)}
    return Train(**values)
