"""``feedback``: late labels of rows that an endpoint was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lepton_jupyter.core.names import parse
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.predict import rows_of
from lepton_jupyter.faces.objects.feedback import Feedback as Card
from lepton_jupyter.formats.schema import Column, Schema
from lepton_jupyter.stages.monitor.spec import Feedback


def feedback(asker: Asker, spec: Feedback, objects: Mapping[str, Any]) -> Card:
    """Keep labels, and return what of them was found in the log, with the metrics over that."""
    from lepton_jupyter.stages.deploy.scoring import frame_of_rows
    from lepton_jupyter.stages.monitor.feedback import feed, labels_schema

    name = parse(spec.endpoint, "endpoint").name
    schema = labels_schema(asker.home, name)
    value = objects["labels"] if "labels" in objects else rows_of(asker, spec.labels)
    return Card(feed(asker.home, name, frame_of_rows(value, schema=_as_text(schema))), name)


def _as_text(schema: Schema) -> Schema:
    """Return what is text in a file of labels, though it may look like a number: ids with zeros in front, classes."""
    names = ["row_id", *([schema.id_column] if schema.id_column else []), *(schema.targets if schema.classes else ())]
    return Schema(columns=tuple(Column(name=name, kind="string") for name in dict.fromkeys(names)))
