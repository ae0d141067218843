"""What looks personal and would be logged as it is: said before it is served."""

from __future__ import annotations

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.faces.arguments import render
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.load import version_bundle
from lepton_jupyter.formats.records import DatasetRecord
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.stages.data.spec import Data


def warn_of_personal(asker: Asker, version: VersionView, said: str | None) -> None:
    """Point at columns that the data's check took for personal and that nobody marked, with the line that marks them.

    Parameters
    ----------
    asker : Asker
    version : VersionView
    said : str or None
        What `deploy` was told of personal columns; ``keep``: who says so knows.
    """
    if said == "keep" or version.dataset is None:
        return
    from lepton_jupyter.stages.data.store import Store

    try:
        record = Store(asker.home).record(version.dataset)
        schema = version_bundle(version).schema
    except LeptonError:  # deleted since: what its check found is not known
        return
    logged = {column.name for column in schema.columns} | {schema.id_column}
    found = {finding.column for finding in record.findings if finding.check == "personal"}
    names = sorted(str(name) for name in (found & logged) - set(schema.personal))
    if names:
        look = "looks" if len(names) == 1 else "look"
        asker.warn(
            f"{', '.join(names)} {look} personal, and the request log will hold what is sent there. "
            f"To keep it out: {asker.type_next(_line(record, names))}, then train and deploy that."
        )


def _line(record: DatasetRecord, names: list[str]) -> str:
    """Return the line that makes the dataset again, with these columns marked."""
    flags = {**record.flags, "personal": (*record.flags.get("personal", ()), *names)}
    return render(msgspec.convert({"name": record.name, "source": record.source, **flags}, Data))
