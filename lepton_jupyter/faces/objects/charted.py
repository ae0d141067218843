"""What an object with charts has in common: the card first, the charts below it, each shown once a cell."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.faces.asker import shell_here
from lepton_jupyter.faces.objects.chart import publish_chart
from lepton_jupyter.faces.objects.shown import Shown, publish


class Charted(Shown):
    """An object with a card and charts; both are what a run found."""

    def figures(self) -> list[Any]:
        """Return the charts as plotly figures."""
        raise NotImplementedError

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
        """Put the card in the place of the live one of the run that found this, and the charts below."""
        publish(self._repr_mimebundle_(), display_id=f"lepton-run-{run_id}", is_update=True)
        self.show_charts()
        self.mark_shown()

    def show_charts(self) -> None:
        """Send the charts to the cell; a terminal has no place for them."""
        if hasattr(shell_here(), "kernel"):
            for figure in self.figures():
                publish_chart(figure)
