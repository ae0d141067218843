"""A version of a model, and an endpoint that serves one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.asking import curl_to
from lepton_jupyter.faces.objects.journal import Journal
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.objects.when import clock
from lepton_jupyter.formats.views import BesideView, EndpointView, VersionView

if TYPE_CHECKING:
    from lepton_jupyter.faces.asker import Asker

HISTORY_SHOWN = 6


class Version(Shown):
    """One version of a model: ``NAME@3``."""

    def __init__(self, view: VersionView, asker: Asker, *, journal: Journal | None = None) -> None:
        """Take the version; with the model's `journal` its card ends in what happened so far."""
        self.view = view
        self._asker = asker
        self._journal = journal

    @property
    def ref(self) -> str:
        """``NAME@3``, or the run's id while the registry has given no number."""
        return self.view.ref

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.view.model

    @property
    def number(self) -> int | None:
        """The registry's number."""
        return self.view.number

    @property
    def run_id(self) -> str:
        """Id of the run that made it."""
        return self.view.run_id

    @property
    def aliases(self) -> tuple[str, ...]:
        """Such as ``champion``."""
        return self.view.aliases

    @property
    def verdict(self) -> str:
        """Of its latest evaluation; empty where there is none."""
        return self.view.verdict

    @property
    def metrics(self) -> dict[str, float]:
        """What its training measured."""
        return dict(self.view.metrics)

    @property
    def evaluation(self) -> dict[str, Any]:
        """Summary of its latest evaluation: ``metrics``, ``intervals``, ``dataset`` …"""
        return dict(self.view.evaluation)

    @property
    def is_deployable(self) -> bool:
        """Whether it can be served; `why_not` says why where it cannot."""
        return self.view.is_deployable

    @property
    def why_not(self) -> str:
        """Why it cannot be served."""
        return self.view.why_not

    @property
    def remark(self) -> str:
        """What should be known about it, such as 'stopped at epoch 12'."""
        return self.view.remark

    @property
    def journal(self) -> Journal:
        """What happened to the model, newest first; looked up anew."""
        return Journal(self.model, self._asker.client.journal(self.model))

    def load(self) -> Any:
        """Return it ready to predict, with ``.weights``."""
        from lepton_jupyter.faces.flows.load import open_version

        return open_version(self.view)

    def _pairs(self) -> list[tuple[str, Any]]:
        view = self.view
        return [
            ("framework", view.framework),
            ("task", view.task),
            ("trained on", view.dataset),
            ("made", clock(view.created_at)),
            ("run", view.run_id),
        ]

    def _remarks(self) -> list[str]:
        found = [] if self.view.is_deployable else [f"not deployable: {self.view.why_not or 'reason not recorded'}"]
        return found + ([self.view.remark] if self.view.remark else [])

    def _text(self) -> str:
        words = " ".join([*self.aliases, self.verdict]).strip()
        lines = [f"{self.ref}{' · ' + words if words else ''}"]
        lines.append("  " + "  ".join(f"{key} {value}" for key, value in self._pairs() if value))
        for name, values in (("trained", self.metrics), ("evaluated", self.evaluation.get("metrics", {}))):
            if values:
                lines.append(f"  {name}: " + "  ".join(f"{key} {html.number(v)}" for key, v in sorted(values.items())))
        lines += [f"  {text}" for text in self._remarks()]
        return "\n".join([*lines, *([self._journal.text()] if self._journal else [])])

    def _html(self) -> str:
        evaluated = self.evaluation.get("metrics", {})
        return html.card(
            self.ref,
            html.facts(self._pairs()),
            html.facts((f"trained {key}", html.number(value)) for key, value in sorted(self.metrics.items())),
            html.facts((key, html.number(value)) for key, value in sorted(evaluated.items())),
            html.lines(self._remarks(), colour=html.WARN),
            self._journal.html() if self._journal else "",
            badge=self.verdict,
            subtitle=" ".join(self.aliases),
        )


def described(beside: BesideView, *, is_short: bool = False) -> str:
    """Return a canary or a shadow in words: its version, share and requests, and how it does."""
    share = f" {beside.share:.3g} of the requests" if beside.kind == "canary" else ""
    if is_short:
        return f"{beside.kind} {beside.version}{share.removesuffix(' of the requests')}"
    return f"{beside.version}{':' if share else ''}{share}, {beside.n_requests:,} so far · {beside.verdict}"


