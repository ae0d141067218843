"""A table of objects: a sequence, newest first, that shows itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown

T = TypeVar("T")


class Table(Shown, Sequence[T], Generic[T]):
    """Objects and what a list shows of them.

    Parameters
    ----------
    title : str
        What it is a table of.
    items : sequence
        The objects, newest first.
    columns : sequence of str
    rows : sequence of sequences
        What is shown of each object, one cell a column.
    pills : sequence of str
        Columns whose words are shown in their colour.
    empty : str
        What to type where there is nothing.
    """

    def __init__(
        self,
        title: str,
        items: Sequence[T],
        *,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        pills: Sequence[str] = (),
        empty: str = "",
    ) -> None:
        self.title = title
        self._items = list(items)
        self._columns = list(columns)
        self._rows = [list(row) for row in rows]
        self._pills = tuple(pills)
        self._empty = empty

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        return self._items[at]

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a sequence like a list

    def _line(self) -> str:
        return f"{self.title}: {len(self)}"

    def _text(self) -> str:
        if not self._items:
            return f"{self.title}: none yet. {self._empty}".rstrip()
        return html.plain_table(self._columns, self._rows)

    def _html(self) -> str:
        if not self._items:
            return html.card(self.title, html.lines([f"None yet. {self._empty}".rstrip()]))
        return html.card(self.title, html.table(self._columns, self._rows, pills=self._pills))
