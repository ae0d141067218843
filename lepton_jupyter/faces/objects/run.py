"""A run, as a person holds it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lepton_jupyter.core.files import tail
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.curve import curve, thin
from lepton_jupyter.faces.objects.history import History, read_events
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.objects.when import clock, span
from lepton_jupyter.formats.views import RunView

if TYPE_CHECKING:
    from lepton_jupyter.faces.asker import Asker

RUN_MIME = "application/vnd.lepton-jupyter.run.v1+json"  # what our JupyterLab extension renders and follows
NOTES_SHOWN = ("task", "positive", "device", "threads", "seed", "loss", "optimizer", "exportable", "best_epoch")
ORIGIN_SHOWN = ("cells", "git", "hardware", "packages")  # where a run comes from: a line of its own
REMARKED = ("gpu_held", "micro_batch")  # what a person should know while it goes on
ROLES = {
    "train": "train",
    "tune": "tune",
    "cell": "cell",
    "evaluate": "evaluate",
    "save": "save",
    "notebook": "notebook",
}


class Run(Shown):
    """One execution of a notebook: a training, an evaluation, a notebook of the user.

    Attributes
    ----------
    run_id : str
    """

    def __init__(self, view: RunView, asker: Asker) -> None:
        self._view = view
        self._asker = asker
        self.run_id = view.run_id

    def _fresh(self) -> RunView:
        if self._view.state not in ENDED:
            self._view = self._asker.client.run(self.run_id)
        return self._view

    @property
    def state(self) -> str:
        """One of queued, starting, running, completed, failed, stopped, lost; looked up anew until it has ended."""
        return self._fresh().state

    @property
    def metrics(self) -> dict[str, float]:
        """Newest value of every metric: ``run.metrics["val_loss"]``."""
        return dict(self._fresh().metrics)

    @property
    def checks(self) -> dict[str, float | None]:
        """Newest value of every check that alerts are judged by; None where it could not be measured."""
        return dict(self._fresh().checks)

    @property
    def notes(self) -> dict[str, Any]:
        """Facts that the run told: ``threads``, ``device``, ``best_epoch`` …"""
        return dict(self._fresh().notes)

    @property
    def error(self) -> str:
        """Why it failed, stopped or was lost; empty where nothing is wrong."""
        failure = self._fresh().error
        return failure.message if failure else ""

    @property
    def kind(self) -> str:
        """``train``, ``tune``, ``cell``, ``evaluate``, ``save`` or ``notebook``."""
        return self._view.kind

    @property
    def ref(self) -> str:
        """What to type for this run: ``run/ID``."""
        return f"run/{self.run_id}"

    @property
    def version(self) -> str | None:
        """The version that it made, such as ``TumorNet@3``; None where there is none yet."""
        view = self._fresh()
        return f"{view.model}@{view.version}" if view.model and view.version is not None else None

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return Path(self._view.folder) if self._view.folder else self._asker.home.run(self.run_id).root

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return RunFolder(self.folder).notebook

    def wait(self) -> Run:
        """Wait until it has ended, and return it.

        Raises
        ------
        LeptonError
            If it failed or was lost.
        """
        from lepton_jupyter.faces.flows.follow import (
            raise_if_failed,
            wait_for,
        )  # a flow shows objects, and not the other way

        self._view = wait_for(self._asker, self.run_id)
        raise_if_failed(self._asker, self._view)
        return self

    def logs(self, n_lines: int = 200) -> str:
        """Return the end of its log: what kernel and supervisor printed outside of cells."""
        return tail(RunFolder(self.folder).log, n_lines=n_lines, max_bytes=400 * n_lines)

    def events(self) -> list[dict[str, Any]]:
        """Return what it has told so far, oldest first: states, metrics, notes, progress."""
        return list(read_events(RunFolder(self.folder)))

    def _bundle(self) -> tuple[RunView, History]:
        return self._fresh(), History(self.events())

    def _more(self) -> dict[str, Any]:
        return {RUN_MIME: snapshot(*self._bundle())}

    def _text(self) -> str:
        return run_text(*self._bundle())

    def _html(self) -> str:
        return run_html(*self._bundle())

    def _line(self) -> str:
        return headline(self._fresh())


def snapshot(view: RunView, history: History) -> dict[str, Any]:
    """Return a run as it stands, for the renderer of `RUN_MIME`: ``{"run": RunView, "curve": {metric: [[x, y], …]}}``.

    It is what a saved notebook holds, so it names no folder; in JupyterLab the card goes on from there by itself.
    """
    run = msgspec.structs.replace(
        view,
        seq=max(view.seq, history.seq),
        metrics={name: value for name, value in metrics_of(view, history).items() if math.isfinite(value)},
        notes={**view.notes, **history.notes},
        progress=history.progress or view.progress,
        telemetry={name: value for name, value in telemetry_of(view, history).items() if math.isfinite(value)},
        error=msgspec.structs.replace(view.error, detail="") if view.error else None,
        folder="",
    )
    drawn = {name: [point for point in points if math.isfinite(point[1])] for name, points in history.losses.items()}
    return {"run": msgspec.to_builtins(run), "curve": {name: thin(points) for name, points in drawn.items()}}


def headline(view: RunView) -> str:
    """Return one line: what ran, its version or id, its state."""
    version = f" → {view.model}@{view.version}" if view.model and view.version is not None else ""
    return f"{ROLES.get(view.kind, view.kind)} {view.title} · run {view.run_id} · {view.state}{version}"


def facts_of(view: RunView, history: History, now: float) -> list[tuple[str, Any]]:
    """Return what a card says about a run, in pairs."""
    progress = history.progress or view.progress
    notes = {**view.notes, **history.notes}
    ended = view.ended_at if view.state in ENDED else now
    pairs: list[tuple[str, Any]] = []
    if progress.get("total"):
        pairs.append((str(progress.get("unit", "step")), f"{progress.get('done', 0)} of {progress['total']}"))
    if view.started_at:
        pairs.append(("took" if view.state in ENDED else "for", span((ended or now) - view.started_at)))
    if view.state not in ENDED:
        pairs.append(("left", span(history.remaining_s(now))))
    pairs.append(("data", view.dataset))
    pairs += _noted(notes, NOTES_SHOWN)
    if str(notes.get("compiled", "")).startswith("yes"):
        pairs.append(("compiled", "yes"))
    return [(key, value) for key, value in pairs if value not in (None, "")]


def origin_of(view: RunView, history: History) -> list[tuple[str, Any]]:
    """Return where a run comes from, in pairs: cells, commit, machine, packages."""
    return _noted({**view.notes, **history.notes}, ORIGIN_SHOWN)


def _noted(notes: Mapping[str, Any], keys: Sequence[str]) -> list[tuple[str, Any]]:
    return [(key.replace("_", " "), _note(notes[key])) for key in keys if notes.get(key) not in (None, "", {})]


def _note(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_note(item)}" for key, item in value.items())
    return html.number(value)


def metrics_of(view: RunView, history: History) -> dict[str, float]:
    """Return the newest value of every metric, of the history where it is ahead of the view."""
    return {**view.metrics, **history.metrics}


def checks_of(view: RunView) -> dict[str, float]:
    """Return the checks of a run that could be measured."""
    return {name: value for name, value in view.checks.items() if value is not None}


def telemetry_of(view: RunView, history: History) -> dict[str, float]:
    """Return how the work and the machine do, of the history where it is ahead of the view."""
    return {**view.telemetry, **history.telemetry}


def machine_of(view: RunView, history: History) -> list[tuple[str, str]]:
    """Return in pairs how the machine does while a run computes; nothing once it has ended."""
    told = telemetry_of(view, history)
    if view.state in ENDED or not told:
        return []
    pairs = [
        ("rows/s", f"{told['rows_per_s']:,.0f}" if "rows_per_s" in told else ""),
        ("lr", html.number(told.get("lr"))),
        ("grad norm", html.number(told.get("grad_norm"))),
        ("CPU", f"{told['cpu_cores']:.1f} cores" if "cpu_cores" in told else ""),
        ("memory", _size(told.get("rss_bytes"))),
        ("GPU", f"{told['gpu_share']:.0%}" if "gpu_share" in told else ""),
        ("GPU memory", " of ".join(filter(None, (_size(told.get(key)) for key in ("gpu_bytes", "gpu_total_bytes"))))),
    ]
    return [(name, text) for name, text in pairs if text]


def _size(n_bytes: float | None) -> str:
    if n_bytes is None:
        return ""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def awaited_by(view: RunView, history: History) -> str:
    """Return what a run waits for before its first figure; empty where nothing keeps it."""
    if view.state == "queued":
        return view.needs
    if view.state == "starting":
        return "its kernel"
    is_silent = not (metrics_of(view, history) or telemetry_of(view, history).get("loss"))
    if view.state != "running" or view.kind != "train" or not is_silent:
        return ""
    return "its first batch" if "task" in {**view.notes, **history.notes} else "the framework and its data"


def remarks(view: RunView, history: History) -> list[str]:
    """Return what went wrong, what is being waited for, and who else holds the run's GPU."""
    found = [f"waiting for {awaited}"] if (awaited := awaited_by(view, history)) else []
    if view.state not in ENDED:
        notes = {**view.notes, **history.notes}
        found += [str(notes[key]) for key in REMARKED if notes.get(key)]
    if view.error:
        found += [view.error.message, view.error.hint]
    return [text for text in found if text]


