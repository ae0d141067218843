"""One release in memory: what the endpoint was told to serve, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.schema import Schema
from lepton_jupyter.serving.pictures import check_decoder
from lepton_jupyter.serving.reading import RowReader
from lepton_jupyter.serving.scorer import Scorer


@dataclass(frozen=True)
class Release:
    """A configuration, and the scorer and reader of rows that it asks for. A request holds one to its last byte."""

    config: EndpointConfig
    scorer: Scorer
    reader: RowReader

    @property
    def schema(self) -> Schema:
        """Columns in, outputs out."""
        return self.scorer.schema


class Taken(NamedTuple):
    """What a configuration asks for, in memory.

    Attributes
    ----------
    beside : Release or None
    trouble : Exception or None
        Why the version beside it is not there, though it was asked for.
    """

    live: Release
    beside: Release | None = None
    trouble: Exception | None = None


def take(config: EndpointConfig, known: Sequence[Release]) -> Taken:
    """Return the releases that a configuration names; those of a known bundle keep their scorers.

    Takes from milliseconds to seconds: call it in a thread. Where nothing is known, nothing is served: then a version
    beside that cannot be loaded does not keep the live one from being served.

    Raises
    ------
    LeptonError
        If a bundle is not there, was changed, or does not run, or the version beside does not fit the live one.
    """
    live = _follow(config, known)
    beside = config.beside
    if beside is None:
        return Taken(live)
    try:
        found = _follow(
            msgspec.structs.replace(
                config,
                model=beside.model,
                version=beside.version,
                bundle=beside.bundle,
                manifest_hash=beside.manifest_hash,
            ),
            known,
        )
        differences = live.schema.differences(found.schema)
        if differences:
            raise LeptonError(f"{beside.version} does not fit {config.version}: {'; '.join(differences)}.")
    except Exception as error:
        if known:
            raise
        return Taken(live, trouble=error)
    return Taken(live, found)


def _follow(config: EndpointConfig, known: Sequence[Release]) -> Release:
    for release in known:
        if (config.bundle, config.manifest_hash) == (release.config.bundle, release.config.manifest_hash):
            return replace(release, config=config)
    return load(config)


def load(config: EndpointConfig) -> Release:
    """Load and warm what `config` names. Takes from milliseconds to seconds: call it in a thread.

    Raises
    ------
    LeptonError
        If the bundle is not there, was changed, or does not run.
    """
    bundle = open_bundle(Path(config.bundle), config.manifest_hash)
    scorer = Scorer(bundle)
    scorer.warm()
    if scorer.schema.image is not None:
        check_decoder(bundle.card.parity)
    return Release(config, scorer, RowReader(scorer.schema))
