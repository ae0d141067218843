"""``export-log``: the request log of an endpoint, or of a container's folder, as Parquet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.core.paths import EndpointFolder
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.load import version_bundle
from lepton_jupyter.faces.flows.meaning import find_version
from lepton_jupyter.faces.objects.request_log import RequestLog
from lepton_jupyter.formats.bundle import MANIFEST, Bundle, open_bundle
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.requestlog import TABLES, segments
from lepton_jupyter.runner.timing import parse_span
from lepton_jupyter.stages.deploy.spec import ExportLog

if TYPE_CHECKING:
    from lepton_jupyter.stages.deploy.requests.reading import SchemaOf


def export_log(asker: Asker, spec: ExportLog, objects: Mapping[str, Any]) -> RequestLog:
    """Write a request log as a Parquet file, and return what it holds."""
    from lepton_jupyter.stages.deploy.requests.export import Asked, export
    from lepton_jupyter.stages.deploy.scoring import check_table_path
    from lepton_jupyter.stages.monitor.window import SETTLE_S

    to = Path(spec.to).expanduser().absolute()
    check_table_path(to)
    if to.suffix.lower() != ".parquet":
        raise LeptonError(f"'{spec.to}' is no Parquet file's name.", f"Write --to {to.with_suffix('.parquet').name}")
    now = time.time()
    start = _moment(spec.since, "since", now) if spec.since else 0.0
    end = min(now, _moment(spec.until, "until", now)) if spec.until else now
    if start >= end:
        raise LeptonError(f"--since {spec.since} is not before --until {spec.until or 'now'}.", "Nothing lies between.")
    folder, schema_of = _log_of(asker, spec)
    time.sleep(SETTLE_S if spec.until is None else 0.0)
    return RequestLog(export(folder, to, schema_of, Asked(start, end, spec.shadow)), spec.endpoint)


def _log_of(asker: Asker, spec: ExportLog) -> tuple[Path, SchemaOf]:
    """Return the folder of a log, and what the bundles that it names call their columns."""
    from lepton_jupyter.stages.deploy.requests.reading import Schemas

    is_path = "/" in spec.endpoint and not spec.endpoint.startswith("endpoint/")
    if not is_path and not (Path(spec.endpoint).is_dir() and spec.bundle):
        from lepton_jupyter.stages.monitor.window import config_of

        folder = asker.home.endpoint(parse(spec.endpoint, "endpoint").name)
        config = config_of(asker.home, folder)
        root = Path(config.bundle)
        plain = open_bundle(root).schema if (root / MANIFEST).exists() else None
        return folder.requests, Schemas(asker.home.bundles, plain)
    given = Path(spec.endpoint).expanduser().absolute()
    folder = EndpointFolder(given)
    log = folder.requests if folder.requests.is_dir() else given
    if not segments(log) and not (log / TABLES).is_dir():
        raise LeptonError(
            f"There is no request log in '{spec.endpoint}': no segment (*.lprq) lies there.",
            "Name what the container has as LEPTON_STATE, or the folder requests in it.",
        )
    bundle = _named(asker, spec.bundle) if spec.bundle else _beside(log)
    known = Schemas(bundle.root.parent, bundle.schema)
    return log, lambda name: known(name) or bundle.schema  # a container calls its bundle by a name of its own


def _named(asker: Asker, text: str) -> Bundle:
    """Return the bundle that is a folder, or a version's."""
    path = Path(text).expanduser()
    return open_bundle(path.absolute()) if path.is_dir() else version_bundle(find_version(asker, text))


def _beside(log: Path) -> Bundle:
    """Return the bundle that the folder's own configuration names, where it is on this machine too."""
    try:
        config = msgspec.json.decode(EndpointFolder(log.parent).config.read_bytes(), type=EndpointConfig)
        return open_bundle(Path(config.bundle), config.manifest_hash)
    except (OSError, msgspec.DecodeError, LeptonError) as error:
        raise LeptonError(
            f"What the columns of '{log}' are called is not known: its bundle is not on this machine.",
            "Say which version it served: --bundle NAME@3, or the bundle's folder.",
        ) from error


def _moment(text: str, flag: str, now: float) -> float:
    """Return a moment that was said as a span before now, or as a date or time in UTC."""
    try:
        return now - parse_span(text)
    except LeptonError:
        pass
    try:
        said = datetime.fromisoformat(text)
    except ValueError as error:
        raise LeptonError(
            f"--{flag} '{text}' is no moment. Known: a span before now (12h, 7d, 4w), a date, a time in UTC.",
            f"--{flag} 7d, --{flag} 2026-01-31, --{flag} 2026-01-31T12:00",
        ) from error
    return (said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp()
