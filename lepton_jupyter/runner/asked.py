"""What was asked of the run that this kernel executes: the verb's struct, its model and names, its data."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import Reference, parse
from lepton_jupyter.core.paths import Home, RunFolder
from lepton_jupyter.formats.bundle import Bundle, open_bundle
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.runner import payload
from lepton_jupyter.runner.request import read_record
from lepton_jupyter.runner.spec import Run
from lepton_jupyter.stages.evaluate.spec import Evaluate
from lepton_jupyter.stages.monitor.spec import Monitor
from lepton_jupyter.stages.train.spec import Train, TrainCell
from lepton_jupyter.stages.tune.spec import Tune
from lepton_jupyter.stages.verbs import Verb

if TYPE_CHECKING:
    from lepton_jupyter.stages.data.store import Dataset
    from lepton_jupyter.stages.monitor.window import MonitorWindow
    from lepton_jupyter.stages.train.loaders import Loaders

SPECS: dict[str, type[Verb]] = {
    "train": Train,
    "tune": Tune,
    "cell": TrainCell,
    "evaluate": Evaluate,
    "notebook": Run,
    "monitor": Monitor,
}


class Asked:
    """What was asked.

    Attributes
    ----------
    record : RunRecord
    home : Home
    files : RunFolder
    folder : Path
        The run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.files = folder
        self.folder: Path = folder.root
        self.home = Home(folder.root.parent.parent)
        self.record: RunRecord = read_record(folder)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.record.run_id

    @cached_property
    def spec(self) -> Any:
        """The verb's struct."""
        kind = SPECS.get(self.record.kind)
        if kind is None:
            raise LeptonError(f"A run of kind '{self.record.kind}' has no struct.", code="failed")
        return msgspec.convert(self.record.spec, kind, strict=False)

    @cached_property
    def _objects(self) -> dict[str, Any]:
        # A namespace of its own, as a notebook's is: names of the stage's notebook must not hide the user's.
        return payload.unpack(self.files.payload, {"__name__": "__main__"})

    @property
    def model(self) -> Any:
        """What the name in the notebook was: class, instance, factory, estimator."""
        if "model" not in self._objects:
            raise LeptonError(f"Run {self.run_id} brought no model.", code="failed")
        return self._objects["model"]

    @property
    def names(self) -> dict[str, Any]:
        """What else of the notebook the flags name: ``optimizer``, ``loss``, ``lr_scheduler``."""
        return {key: value for key, value in self._objects.items() if key not in ("model", "data")}

    @cached_property
    def source(self) -> str:
        """The model's source, for a person."""
        return payload.read_index(self.files.payload).source

    @cached_property
    def _data_reference(self) -> Reference | None:
        return parse(self.record.dataset, "dataset") if self.record.dataset else None

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset's version that was pinned when the run was asked for."""
        if self._data_reference is None:
            raise LeptonError(f"Run {self.run_id} names no dataset.", code="failed")
        from lepton_jupyter.stages.data.store import Store

        return Store(self.home).open(self._data_reference)

    @cached_property
    def data(self) -> Dataset | Loaders:
        """What a training learns from: its dataset, or the notebook's own loaders."""
        if self._data_reference is not None:
            return self.dataset
        from lepton_jupyter.stages.train.loaders import loaders_of

        return loaders_of(self._objects["data"], self.spec)

    @property
    def split(self) -> str:
        """The split that an evaluation judges."""
        return (self._data_reference.split if self._data_reference else None) or "test"

    @cached_property
    def bundle(self) -> Bundle:
        """The version that is judged."""
        if self.record.model_version is None:
            raise LeptonError(f"Run {self.run_id} judges no version.", code="failed")
        return self._pinned(self.record.model_version)

    @cached_property
    def against(self) -> Bundle | None:
        """The version that it is compared with."""
        return self._pinned(self.record.against) if self.record.against else None

    def _pinned(self, run_id: str) -> Bundle:
        return open_bundle(self.home.bundles / run_id, self.record.pins.get(run_id))

    @cached_property
    def window(self) -> MonitorWindow:
        """The requests that a report looks at, beside what the endpoint's version was trained on."""
        from lepton_jupyter.stages.monitor.window import read_window

        said = self.record.parameters
        if self.record.endpoint is None:
            raise LeptonError(
                f"Run {self.run_id} watches no endpoint.", 'lepton.window("NAME", hours=24) names one.', code="failed"
            )
        start, end = float(said.get("window_start", 0.0)), float(said.get("window_end", self.record.created_at))
        return read_window(self.home, self.record.endpoint, start, end)
