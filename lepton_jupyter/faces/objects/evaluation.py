"""An evaluation: the verdict first, then figures with intervals, then charts."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown, publish
from lepton_jupyter.formats.evaluation import EvaluationRecord, Interval

MEANING = {
    "PASS": "every requirement is met, with room for chance",
    "FAIL": "a requirement is missed",
    "INCONCLUSIVE": "the requirements are met, but chance could explain it: more rows would settle it",
    "NONE": "nothing was required",
}
PLOTLY = "application/vnd.plotly.v1+json"


class Evaluation(Shown):
    """What was found about one version on rows of one split.

    Attributes
    ----------
    record : EvaluationRecord
        All of it, with the tables behind the charts.
    """

    def __init__(self, record: EvaluationRecord) -> None:
        self.record = record

    @property
    def verdict(self) -> str:
        """PASS, FAIL, INCONCLUSIVE or NONE."""
        return self.record.verdict

    @property
    def passed(self) -> bool:
        """Whether the verdict is PASS."""
        return self.record.verdict == "PASS"

    @property
    def metrics(self) -> dict[str, float]:
        """Plain floats by name: ``evaluation.metrics["roc_auc"]``."""
        return {name: float(value) for name, value in self.record.metrics.items()}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """``(low, high)`` of the two-sided 90 % intervals, by metric."""
        return {name: (interval.low, interval.high) for name, interval in self.record.intervals.items()}

    @property
    def remark(self) -> str:
        """What limits the answer, such as 'measured on rows it was trained on'."""
        return self.record.remark

    @property
    def version(self) -> str:
        """The version that was judged."""
        return self.record.version

    @property
    def dataset(self) -> str:
        """The rows that it was judged on: ``NAME@3:test``."""
        return self.record.dataset

    @property
    def run_id(self) -> str:
        """Id of the run that evaluated."""
        return self.record.run_id

    @property
    def ref(self) -> str:
        """What to type for the run: ``run/ID``."""
        return f"run/{self.record.run_id}"

    def figures(self) -> list[Any]:
        """Return the charts as plotly figures."""
        from lepton_jupyter.stages.evaluate.charts import figures  # plotly is loaded when a chart is drawn

        return list(figures(self.record))

    def _line(self) -> str:
        return f"evaluation of {self.version} on {self.dataset}: {self.verdict}"

    def _requirement_lines(self) -> list[str]:
        found = []
        for item in self.record.requirements:
            rows = f"; about {item.rows_needed} rows would settle it" if item.rows_needed else ""
            found.append(f"{item.verdict}  {item.text}  (measured {html.number(item.value)}{rows})")
        return found

    def _comparison(self) -> list[str]:
        other = self.record.comparison
        if other is None:
            return []
        if other.difference is None:
            return [f"against {other.against}: {other.verdict}. {other.reason}".rstrip()]
        bounds = f" ({html.number(other.low)} … {html.number(other.high)})" if other.low is not None else ""
        figure = f"{other.metric} {other.difference:+.4g}{bounds} on {other.n_rows} rows"
        return [f"against {other.against}: {other.verdict}; {figure}. {other.reason}".rstrip()]

    def _rows(self) -> list[tuple[Any, ...]]:
        return [
            (name, float(value), _between(self.record.intervals.get(name)), _method(self.record.intervals.get(name)))
            for name, value in self.record.metrics.items()
        ]

    def _pairs(self) -> list[tuple[str, Any]]:
        record = self.record
        return [("rows", record.n_rows), ("task", record.task), ("positive", record.positive), ("run", record.run_id)]

    def _text(self) -> str:
        lines = [f"{self._line()} ({MEANING[self.verdict]})", *(f"  {text}" for text in self._requirement_lines())]
        lines += [f"  remark: {self.remark}"] if self.remark else []
        lines += [f"  {text}" for text in self._comparison()]
        table = html.plain_table(("metric", "value", "90 % interval", "method"), self._rows())
        return "\n".join([*lines, "  " + "  ".join(f"{k} {v}" for k, v in self._pairs() if v not in (None, "")), table])

    def _html(self) -> str:
        return html.card(
            f"{self.version} on {self.dataset}",
            html.lines([MEANING[self.verdict]]),
            html.lines(self._requirement_lines(), colour=html.COLOURS.get(self.verdict, "")),
            html.lines([self.remark] if self.remark else [], colour=html.WARN),
            html.lines(self._comparison()),
            html.facts(self._pairs()),
            html.table(("metric", "value", "90 % interval", "method"), self._rows()),
            _confusion(self.record),
            badge=self.verdict,
        )

    def show(self) -> None:
        """Show the card and the charts now, unless this cell has shown them already."""
        was_shown = self.is_shown
        super().show()
        if not was_shown:
            self.show_charts()

    def _ipython_display_(self) -> None:
        was_shown = self.is_shown
        super()._ipython_display_()
        if not was_shown:
            self.show_charts()

    def show_in_place(self, run_id: str) -> None:
        """Put the card in the place of the live one of the run that evaluated, and the charts below."""
        publish(self._repr_mimebundle_(), display_id=f"lepton-run-{run_id}", is_update=True)
        self.show_charts()
        self.mark_shown()

    def show_charts(self) -> None:
        """Send the charts to the cell: plotly's JSON, with a table of numbers for where plotly is not drawn."""
        for figure in self.figures():
            title = getattr(getattr(figure.layout, "title", None), "text", None) or "chart"
            publish({PLOTLY: _as_json(figure), "text/plain": f"[{title}]"})


def _as_json(figure: Any) -> Any:
    import json

    return json.loads(figure.to_json())  # numpy arrays become plain lists


def _between(interval: Interval | None) -> str:
    return f"{html.number(interval.low)} … {html.number(interval.high)}" if interval else "too few rows"


def _method(interval: Interval | None) -> str:
    return interval.method if interval else ""


def _confusion(record: EvaluationRecord) -> str:
    table = record.tables.get("confusion")
    if not table or not all(isinstance(column, list) for column in table.values()):
        return ""
    rows = list(zip(*table.values(), strict=False))
    return html.lines(["confusion"]) + html.table(list(table), rows[:200])
