"""Where things lie: the one place that knows the names of our files."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.runtime import Runtime


@dataclass(frozen=True)
class Home:
    """A LEPTON_HOME: everything that must outlive a process. Folders are 0700."""

    root: Path

    @classmethod
    def current(cls) -> Home:
        """Return the home of this process: ``LEPTON_HOME``, else platformdirs' user data folder."""
        said = os.environ.get("LEPTON_HOME")
        if said:
            return cls(Path(said).expanduser().absolute())
        from platformdirs import user_data_path  # a lazy import: not needed where LEPTON_HOME is set

        return cls(user_data_path("lepton_jupyter"))

    def make(self) -> Home:
        """Make the folders that are missing, and return self.

        Raises
        ------
        LeptonError
            If the home cannot be made; the message names it.
        """
        try:
            for folder in (self.root, self.runs, self.datasets, self.bundles, self.endpoints, self.schedules):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LeptonError(
                f"LEPTON_HOME '{self.root}' cannot be used: {error.strerror}.",
                "Set LEPTON_HOME to a folder that you can write to.",
                code="unavailable",
            ) from error
        return self

    @property
    def state_db(self) -> Path:
        """SQLite: what is going on."""
        return self.root / "state.db"

    @property
    def mlflow_db(self) -> Path:
        """SQLite: MLflow's record of what was learned, where no server is set."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's artifacts, where no server is set."""
        return self.root / "mlartifacts"

    @property
    def backend_record(self) -> Path:
        """Which interpreter and host the backend of this home has."""
        return self.root / "backend.json"

    @property
    def backend_log(self) -> Path:
        """What keeper and backend print."""
        return self.root / "backend.log"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.root / "runs"

    @property
    def datasets(self) -> Path:
        """One folder a dataset, one a version in it."""
        return self.root / "datasets"

    @property
    def bundles(self) -> Path:
        """One folder a version's bundle, named by the run that made it."""
        return self.root / "bundles"

    @property
    def endpoints(self) -> Path:
        """One folder an endpoint."""
        return self.root / "endpoints"

    @property
    def schedules(self) -> Path:
        """One folder a schedule."""
        return self.root / "schedules"

    @property
    def warm(self) -> Path:
        """Where the kernel that waits for a training stands; its log is the run's, once it has one."""
        return self.root / "warm"

    def schedule(self, name: str, generation: str) -> ScheduleFolder:
        """Return the folder of a schedule as it was defined once, which need not exist."""
        return ScheduleFolder(self.schedules / name / generation)

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of a run, which need not exist."""
        return RunFolder(self.runs / run_id)

    def endpoint(self, name: str) -> EndpointFolder:
        """Return the folder of an endpoint, which need not exist."""
        return EndpointFolder(self.endpoints / name)

    def runtime(self) -> Runtime:
        """Return the runtime folder that belongs to this home."""
        return Runtime.of(self.root)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. One writer a file; the writer is named."""

    root: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.root.name

    @property
    def record(self) -> Path:
        """``run.json``: what was asked. Written once, by the client."""
        return self.root / "run.json"

    @property
    def environment(self) -> Path:
        """``environment.json``, mode 0600: the environment of the notebook that asked. Written by the client."""
        return self.root / "environment.json"

    @property
    def payload(self) -> Path:
        """What the user's cells define, as files. Written by the client."""
        return self.root / "payload"

    @property
    def kernel_events(self) -> Path:
        """Append-only; written by the run's kernel."""
        return self.root / "events.kernel.jsonl"

    @property
    def supervisor_events(self) -> Path:
        """Append-only; written by the run's supervisor."""
        return self.root / "events.supervisor.jsonl"

    @property
    def events(self) -> Path:
        """Append-only; the two above merged under one sequence, with the backend's own. Written by the backend."""
        return self.root / "events.jsonl"

    @property
    def notebook(self) -> Path:
        """The executed notebook. Written by the supervisor (by the backend once the supervisor is dead)."""
        return self.root / "notebook.ipynb"

    @property
    def source(self) -> Path:
        """The notebook that is executed. Written by the client."""
        return self.root / "source.ipynb"

    @property
    def log(self) -> Path:
        """What supervisor and kernel print outside of cells."""
        return self.root / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """Written by the kernel."""
        return self.root / "checkpoints"

    @property
    def cell_state(self) -> Path:
        """What a cell gave ``lepton.checkpoint``. Written by the kernel, of several ranks by the first."""
        return self.checkpoints / "state.safetensors"

    @property
    def bundle(self) -> Path:
        """The bundle of a training run. Written by the kernel, moved into place when whole."""
        return self.root / "bundle"

    @property
    def result(self) -> Path:
        """``result.json``: what the run found, such as an evaluation. Written by the kernel."""
        return self.root / "result.json"

    @property
    def report(self) -> Path:
        """``report.html``: the executed notebook for a browser without a network. Written by the supervisor."""
        return self.root / "report.html"

    @property
    def picture(self) -> Path:
        """``report.png``: one static picture for a mail. Written by the kernel."""
        return self.root / "report.png"

    @property
    def reserve(self) -> Path:
        """Room on the disk that is given back when the bundle is written."""
        return self.root / "reserve.bin"