def run_text(view: RunView, history: History) -> str:
    """Return the card of a run as text."""
    parts = [headline(view)]
    pairs = facts_of(view, history, time.time())
    parts.append("  " + "  ".join(f"{key} {value}" for key, value in pairs) if pairs else "")
    if machine := machine_of(view, history):
        parts.append("  " + "  ".join(f"{key} {value}" for key, value in machine))
    metrics = metrics_of(view, history)
    for values in (metrics, checks_of(view)):
        if values:
            parts.append("  " + "  ".join(f"{key} {html.number(value)}" for key, value in sorted(values.items())))
    if origin := origin_of(view, history):
        parts.append("  " + "  ".join(f"{key} {value}" for key, value in origin))
    parts += [f"  {text}" for text in remarks(view, history)]
    return "\n".join(part for part in parts if part)


def run_html(view: RunView, history: History) -> str:
    """Return the card of a run as HTML."""
    progress = history.progress or view.progress
    is_moving = view.state not in ENDED
    share = progress.get("done", 0) / progress["total"] if progress.get("total") else 0.0
    version = f"{view.model}@{view.version}" if view.model and view.version is not None else ""
    subtitle = " · ".join(text for text in (f"run {view.run_id}", version, clock(view.created_at)) if text)
    bad = html.BAD if view.state in ("failed", "lost") else html.WARN
    return html.card(
        f"{ROLES.get(view.kind, view.kind)} {view.title}",
        html.bar(share) if is_moving else "",
        html.facts(facts_of(view, history, time.time())),
        html.facts(machine_of(view, history)),
        _metrics_html(metrics_of(view, history)),
        _metrics_html(checks_of(view)),
        curve(history.losses, unit=str(progress.get("unit", "step"))),
        html.facts(origin_of(view, history)),
        html.lines(remarks(view, history), colour=bad if view.error else ""),
        badge=view.state,
        subtitle=subtitle,
    )


def _metrics_html(metrics: dict[str, float]) -> str:
    pairs: Iterable[tuple[str, Any]] = [(name, html.number(value)) for name, value in sorted(metrics.items())]
    return html.facts(pairs)
