"""``evaluate``: requirements are read first, then the version is found (waited for), then it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import Reference, parse
from lepton_jupyter.core.paths import RunFolder
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.flows.ask import new_record, parameters_of, submit
from lepton_jupyter.faces.flows.follow import follow
from lepton_jupyter.faces.flows.meaning import find_version
from lepton_jupyter.faces.objects.evaluation import Evaluation
from lepton_jupyter.formats.evaluation import EvaluationRecord
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.stages.evaluate.requirements import parse_requirement
from lepton_jupyter.stages.evaluate.spec import Evaluate


def evaluate(asker: Asker, spec: Evaluate, objects: Mapping[str, Any]) -> Evaluation:
    """Judge a version on rows of a dataset, and return what was found."""
    for text in spec.require:
        parse_requirement(text)
    data = _parsed_data(spec.data)
    version = find_version(asker, spec.model)
    for text in spec.require:
        parse_requirement(text, version.task)  # type: ignore[arg-type]  # the wire carries it as text
    return judge(asker, spec, version, data)


def _parsed_data(text: str | None) -> Reference | None:
    return parse(text, "dataset") if text else None


def judge(asker: Asker, spec: Evaluate, version: VersionView, data: Reference | None = None) -> Evaluation:
    """Run the evaluation of one version and return what it found."""
    from lepton_jupyter.runner.request import stage_notebook

    dataset = _rows_to_judge_on(asker, version, data)
    against = _against(asker, spec.against, version)
    spec = msgspec.structs.replace(spec, model=version.ref, data=dataset, against=against.ref if against else None)
    record = new_record(
        asker,
        "evaluate",
        version.ref,
        spec,
        model_version=version.run_id,
        against=against.run_id if against else None,
        pins={each.run_id: each.manifest_hash for each in (version, against) if each and each.manifest_hash},
        dataset=dataset,
        needs_device=True,
        devices="cpu",  # a bundle is read by ONNX Runtime
        parameters=parameters_of(spec),
    )
    view = submit(asker, record, notebook=stage_notebook("evaluate", title=version.ref, source=record.command))
    follow(asker, view)
    found = read_evaluation(RunFolder(asker.home.run(record.run_id).root))
    if asker.is_kernel:
        found.show_in_place(view.run_id)
    return found


def read_evaluation(folder: RunFolder) -> Evaluation:
    """Return what an evaluation found.

    Raises
    ------
    LeptonError
        If the run has written no result.
    """
    try:
        return Evaluation(msgspec.json.decode(folder.result.read_bytes(), type=EvaluationRecord))
    except (OSError, msgspec.DecodeError) as error:
        raise LeptonError(f"Run {folder.run_id} left no evaluation.", "Evaluate again.", code="not_found") from error


def _rows_to_judge_on(asker: Asker, version: VersionView, data: Reference | None) -> str:
    """Return ``NAME@3:SPLIT``: as said, else the test split of what it was trained on."""
    from lepton_jupyter.stages.data.store import Store

    store = Store(asker.home)
    if data is None and version.dataset is None:
        raise LeptonError(
            f"It is not known on what {version.ref} was trained, so there is no test split to judge it on.",
            f"Say: {asker.type_next(f'evaluate {version.ref} --data DATA:test')}. Known: {', '.join(store.names())}",
        )
    ref = data or parse(str(version.dataset), "dataset")
    record = store.record(Reference(ref.name, kind="dataset", version=ref.version, alias=ref.alias))
    split = ref.split or "test"
    if not record.split_rows.get(split):
        have = ", ".join(f"{record.name}:{name}" for name, n in record.split_rows.items() if n)
        raise LeptonError(
            f"Dataset {record.name}@{record.version} has no rows in '{split}' ({record.split_how}). It has: {have}.",
            f"Name one: --data {have.partition(',')[0] or record.name}; on rows it was trained on the answer says so.",
            code="not_found",
        )
    return f"{record.name}@{record.version}:{split}"


def _against(asker: Asker, text: str | None, version: VersionView) -> VersionView | None:
    """Return the version to compare with: an alias of the same model, or any reference."""
    if text is None:
        return None
    ref = parse(text)
    is_alias = ref.kind is None and ref.is_latest and all(view.model != ref.name for view in asker.client.models())
    if is_alias and not ref.may_be_run:
        return asker.client.version(f"{version.model}@{ref.name}")
    return find_version(asker, text)
