"""A report on an endpoint: the verdict first, then what changed, then charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.charted import Charted
from lepton_jupyter.formats.monitor import MonitorRecord
from lepton_jupyter.stages.monitor.summary import as_html, as_text


class Report(Charted):
    """What was found about one endpoint in one window of time.

    Attributes
    ----------
    record : MonitorRecord
        All of it, with the tables behind the charts.
    """

    def __init__(self, record: MonitorRecord, folder: RunFolder) -> None:
        self.record = record
        self._folder = folder

    @property
    def verdict(self) -> str:
        """OK, DRIFT, NOT ENOUGH DATA or NO TRAFFIC."""
        return self.record.verdict

    @property
    def headline(self) -> str:
        """One sentence: what a mail says behind the verdict."""
        return self.record.headline

    @property
    def sentences(self) -> tuple[str, ...]:
        """What changed, most important first."""
        return self.record.sentences

    @property
    def checks(self) -> dict[str, float | None]:
        """Plain floats by name: ``report.checks["psi"]``; None where it could not be measured."""
        return dict(self.record.checks)

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the columns that have drifted."""
        return tuple(column.name for column in self.record.columns if column.has_drifted)

    @property
    def endpoint(self) -> str:
        """The endpoint that was watched."""
        return self.record.endpoint

    @property
    def run_id(self) -> str:
        """Id of the run that reported."""
        return self.record.run_id

    @property
    def ref(self) -> str:
        """What to type for the run: ``run/ID``."""
        return f"run/{self.record.run_id}"

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self._folder.notebook

    def figures(self) -> list[Any]:
        """Return the charts as plotly figures."""
        from lepton_jupyter.stages.monitor.charts import figures  # plotly is loaded when a chart is drawn

        return list(figures(self.record))

    def _line(self) -> str:
        return f"report on {self.endpoint}: {self.verdict}, {self.headline}"

    def _text(self) -> str:
        return f"{as_text(self.record)}\nrun {self.run_id}"

    def _html(self) -> str:
        return html.card(
            f"Report on {self.endpoint}", as_html(self.record), badge=self.verdict, subtitle=f"run {self.run_id}"
        )
