"""One release in memory: what the endpoint was told to serve, ready to answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lepton_jupyter.formats.bundle import open_bundle
from lepton_jupyter.formats.endpoint import EndpointConfig
from lepton_jupyter.formats.schema import Schema
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

    def follow(self, config: EndpointConfig) -> Release:
        """Return the release for a newer configuration; the scorer is kept where the bundle is the same.

        Raises
        ------
        LeptonError
            If the bundle is not there, was changed, or does not run.
        """
        if (config.bundle, config.manifest_hash) == (self.config.bundle, self.config.manifest_hash):
            return replace(self, config=config)
        return load(config)


def load(config: EndpointConfig) -> Release:
    """Load and warm what `config` names. Takes from milliseconds to seconds: call it in a thread.

    Raises
    ------
    LeptonError
        If the bundle is not there, was changed, or does not run.
    """
    scorer = Scorer(open_bundle(Path(config.bundle), config.manifest_hash))
    scorer.warm()
    return Release(config, scorer, RowReader(scorer.schema))