@dataclass(frozen=True)
class ScheduleFolder:
    """The folder of one definition of a schedule: written whole by the client, removed by the backend."""

    root: Path

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.root.parent.name

    @property
    def generation(self) -> str:
        """Which definition it is: the folder's name."""
        return self.root.name

    @property
    def record(self) -> Path:
        """``schedule.json``: what was defined."""
        return self.root / "schedule.json"

    @property
    def environment(self) -> Path:
        """``environment.json``, mode 0600: the environment of whoever defined it."""
        return self.root / "environment.json"


@dataclass(frozen=True)
class EndpointFolder:
    """The folder of one endpoint. One writer a file; the writer is named. What replicas share: `core.replicas`."""

    root: Path

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.root.name

    @property
    def config(self) -> Path:
        """``endpoint.json``: what shall be served. Written by the backend; the endpoint follows it."""
        return self.root / "endpoint.json"

    @property
    def status(self) -> Path:
        """``status.json``: what is served. Written by the endpoint."""
        return self.root / "status.json"

    @property
    def figures(self) -> Path:
        """``figures.json``: how the live version and the one beside it do. Written by the endpoint."""
        return self.root / "figures.json"

    @property
    def token(self) -> Path:
        """The owner's token, mode 0600. Written by the backend."""
        return self.root / "token"

    @property
    def tokens(self) -> Path:
        """Other tokens, each in a file of its name, mode 0600. Written by the backend."""
        return self.root / "tokens"

    @property
    def certificate(self) -> Path:
        """``certificate.pem``: what new connections are shown. Written by the endpoint."""
        return self.root / "certificate.pem"

    @property
    def drained(self) -> Path:
        """There while readiness shall say 503. Written by the endpoint, removed when it is stopped."""
        return self.root / "drained"

    @property
    def log(self) -> Path:
        """What the endpoint prints."""
        return self.root / "log.txt"

    @property
    def requests(self) -> Path:
        """Segments of the request log, written by the endpoint; tables of closed ones, written by the backend."""
        return self.root / "requests"

    @property
    def personal_key(self) -> Path:
        """``personal.key``, mode 0600: pseudonyms are made with it. Written by the first who needs it."""
        return self.root / "personal.key"

    @property
    def labels(self) -> Path:
        """What turned out to be true of rows that were asked for, a file a feedback. Written by whoever gives it."""
        return self.root / "labels"

    @property
    def tried(self) -> Path:
        """``tried.txt``, mode 0600: bundles that passed their trial here. Written by the endpoint."""
        return self.root / "tried.txt"

    @property
    def empty(self) -> Path:
        """An empty folder: where the endpoint runs, and where no file of a graph can be found."""
        return self.root / "empty"


def new_run_id() -> str:
    """Return a fresh id: 12 hexadecimal digits."""
    return secrets.token_hex(6)