class Endpoint(Shown):
    """A version behind an address."""

    def __init__(
        self,
        view: EndpointView,
        asker: Asker,
        *,
        example: dict[str, Any] | None = None,
        asking: Sequence[str] = (),
    ) -> None:
        self.view = view
        self._asker = asker
        self._example = example or {}
        self._asking = list(asking)  # where a row is no object of columns

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.view.name

    @property
    def ref(self) -> str:
        """What to type for it: ``endpoint/NAME``."""
        return f"endpoint/{self.view.name}"

    @property
    def state(self) -> str:
        """One of starting, ready, updating, stopped, error; looked up anew."""
        self.view = self._asker.client.endpoint(self.name)
        return self.view.state

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or https."""
        return self.view.url

    @property
    def version(self) -> str:
        """What it serves: ``NAME@3``."""
        return self.view.version

    @property
    def follows(self) -> str | None:
        """``NAME@champion`` where it follows an alias."""
        alias = (self.view.follows or "").rpartition("@")[2]
        return f"{self.view.model}@{alias}" if alias else None

    @property
    def beside(self) -> BesideView | None:
        """Its canary or shadow: ``kind``, ``version``, ``share``, ``n_requests``, ``verdict``; looked up anew."""
        self.view = self._asker.client.endpoint(self.name)
        return self.view.beside

    @property
    def token_path(self) -> Path:
        """The file that holds the token, readable by its owner only."""
        return Path(self.view.token_path)

    @property
    def token(self) -> str:
        """The token that a request must bring. It is shown nowhere."""
        return self.token_path.read_text().strip()

    @property
    def history(self) -> tuple[Any, ...]:
        """What it has served, newest last."""
        return self.view.history

    def predict(self, rows: Any) -> Any:
        """Score rows (a DataFrame, a list of dicts or a path; of images files or a folder) and return a table.

        Returns
        -------
        polars.DataFrame
            The id if there is one, else ``row_id``; ``prediction``, ``probability_CLASS`` …

        Raises
        ------
        LeptonError
            If a row is refused (by row and column) or the endpoint does not answer.
        """
        from lepton_jupyter.faces.flows.predict import ask_endpoint

        return ask_endpoint(self._asker, self._asker.client.endpoint(self.name), rows)

    @property
    def asking(self) -> list[str]:
        """What to type to ask it: a line for a shell, or some of Python where its model takes arrays."""
        return self._asking or ([self.curl] if self._example else [])

    @property
    def curl(self) -> str:
        """A line for a shell that asks it for one row."""
        if self._asking:
            return self._asking[0] if len(self._asking) == 1 else ""
        body = shlex.quote(json.dumps({"rows": [self._example]}, ensure_ascii=False))
        return f"{curl_to(self.view, '/predict', self.view.token_path)} -H 'Content-Type: application/json' -d {body}"

    def _pairs(self) -> list[tuple[str, Any]]:
        view = self.view
        return [
            ("serves", view.version),
            ("follows", self.follows),
            ("held", "rolled back; until the next promote or deploy" if view.is_held else None),
            *((beside.kind, described(beside)) for beside in (view.beside,) if beside is not None),
            ("replicas", f"{view.n_ready} of {view.replicas}" if view.replicas > 1 else None),
            ("restarts", view.n_restarts or None),
            ("token", view.token_path),
            ("certificate", f"until {clock(view.certificate.ends_at)}" if view.certificate else None),
        ]

    def _remarks(self) -> list[str]:
        failure = self.view.error
        return [
            text
            for text in (
                self.view.warning,
                *self.view.remarks,
                failure.message if failure else "",
                failure.hint if failure else "",
            )
            if text
        ]

    def _line(self) -> str:
        return f"endpoint {self.name} · {self.view.state} · {self.url} · serves {self.version}"

    def _text(self) -> str:
        pairs = "\n".join(f"  {key}: {value}" for key, value in self._pairs() if value)
        said = [*self._remarks(), *self.asking]
        return "\n".join([self._line(), pairs, *(f"  {text}" for text in said)])

    def _html(self) -> str:
        past = [(clock(item.at), item.action, item.version, item.why) for item in self.view.history[-HISTORY_SHOWN:]]
        return html.card(
            f"endpoint {self.name}",
            html.lines([self.url], is_code=True),
            html.facts(self._pairs()),
            html.lines(self._remarks(), colour=html.WARN),
            html.lines(self.asking, is_code=True),
            html.table(("when", "what", "version", "why"), reversed(past)) if len(past) > 1 else "",
            badge=self.view.state,
        )
