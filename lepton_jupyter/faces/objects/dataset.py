"""A version of a dataset, as a person sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.names import SPLITS
from lepton_jupyter.faces.objects import html
from lepton_jupyter.faces.objects.shown import Shown
from lepton_jupyter.faces.objects.when import clock
from lepton_jupyter.formats.records import DatasetRecord

COLUMNS_SHOWN, FINDINGS_SHOWN = 40, 12
_ORDER = {"problem": 0, "warning": 1, "info": 2}


class DatasetCard(Shown):
    """One immutable version of a dataset.

    Attributes
    ----------
    record : DatasetRecord
        What was recorded: columns, splits, findings.
    versions : list of int
        The versions that there are of this dataset, oldest first.
    """

    def __init__(
        self,
        record: DatasetRecord,
        *,
        versions: list[int] | None = None,
        is_new: bool | None = None,
        strips: Mapping[str, bytes] | None = None,
    ) -> None:
        self.record = record
        self._strips = strips or {}  # PNG files, by class
        self.versions = versions or [record.version]
        self._is_new = is_new

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.record.name

    @property
    def version(self) -> int:
        """Number of this version."""
        return self.record.version

    @property
    def ref(self) -> str:
        """``NAME@3``."""
        return f"{self.record.name}@{self.record.version}"

    @property
    def findings(self) -> tuple[Any, ...]:
        """What should be known about the data."""
        return tuple(sorted(self.record.findings, key=lambda item: _ORDER.get(item.level, 3)))

    def table(self, split: str | None = None) -> Any:
        """Return the rows (of one split) as a polars DataFrame."""
        from lepton_jupyter.faces.flows.load import dataset_table

        return dataset_table(self.ref + (f":{split}" if split else ""))

    def _pairs(self) -> list[tuple[str, Any]]:
        record = self.record
        schema = record.schema
        splits = ", ".join(f"{name} {record.split_rows[name]}" for name in SPLITS if name in record.split_rows)
        return [
            ("rows", record.n_rows),
            ("images", str(schema.image))
            if schema.image
            else ("features", len(schema.columns) or str(schema.tensor_shape or "none")),
            ("target", ", ".join(schema.targets) or "none: add --target to train on it"),
            ("task", schema.task),
            ("positive", schema.positive),
            ("id", schema.id_column),
            ("splits", f"{splits} ({record.split_how})"),
        ]

    def _news(self) -> str:
        if self._is_new is None:
            return ""
        if not self._is_new:
            return "unchanged: this version was there already"
        return f"new version, {self.record.n_new_rows} new rows" if self.record.version > 1 else ""

    def _columns(self) -> list[tuple[Any, ...]]:
        rows = []
        for column in self.record.schema.columns[:COLUMNS_SHOWN]:
            words = ", ".join(column.categories[:6]) + (" …" if len(column.categories) > 6 else "")
            between = (
                f"{html.number(column.minimum)} … {html.number(column.maximum)}" if column.minimum is not None else ""
            )
            rows.append((column.name, column.kind, words or between, "missing values" if column.has_missing else ""))
        return rows

    def _findings(self) -> list[str]:
        found = self.findings
        more = [f"… and {len(found) - FINDINGS_SHOWN} more"] if len(found) > FINDINGS_SHOWN else []
        return [f"{item.level}: {item.text}" for item in found[:FINDINGS_SHOWN]] + more

    def _line(self) -> str:
        schema = self.record.schema
        features = f"images of {schema.image}" if schema.image else f"{len(schema.columns)} features"
        return f"dataset {self.ref} · {self.record.n_rows} rows · {features}"

    def _text(self) -> str:
        news = f" · {self._news()}" if self._news() else ""
        lines = [f"dataset {self.ref}{news}"]
        lines += [f"  {key}: {value}" for key, value in self._pairs() if value not in (None, "")]
        if self.record.class_counts:
            lines.append("  classes: " + ", ".join(f"{name} {n}" for name, n in self.record.class_counts.items()))
        return "\n".join([*lines, *(f"  {text}" for text in self._findings())])

    def _html(self) -> str:
        counts = self.record.class_counts.items()
        hidden = len(self.record.schema.columns) - COLUMNS_SHOWN
        columns = html.table(("column", "kind", "values in train", ""), self._columns())
        details = (
            f'<details style="margin-top:6px"><summary>columns</summary>{columns}'
            f"{html.lines([f'… and {hidden} more']) if hidden > 0 else ''}</details>"
        )
        return html.card(
            f"dataset {self.ref}",
            html.facts(self._pairs()),
            html.facts((f"class {name}", n) for name, n in counts),
            *(html.lines([text], colour="" if text.startswith("info:") else html.WARN) for text in self._findings()),
            details if self.record.schema.image is None else html.pictures(self._strips),
            subtitle=" · ".join(
                text for text in (self._news(), self.record.source, clock(self.record.created_at)) if text
            ),
        )
