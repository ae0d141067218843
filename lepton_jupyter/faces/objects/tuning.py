"""A search, as a person holds it: the best trial first, then all of them, then charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.charted import Charted
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.faces.objects.when import span
from lepton_jupyter.formats.tuning import TuningRecord
from lepton_jupyter.formats.views import RunView
from lepton_jupyter.stages.tune.summary import N_SHOWN, as_text, counted, rows_of, short

if TYPE_CHECKING:
    from lepton_jupyter.faces.asker import Asker


class Tuning(Charted, Run):
    """A search that has ended, and its run.

    Attributes
    ----------
    record : TuningRecord
        All of it.
    """

    def __init__(self, view: RunView, asker: Asker, record: TuningRecord) -> None:
        Run.__init__(self, view, asker)
        self.record = record

    @property
    def params(self) -> dict[str, Any]:
        """Values of the best trial, by the names that were searched."""
        best = self.record.best_trial
        return dict(best.params) if best is not None else {}

    @property
    def value(self) -> float | None:
        """The metric of the best trial."""
        best = self.record.best_trial
        return best.value if best is not None else None

    @property
    def metric(self) -> str:
        """By what trials were judged, such as ``val_loss``."""
        return self.record.metric

    @property
    def importance(self) -> dict[str, float]:
        """Share of the metric's variation that each name explains."""
        return dict(self.record.importance)

    @property
    def trials(self) -> list[dict[str, Any]]:
        """All trials, each a flat dict: ready for ``pl.DataFrame(tuning.trials)``."""
        return [
            {"trial": one.number, "state": one.state, self.metric: one.value, **one.params, "epochs": one.epochs}
            for one in self.record.trials
        ]

    def figures(self) -> list[Any]:
        """Return the charts as plotly figures: history, importance, parallel coordinates."""
        from lepton_jupyter.stages.tune.charts import figures  # plotly is loaded when a chart is drawn

        return list(figures(self.record))

    def _more(self) -> dict[str, Any]:
        return {}  # this card, not the live one of its run

    def _line(self) -> str:
        return f"tune {self.record.model} · run {self.run_id} · {self.state} → {self.version or 'no version'}"

    def _text(self) -> str:
        return f"{self._line()}\n{as_text(self.record)}"

    def _html(self) -> str:
        record = self.record
        head, rows = rows_of(record, N_SHOWN)
        facts: list[tuple[str, Any]] = [("best", f"trial {record.best}"), (record.metric, short(self.value))]
        facts += [(name, short(value)) for name, value in self.params.items()]
        more: list[tuple[str, Any]] = [("trials", counted(record)), ("how", record.how), ("took", span(record.took_s))]
        more += [("data", record.dataset)]
        mattered = ", ".join(f"{name} {share:.0%}" for name, share in record.importance.items())
        return html.card(
            f"tune {record.model}",
            html.facts(facts),
            html.facts([*more, ("what mattered", mattered)]),
            html.table(head, rows),
            badge=self.state,
            subtitle=f"run {self.run_id} · {self.version or 'no version'}",
        )
