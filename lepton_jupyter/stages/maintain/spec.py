"""The verbs of maintenance: ``retrain``, ``promote``, ``rollback``, ``delete``."""

from __future__ import annotations

from typing import Annotated, ClassVar

from lepton_jupyter.stages.monitor.spec import Repeated
from lepton_jupyter.stages.verbs import Help, Verb


class Retrain(Repeated, kw_only=True, frozen=True):
    """Train a model again on the newest data, and promote it only where it is better."""

    verb: ClassVar[str] = "retrain"
    does: ClassVar[str] = (
        "Refresh the data, train by the recorded recipe, judge against the champion, promote only what is better."
    )
    positional: ClassVar[tuple[str, ...]] = ("model",)
    examples: ClassVar[tuple[str, ...]] = ("retrain TumorNet", "retrain TumorNet --every 1d --approve")

    model: Annotated[str, Help("the model")]
    require: Annotated[
        tuple[str, ...], Help('what it must meet, such as "roc_auc >= 0.95"; else what its champion had to')
    ] = ()
    approve: Annotated[bool, Help("ask before a better version is promoted")] = False
    detach: Annotated[bool, Help("return at once; show RUN follows it")] = False


class Promote(Verb, kw_only=True, frozen=True):
    """Move an alias to a version; endpoints that follow it swap."""

    verb: ClassVar[str] = "promote"
    does: ClassVar[str] = (
        "Give a version an alias (champion); the last one becomes previous, endpoints that follow it swap."
    )
    positional: ClassVar[tuple[str, ...]] = ("model", "alias")
    examples: ClassVar[tuple[str, ...]] = ("promote TumorNet@3 champion",)

    model: Annotated[str, Help("the version: NAME@3")]
    alias: Annotated[str, Help("the alias")] = "champion"


class Rollback(Verb, kw_only=True, frozen=True):
    """Put an endpoint back to its last version and hold it there."""

    verb: ClassVar[str] = "rollback"
    does: ClassVar[str] = (
        "End an endpoint's canary or shadow; without one, put it back to its last version and hold it there."
    )
    positional: ClassVar[tuple[str, ...]] = ("endpoint",)
    examples: ClassVar[tuple[str, ...]] = ("rollback diagnosis",)

    endpoint: Annotated[str, Help("the endpoint")]


class Delete(Verb, kw_only=True, frozen=True):
    """Remove a dataset's or a model's version, a run, an endpoint or a schedule."""

    verb: ClassVar[str] = "delete"
    does: ClassVar[str] = "Remove a version, a run, an endpoint or a schedule; what is in use is refused."
    positional: ClassVar[tuple[str, ...]] = ("ref",)
    examples: ClassVar[tuple[str, ...]] = ("delete model/TumorNet@1", "delete endpoint/diagnosis")

    ref: Annotated[str, Help("what to remove: dataset/NAME@1, model/NAME@1, run/ID, endpoint/NAME, schedule/NAME")]
