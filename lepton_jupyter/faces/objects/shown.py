"""What every object of ours has in common: it shows itself once a cell, as HTML and as text."""

from __future__ import annotations

from typing import Any

from lepton_jupyter.faces.asker import shell_here

_cell_number = 0
_watched: set[int] = set()


def _next_cell(*_: Any) -> None:
    global _cell_number  # IPython's events are functions; one process has one stream of cells
    _cell_number += 1


def watch_cells(shell: Any) -> None:
    """Count the cells of a shell, so that an object knows whether this cell has shown it already."""
    if shell is not None and id(shell) not in _watched:
        _watched.add(id(shell))
        shell.events.register("pre_run_cell", _next_cell)


class Shown:
    """An object with a card.

    A verb shows the card as soon as it has it (a cell may hold several verbs) and returns the object. Being the value
    of the same cell, it is then not shown twice.
    """

    _shown_in: int | None = None

    @property
    def is_shown(self) -> bool:
        """Whether this cell has shown it."""
        return self._shown_in == _cell_number

    def _text(self) -> str:
        """Return the card as text."""
        raise NotImplementedError

    def _html(self) -> str:
        """Return the card as HTML without script."""
        raise NotImplementedError

    def _more(self) -> dict[str, Any]:
        """Return further MIME types, such as a chart."""
        return {}

    def _line(self) -> str:
        """Return one line that names the object."""
        return self._text().partition("\n")[0]

    def __repr__(self) -> str:
        return self._text()

    def _repr_html_(self) -> str:
        return self._html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": self._text(), "text/html": self._html(), **self._more()}

    def _ipython_display_(self) -> None:
        shell = shell_here()
        if self.is_shown:
            if not hasattr(shell, "kernel"):  # a terminal has printed "Out[3]: " already
                print(self._line())  # noqa: T201
            return
        publish(self._repr_mimebundle_())

    def show(self) -> None:
        """Show the card now, unless this cell has shown it already."""
        if not self.is_shown:
            publish(self._repr_mimebundle_())
        self.mark_shown()

    def mark_shown(self) -> None:
        """Remember that this cell has shown it."""
        watch_cells(shell_here())
        self._shown_in = _cell_number


def publish(bundle: dict[str, Any], *, display_id: str | None = None, is_update: bool = False) -> None:
    """Send a bundle of MIME types to the cell; with a `display_id` it can be replaced later."""
    shell = shell_here()
    if shell is None:
        print(bundle["text/plain"])  # noqa: T201
        return
    transient = {"display_id": display_id} if display_id else None
    shell.display_pub.publish(data=bundle, metadata={}, transient=transient, update=is_update)
