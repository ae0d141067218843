"""What a retrain does: its plan, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.maintain.decide import SAID

if TYPE_CHECKING:
    from lepton_jupyter.faces.asker import Asker


class PlanCard(Shown):
    """What a retrain is going to do: pairs of a word and what it means here."""

    def __init__(self, model: str, pairs: list[tuple[str, str]], remarks: list[str]) -> None:
        self.model = model
        self._pairs = pairs
        self._remarks = remarks

    def _text(self) -> str:
        return "\n".join(
            [
                f"retrain {self.model}",
                *(f"  {key}: {value}" for key, value in self._pairs),
                *(f"  {text}" for text in self._remarks),
            ]
        )

    def _html(self) -> str:
        return html.card(
            f"retrain {self.model}",
            html.table(("", ""), self._pairs),
            html.lines(self._remarks, colour=html.WARN),
        )


class Retrained(Shown):
    """What came of a retrain: the decision first, then its reason.

    Attributes
    ----------
    run_id : str
        Of the run that did it.
    """

    def __init__(self, view: RunView, asker: Asker, told: dict[str, Any] | None = None) -> None:
        """Take the run as it stands; `told` is its result where it has only just been said."""
        self.view = view
        self.run_id = view.run_id
        self._asker = asker
        self._told = told if told is not None else view.result

    @property
    def state(self) -> str:
        """How the run ended."""
        return self.view.state

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.view.title

    @property
    def decision(self) -> str:
        """``promote``, ``keep``, ``ask`` (a better version waits for a person) or ``nothing new``."""
        return str(self._told.get("decision", ""))

    @property
    def is_promoted(self) -> bool:
        """Whether the new version is the champion now."""
        return self.decision == "promote"

    @property
    def reason(self) -> str:
        """Why, in one sentence with the figures."""
        return str(self._told.get("reason", ""))

    @property
    def version(self) -> str | None:
        """The version that was made, such as ``TumorNet@2``; None where nothing was trained."""
        return self._told.get("version")

    @property
    def champion(self) -> str | None:
        """The champion before."""
        return self._told.get("champion")

    @property
    def dataset(self) -> str:
        """The dataset's newest version: ``wdbc@2``."""
        return str(self._told.get("dataset", ""))

    @property
    def n_new_rows(self) -> int:
        """Rows that the champion's dataset did not have."""
        return int(self._told.get("n_new_rows", 0))

    @property
    def ref(self) -> str:
        """What to type for the run: ``run/ID``."""
        return f"run/{self.run_id}"

    def _pairs(self) -> list[tuple[str, Any]]:
        return [
            ("champion", self.version if self.is_promoted else self.champion),
            ("before" if self.is_promoted else "challenger", self.champion if self.is_promoted else self.version),
            ("data", self.dataset),
            ("new rows", self.n_new_rows),
        ]

    def _next(self) -> list[str]:
        if self.decision != "ask":
            return []
        return [f"To promote it: {self._asker.type_next(f'promote {self.version} champion')}"]

    def _line(self) -> str:
        return f"retrain {self.model} · {SAID.get(self.decision, self.view.state)}"

    def _text(self) -> str:
        pairs = "  ".join(f"{key} {value}" for key, value in self._pairs() if value not in (None, ""))
        lines = [self._line(), f"  {self.reason}", f"  {pairs}", *(f"  {text}" for text in self._next())]
        return "\n".join([*(line for line in lines if line.strip()), f"run {self.run_id}"])

    def _html(self) -> str:
        return html.card(
            f"retrain {self.model}",
            html.lines([self.reason]),
            html.facts(self._pairs()),
            html.lines(self._next(), is_code=True),
            badge=SAID.get(self.decision, self.view.state),
            subtitle=f"run {self.run_id}",
        )
