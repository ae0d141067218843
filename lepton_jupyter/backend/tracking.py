"""MLflow, the record of what was learned: the only importer of mlflow. Every call ends within seconds or raises."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.bundle import TOKENIZER, open_bundle
from lepton_jupyter.formats.records import RunRecord
from lepton_jupyter.formats.views import VersionView

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

TIMEOUT_S = 4  # with what surrounds it, a server that never answers costs under 5 s (the default client: 246 s)
EXPERIMENT = "lepton"
RUN_TAG = "lepton.run_id"
ARTIFACT = "model"
LOADER = "lepton_pyfunc"
PIXELS = "lepton_pixels"
MAX_PARAM_CHARS = 500
MAX_PARAMS = 100  # a call
MAX_POINTS = 1000  # a call

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT_S),
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
OF_ONE_THING = (
    "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED",
)  # fmt: skip

STATUS = {"completed": "FINISHED", "failed": "FAILED", "lost": "FAILED", "stopped": "KILLED"}


class Point(NamedTuple):
    """One value of one metric; `at` in seconds since 1970."""

    key: str
    value: float
    step: int
    at: float


class Unreachable(LeptonError):  # noqa: N818  reads like the state that it is
    """The MLflow server, or its file, does not answer: try again later."""


class Tracking:
    """A thin line to one MLflow store. Not for several threads at once.

    Raises
    ------
    Unreachable
        From every method, where the store does not answer.
    LeptonError
        Where it answers that this one thing cannot be recorded.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.mlflow_db}"
        self.is_own = "MLFLOW_TRACKING_URI" not in os.environ
        self._client: MlflowClient | None = None
        self._experiment_id: str | None = None
        self._run_ids: dict[str, str] = {}

    def load(self) -> None:
        """Import MLflow: two seconds, in a thread of its own, once the backend answers."""
        os.environ.update(SETTINGS)
        from mlflow.tracking import MlflowClient

        if self.is_own and not self.home.mlflow_db.exists():
            self._make_own(MlflowClient)
        self._client = MlflowClient(
            tracking_uri=self.uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or self.uri
        )

    def _make_own(self, make_client: type[MlflowClient]) -> None:
        """Make the tables of a home's own store beside it, and move it into place when it is whole.

        Making them takes seconds, and MLflow cannot go on with a file in whose middle it was killed.
        """
        fresh = self.home.mlflow_db.with_suffix(".new")
        for path in (fresh, fresh.with_name(f"{fresh.name}-journal")):
            path.unlink(missing_ok=True)
        try:
            make_client(tracking_uri=f"sqlite:///{fresh}").search_experiments(max_results=1)
        except Exception as error:
            raise Unreachable(f"MLflow could not make its tables in {fresh}: {error!r}", code="unavailable") from error
        fresh.replace(self.home.mlflow_db)

    @property
    def client(self) -> MlflowClient:
        """The client; `load` comes first."""
        if self._client is None:
            self.load()
        assert self._client is not None
        return self._client

    @contextmanager
    def _calling(self, what: str) -> Iterator[MlflowClient]:
        from mlflow.exceptions import MlflowException

        try:
            yield self.client
        except LeptonError:
            raise
        except MlflowException as error:
            if error.error_code in OF_ONE_THING:
                raise LeptonError(f"MLflow refused {what}: {error}", code="refused") from error
            raise Unreachable(f"MLflow at {self.uri} did not take {what}: {error}", code="unavailable") from error
        except Exception as error:  # requests, SQLAlchemy, boto: whatever carries the call
            raise Unreachable(f"MLflow at {self.uri} did not take {what}: {error!r}", code="unavailable") from error

    def experiment_id(self) -> str:
        """Return the id of the experiment that runs go to, made where it is missing."""
        if self._experiment_id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
            with self._calling("an experiment") as client:
                found = client.get_experiment_by_name(name)
                if found is None:
                    place = self.home.mlflow_artifacts.as_uri() if self.is_own else None
                    self._experiment_id = str(client.create_experiment(name, artifact_location=place))
                else:
                    self._experiment_id = str(found.experiment_id)
        return self._experiment_id

    def ensure_run(self, record: RunRecord) -> str:
        """Return MLflow's id of a run, looked up by its tag, made where it is missing with its parameters."""
        if record.run_id in self._run_ids:
            return self._run_ids[record.run_id]
        experiment_id = self.experiment_id()
        with self._calling(f"run {record.run_id}") as client:
            found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{record.run_id}'", max_results=1)
            if found:
                mlflow_id = str(found[0].info.run_id)
            else:
                tags = {
                    RUN_TAG: record.run_id,
                    "lepton.kind": record.kind,
                    "lepton.command": record.command[:MAX_PARAM_CHARS],
                    "lepton.dataset": record.dataset or "",
                    "mlflow.user": os.environ.get("USER", ""),
                    "mlflow.source.name": record.title,
                }
                started_ms = int(record.created_at * 1000)
                made = client.create_run(experiment_id, start_time=started_ms, tags=tags, run_name=record.title)
                mlflow_id = str(made.info.run_id)
        self._log_params(mlflow_id, record)
        self._run_ids[record.run_id] = mlflow_id
        return mlflow_id

    def _log_params(self, mlflow_id: str, record: RunRecord) -> None:
        with self._calling(f"the parameters of run {record.run_id}") as client:
            from mlflow.entities import Param

            said = {**record.spec, **{f"params.{key}": value for key, value in record.parameters.items()}}
            params = [
                Param(key, str(value)[:MAX_PARAM_CHARS]) for key, value in said.items() if value not in (None, "")
            ]
            for start in range(0, len(params), MAX_PARAMS):
                client.log_batch(mlflow_id, params=params[start : start + MAX_PARAMS])

    def log_points(self, mlflow_id: str, points: Sequence[Point]) -> None:
        """Record metrics; the same ones once more add nothing."""
        with self._calling("metrics") as client:
            from mlflow.entities import Metric

            metrics = [Metric(point.key, point.value, int(point.at * 1000), point.step) for point in points]
            for start in range(0, len(metrics), MAX_POINTS):
                client.log_batch(mlflow_id, metrics=metrics[start : start + MAX_POINTS])

    def finish_run(self, mlflow_id: str, state: str, *, ended_at: float | None, notes: dict[str, Any]) -> None:
        """Record how a run ended, and what it told, as tags."""
        with self._calling("the end of a run") as client:
            from mlflow.entities import RunTag

            tags = [RunTag(f"lepton.{key}", str(value)[:MAX_PARAM_CHARS]) for key, value in notes.items()]
            client.log_batch(mlflow_id, tags=[*tags[: MAX_PARAMS - 1], RunTag("lepton.state", state)])
            end_ms = int(ended_at * 1000) if ended_at is not None else None
            client.set_terminated(mlflow_id, STATUS.get(state, "FINISHED"), end_time=end_ms)

    def delete_run(self, run_id: str) -> None:
        """Let MLflow mark a run as deleted; one that it does not know is fine."""
        experiment_id = self.experiment_id()
        with self._calling(f"the deletion of run {run_id}") as client:
            for found in client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run_id}'"):
                client.delete_run(found.info.run_id)

    # -- the registry

    def ensure_version(self, version: VersionView, mlflow_id: str) -> int:
        """Upload a bundle and register it as a model version, both only where that was not done; return its number."""
        found = self._version_of(version.model, mlflow_id)
        if found is not None:
            return found
        with self._calling(f"the bundle of {version.model}") as client, tempfile.TemporaryDirectory() as folder:
            write_artifact(Path(folder), version, mlflow_id)
            client.log_artifacts(mlflow_id, folder, ARTIFACT)
        with self._calling(f"a version of {version.model}") as client:
            from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

            uri = f"runs:/{mlflow_id}/{ARTIFACT}"
            source = RunsArtifactRepository.get_underlying_uri(uri, tracking_uri=self.uri)
            self._ensure_model(version.model)
            tags = {RUN_TAG: version.run_id, "lepton.manifest": version.manifest_hash}
            made = client.create_model_version(version.model, source, run_id=mlflow_id, tags=tags, await_creation_for=0)
            return int(made.version)

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _version_of(self, model: str, mlflow_id: str) -> int | None:
        with self._calling(f"a question for {model}") as client:
            found = client.search_model_versions(f"run_id = '{mlflow_id}'")
            return next((int(each.version) for each in found if each.name == model), None)

    def set_alias(self, model: str, alias: str, number: int | None) -> None:
        """Move an alias to a version; with None take it away."""
        with self._calling(f"alias {alias} of {model}") as client:
            if number is not None:
                client.set_registered_model_alias(model, alias, str(number))
            else:
                client.delete_registered_model_alias(model, alias)

    def tag_version(self, model: str, number: int, verdict: str) -> None:
        """Record a version's verdict beside it."""
        with self._calling(f"the verdict of {model}@{number}") as client:
            client.set_model_version_tag(model, str(number), "lepton.verdict", verdict)

    def delete_version(self, model: str, number: int) -> None:
        """Take a version out of the registry; one that is not there is fine."""
        from mlflow.exceptions import MlflowException

        with self._calling(f"the deletion of {model}@{number}") as client:
            try:
                client.delete_model_version(model, str(number))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise


def write_artifact(folder: Path, version: VersionView, mlflow_id: str) -> None:
    """Write what `mlflow.pyfunc.load_model` loads without us: MLmodel, the loader as one file, the bundle.

    A version that cannot be scored by a graph has no flavour: MLflow keeps it, and cannot load it.
    """
    import mlflow
    import yaml

    bundle = open_bundle(Path(version.bundle), version.manifest_hash or None)
    shutil.copytree(bundle.root, folder / "bundle")
    flavors: dict[str, Any] = {"lepton": {"manifest": version.manifest_hash, "data": "bundle"}}
    if version.is_deployable:
        code = folder / "code"
        code.mkdir()
        ours = Path(__file__).parent.parent
        shutil.copyfile(ours / "serving" / "pyfunc_loader.py", code / f"{LOADER}.py")
        shutil.copyfile(ours / "formats" / "pixels.py", code / f"{PIXELS}.py")
        flavors["python_function"] = {
            "loader_module": LOADER,
            "code": "code",
            "data": "bundle",
            "python_version": ".".join(map(str, sys.version_info[:3])),
        }
        more = "pillow\n" if bundle.schema.image is not None else ""
        more += "tokenizers\n" if bundle.has(TOKENIZER) else ""
        (folder / "requirements.txt").write_text(f"mlflow\nnumpy\npandas\nonnxruntime\n{more}")
    model = {
        "artifact_path": ARTIFACT,
        "flavors": flavors,
        "mlflow_version": mlflow.__version__,
        "model_uuid": version.run_id,
        "run_id": mlflow_id,
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(model))
