"""The verbs of runs: ``run``, ``runs``, ``show``, ``logs``, ``open``, ``stop``, ``compare``, ``devices``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import field

from lepton_jupyter.stages.verbs import Help, Verb


class Run(Verb, kw_only=True, frozen=True):
    """Execute any notebook once, in a kernel of its own."""

    verb: ClassVar[str] = "run"
    does: ClassVar[str] = "Execute a notebook once by papermill, in its own folder, with parameters."
    positional: ClassVar[tuple[str, ...]] = ("notebook",)
    examples: ClassVar[tuple[str, ...]] = ("run weekly_report.ipynb -p region=north",)

    notebook: Annotated[str, Help("path of the notebook")]
    params: Annotated[dict[str, Any], Help("KEY=VALUE for the cell tagged 'parameters'; JSON, else text")] = field(
        default_factory=dict
    )
    devices: Annotated[int, Help("devices to wait for and hold; 0 for a notebook that only asks for runs", ge=0)] = 0
    to: Annotated[str | None, Help("where a copy of the executed notebook goes")] = None
    detach: Annotated[bool, Help("return at once; show RUN follows it")] = False


class Runs(Verb, kw_only=True, frozen=True):
    """List runs, newest first."""

    verb: ClassVar[str] = "runs"
    does: ClassVar[str] = "List runs, newest first."
    examples: ClassVar[tuple[str, ...]] = ("runs",)


class Show(Verb, kw_only=True, frozen=True):
    """Show a run, dataset, model, endpoint or schedule; live while it moves."""

    verb: ClassVar[str] = "show"
    does: ClassVar[str] = "Show the card of a run, dataset, model, endpoint or schedule; live while it moves."
    positional: ClassVar[tuple[str, ...]] = ("ref",)
    examples: ClassVar[tuple[str, ...]] = ("show TumorNet", "show endpoint/diagnosis")

    ref: Annotated[str, Help("what to show")]


class Logs(Verb, kw_only=True, frozen=True):
    """Print the log of a run or an endpoint."""

    verb: ClassVar[str] = "logs"
    does: ClassVar[str] = "Print the log of a run or an endpoint."
    positional: ClassVar[tuple[str, ...]] = ("ref",)
    examples: ClassVar[tuple[str, ...]] = ("logs diagnosis --follow",)

    ref: Annotated[str, Help("the run or endpoint")]
    follow: Annotated[bool, Help("go on until it ends")] = False


class Open(Verb, kw_only=True, frozen=True):
    """Say where a run's executed notebook lies."""

    verb: ClassVar[str] = "open"
    does: ClassVar[str] = "Give a link to a run's executed notebook."
    positional: ClassVar[tuple[str, ...]] = ("run",)
    examples: ClassVar[tuple[str, ...]] = ("open TumorNet",)

    run: Annotated[str, Help("the run: its id, a prefix, or a model's name for its newest")]


class Stop(Verb, kw_only=True, frozen=True):
    """Stop a run or an endpoint; pause a schedule."""

    verb: ClassVar[str] = "stop"
    does: ClassVar[str] = "Stop a run (its best checkpoint is kept) or an endpoint; pause a schedule."
    positional: ClassVar[tuple[str, ...]] = ("ref",)
    examples: ClassVar[tuple[str, ...]] = ("stop diagnosis",)

    ref: Annotated[str, Help("the run, endpoint or schedule")]


class Compare(Verb, kw_only=True, frozen=True):
    """Lay runs or versions side by side."""

    verb: ClassVar[str] = "compare"
    does: ClassVar[str] = "Lay runs or versions side by side: what differs, what came out."
    positional: ClassVar[tuple[str, ...]] = ("refs",)
    examples: ClassVar[tuple[str, ...]] = ("compare TumorNet@1 TumorNet@2",)

    refs: Annotated[tuple[str, ...], Help("two or more runs or versions")]


class Devices(Verb, kw_only=True, frozen=True):
    """List devices and who holds them."""

    verb: ClassVar[str] = "devices"
    does: ClassVar[str] = "List devices and who holds them, over all users of this host."
    examples: ClassVar[tuple[str, ...]] = ("devices",)


class Panel(Verb, kw_only=True, frozen=True):
    """Show a form in place of flags."""

    verb: ClassVar[str] = "panel"
    does: ClassVar[str] = "Show a panel: tables, and a form for a verb that shows the line it stands for."
    positional: ClassVar[tuple[str, ...]] = ("word",)
    examples: ClassVar[tuple[str, ...]] = ("panel", "panel train")

    word: Annotated[str | None, Help("data, train, evaluate, deploy, monitor or maintain; else all of them")] = None


class Doctor(Verb, kw_only=True, frozen=True):
    """Check this installation and say what is wrong."""

    verb: ClassVar[str] = "doctor"
    does: ClassVar[str] = "Check home, backend, disk and versions, and say what to do."
    examples: ClassVar[tuple[str, ...]] = ("doctor",)
