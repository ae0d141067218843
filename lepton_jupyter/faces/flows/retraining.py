"""The steps of a retrain, one a cell of its notebook: refresh, train, evaluate, decide."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.names import parse
from lepton_jupyter.faces.asker import Asker, shell_here
from lepton_jupyter.faces.flows.data import card_of
from lepton_jupyter.faces.flows.evaluate import judge
from lepton_jupyter.faces.flows.follow import follow
from lepton_jupyter.faces.flows.retrain import CHAMPION, Plan, plan_of
from lepton_jupyter.faces.objects.dataset import DatasetCard
from lepton_jupyter.faces.objects.evaluation import Evaluation
from lepton_jupyter.faces.objects.retraining import PlanCard, Retrained
from lepton_jupyter.faces.objects.run import Run
from lepton_jupyter.faces.objects.text import Text
from lepton_jupyter.formats.views import VersionView
from lepton_jupyter.runner.session import RunSession
from lepton_jupyter.stages.evaluate.spec import Evaluate
from lepton_jupyter.stages.maintain.decide import SAID, decide

if TYPE_CHECKING:
    from lepton_jupyter.formats.records import DatasetRecord


class Retraining:
    """One retrain, step by step. Each step returns what a person wants to see of it.

    Attributes
    ----------
    version : VersionView or None
        The challenger, once there is one.
    """

    def __init__(self, run: RunSession, model: str, *, require: Sequence[str], approve: bool) -> None:
        self._run = run
        self._asker = Asker("python", shell=shell_here(), home=run.home)
        self._approve = approve
        self._what: Plan = plan_of(self._asker, model, require)
        self._dataset: DatasetRecord = self._what.dataset
        self._n_new_rows = 0
        self._nothing_new = ""
        self._evaluation: Evaluation | None = None
        self.version: VersionView | None = None

    @cached_property
    def plan(self) -> PlanCard:
        """What is going to happen."""
        what = self._what
        champion = f"{what.champion.ref}, {what.champion.verdict or 'never evaluated'}" if what.champion else "none"
        pairs = [
            ("champion", champion),
            ("recipe", f"run {what.recipe.run_id}: {what.recipe.command}"),
            ("data", f"{what.source}, last read as {what.dataset.name}@{what.dataset.version}"),
            ("must meet", ", ".join(what.require)),
        ]
        alone = f"{what.model} has no champion: what is trained now is judged alone."
        return PlanCard(what.model, pairs, [] if what.champion else [alone])

    @property
    def _dataset_ref(self) -> str:
        return f"{self._dataset.name}@{self._dataset.version}"

    def refresh(self) -> DatasetCard:
        """Read the data again: a new version only where their content has changed."""
        from lepton_jupyter.stages.data.refresh import refresh

        self._dataset, is_new = refresh(self._run.home, self._what.dataset, folder=Path(self._what.recipe.cwd))
        self._n_new_rows = self._rows_since_the_champion()
        self.version = self._version_there()
        self._run.note("dataset", self._dataset_ref)
        card = card_of(self._asker, self._dataset_ref)
        return DatasetCard(card.record, versions=card.versions, is_new=is_new)

    def _rows_since_the_champion(self) -> int:
        from lepton_jupyter.stages.data.store import Store

        last = parse(str(self._what.recipe.dataset), "dataset").version or 0
        return sum(
            record.n_new_rows for record in Store(self._run.home).versions(self._dataset.name) if record.version > last
        )

    def _version_there(self) -> VersionView | None:
        """Return a version that this recipe has made of these data already: the same would come again."""
        from lepton_jupyter.runner.recipe import root_of
        from lepton_jupyter.runner.request import read_record

        what = self._what
        for version in self._asker.client.models():
            if version.model != what.model or version.dataset != self._dataset_ref or "stopped" in version.remark:
                continue
            try:
                record = read_record(self._run.home.run(version.run_id))
            except LeptonError:
                continue
            if root_of(record) == root_of(what.recipe):
                return version
        return None

    def train(self) -> Run | Text:
        """Repeat the recorded training on the newest data; nothing where it has been done already."""
        from lepton_jupyter.runner.recipe import repeat

        there = self.version
        if there is not None and (there.verdict or there.run_id == self._what.base.run_id):
            self._nothing_new = self._why_nothing_new(there)
            return Text(f"Not trained. {self._nothing_new}")
        if there is not None:  # an earlier retrain was ended between training and judging
            return Text(f"{there.ref} was trained on {self._dataset_ref} already and not judged yet: it is judged now.")
        record = repeat(self._run.home, self._what.recipe, dataset=self._dataset_ref, parent=self._run.record)
        view = follow(self._asker, self._asker.client.submit(record.run_id))
        run = Run(view, self._asker)
        run.mark_shown()
        self.version = next((one for one in self._asker.client.models() if one.run_id == view.run_id), None)
        if self.version is None:
            raise LeptonError(
                f"Training run {view.run_id} of {view.title} made no version: there is nothing to judge.",
                f"Look at it: {self._asker.type_next(f'open run/{view.run_id}')}",
                code="failed",
            )
        return run

    def _why_nothing_new(self, there: VersionView) -> str:
        again = "the same recipe on the same rows makes the same model again"
        text = f"There are no rows that {there.ref} was not made of ({self._dataset_ref}): {again}."
        waits = there is not None and self._what.champion is not None and there.ref != self._what.champion.ref
        return f"{text} It was judged {there.verdict} and is not the champion." if waits else text

    def evaluate(self) -> Evaluation | Text:
        """Judge the new version on the newest test rows, against the champion on those that neither was trained on."""
        if self._nothing_new or self.version is None:
            return Text("Not evaluated: nothing was trained.")
        champion = self._what.champion
        spec = Evaluate(
            model=self.version.ref, require=self._what.require, against=champion.ref if champion is not None else None
        )
        self._evaluation = judge(self._asker, spec, self.version, parse(f"{self._dataset_ref}:test", "dataset"))
        return self._evaluation

    def decide(self) -> Retrained:
        """Promote the new version where it is better; tell what was decided and why."""
        what, reason = self._decided()
        if what == "promote" and self.version is not None:
            self._asker.client.promote(self.version.ref, CHAMPION, why=f"promoted by retrain {self._run.run_id}")
        champion, found = self._what.champion, self._evaluation
        told = {
            "decision": what,
            "reason": reason,
            "version": self.version.ref if self.version is not None and found is not None else None,
            "champion": champion.ref if champion is not None else None,
            "dataset": self._dataset_ref,
            "n_new_rows": self._n_new_rows,
            "verdict": SAID[what],  # these two are what a schedule and a message show of any report
            "headline": reason,
        }
        self._run.result(**told)
        return Retrained(self._asker.client.run(self._run.run_id), self._asker, told)

    def _decided(self) -> tuple[str, str]:
        if self._evaluation is None or self.version is None:
            return "nothing new", self._nothing_new
        champion = self._what.champion
        found = decide(
            self._evaluation.record,
            champion=champion.ref if champion is not None else None,
            approve=self._approve,
            why_not="" if self.version.is_deployable else self.version.why_not or "it could not be exported",
        )
        now = next((one for one in self._asker.client.models() if self._is_champion(one)), None)
        if found.what != "keep" and (now.run_id if now else None) != (champion.run_id if champion else None):
            beaten = f"{self.version.ref} was compared with {champion.ref if champion else 'no champion'}"
            return "keep", f"{beaten}, and meanwhile {now.ref if now else 'nobody'} is the champion."
        return found.what, found.reason

    def _is_champion(self, version: VersionView) -> bool:
        return version.model == self._what.model and CHAMPION in version.aliases
