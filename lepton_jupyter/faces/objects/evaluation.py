"""An evaluation: the verdict first, then figures with intervals, then charts."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.charted import Charted
from lepton_jupyter.formats.evaluation import EvaluationRecord
from lepton_jupyter.stages.evaluate.summary import as_html, as_text


class Evaluation(Charted):
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

    def _text(self) -> str:
        return f"{self._line()}\n{as_text(self.record)}\nrun {self.run_id}"

    def _html(self) -> str:
        return html.card(
            f"{self.version} on {self.dataset}",
            as_html(self.record),
            badge=self.verdict,
            subtitle=f"run {self.run_id}",
        )
