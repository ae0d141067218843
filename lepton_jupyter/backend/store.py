"""What is going on, in ``state.db``: runs, versions as rows of intent, alias moves, endpoints and their releases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Table, and_, delete, func, insert, or_, select, update

from lepton_jupyter.backend.tables import aliases, endpoints, open_database, releases, runs, tokens, versions
from lepton_jupyter.core.paths import Home
from lepton_jupyter.core.states import ENDED
from lepton_jupyter.formats.views import RunView, VersionView


class RecordedRun(Struct, kw_only=True):
    """How far a run is written to MLflow."""

    run_id: str
    state: str
    mlflow_run_id: str | None
    mlflow_offset: int
    is_deleted: bool


class AliasMove(Struct, kw_only=True):
    """One line of the alias journal; `run_id` None: the alias was taken away."""

    id: int
    model: str
    alias: str
    run_id: str | None
    at: float
    why: str
    is_recorded: bool


class EndpointRow(Struct, kw_only=True, frozen=True):
    """What an endpoint shall be.

    Attributes
    ----------
    process : str or None
        The process that was last started for it, as JSON.
    beside : str or None
        The canary or shadow beside its live version, as JSON.
    options : str
        How it serves, as JSON.
    """

    name: str
    created_at: float
    is_wanted: bool
    model: str
    run_id: str
    port: int
    release: int
    follows: str | None = None
    is_held: bool = False
    process: str | None = None
    warning: str = ""
    beside: str | None = None
    options: str = "{}"


class ReleaseRow(Struct, kw_only=True):
    """One change of what an endpoint serves."""

    endpoint: str
    at: float
    action: str
    run_id: str
    who: str = ""
    why: str = ""


class TokenRow(Struct, kw_only=True, frozen=True):
    """One token that an endpoint lets in beside its owner's.

    Attributes
    ----------
    scopes : str
        With blanks between them.
    ends_at : float or None
        None: until it is revoked.
    """

    endpoint: str
    sha256: str
    name: str
    scopes: str
    made_at: float
    ends_at: float | None = None
    who: str = ""


class Store:
    """The one writer of ``state.db``. Its methods may be called from any thread."""

    def __init__(self, home: Home) -> None:
        self.engine = open_database(home.state_db)
        self._endpoints: tuple[int, list[EndpointRow]] = (-1, [])  # as of which change; read twice a second
        self._n_endpoint_changes = 0

    def close(self) -> None:
        """Close the file."""
        self.engine.dispose()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            yield connection

    def _rows(self, statement: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(statement).mappings())

    # -- runs

    def add_run(self, view: RunView) -> None:
        """Record a run that was submitted."""
        with self._write() as connection:
            connection.execute(
                insert(runs).values(
                    run_id=view.run_id, submitted_at=time.time(), kind=view.kind, model=view.model, parent=view.parent,
                    state=view.state, view=_dump(view), mlflow_offset=0, is_recorded=False, is_deleted=False,
                )
            )  # fmt: skip

    def save_run(self, view: RunView) -> None:
        """Record how a run stands."""
        with self._write() as connection:
            connection.execute(
                update(runs).where(runs.c.run_id == view.run_id).values(state=view.state, view=_dump(view))
            )

    def run(self, run_id: str) -> RunView | None:
        """Return one run, or None."""
        found = self._rows(select(runs.c.view).where(runs.c.run_id == run_id, ~runs.c.is_deleted))
        return _load_run(found[0]["view"]) if found else None

    def runs(self, kind: str | None = None, limit: int = 50) -> list[RunView]:
        """Return runs, newest first."""
        statement = select(runs.c.view).where(~runs.c.is_deleted).order_by(runs.c.submitted_at.desc()).limit(limit)
        if kind is not None:
            statement = statement.where(runs.c.kind == kind)
        return [_load_run(row["view"]) for row in self._rows(statement)]

    def active_runs(self) -> list[RunView]:
        """Return the runs that have not ended, in the order of their submission."""
        statement = select(runs.c.view).where(runs.c.state.not_in(ENDED)).order_by(runs.c.submitted_at)
        return [_load_run(row["view"]) for row in self._rows(statement)]

    def run_ids(self, prefix: str) -> list[str]:
        """Return the ids that begin with a prefix, newest first."""
        statement = select(runs.c.run_id).where(runs.c.run_id.startswith(prefix, autoescape=True), ~runs.c.is_deleted)
        return [row["run_id"] for row in self._rows(statement.order_by(runs.c.submitted_at.desc()))]

    def newest_run_of(self, model: str) -> str | None:
        """Return the id of the newest run that makes a version of a model."""
        statement = (
            select(runs.c.run_id)
            .where(runs.c.model == model, ~runs.c.is_deleted, runs.c.kind.in_(("train", "tune", "cell", "save")))
            .order_by(runs.c.submitted_at.desc())
            .limit(1)
        )
        found = self._rows(statement)
        return found[0]["run_id"] if found else None

    def run_models(self) -> list[str]:
        """Return the names of the models for which there are runs."""
        statement = select(runs.c.model).where(runs.c.model.is_not(None), ~runs.c.is_deleted).distinct()
        return sorted(row["model"] for row in self._rows(statement))

    def mark_run_deleted(self, run_id: str) -> None:
        """Take a run out of every list; its row goes when MLflow has heard of it."""
        with self._write() as connection:
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(is_deleted=True, is_recorded=False))

    def drop_run(self, run_id: str) -> None:
        """Forget a run."""
        with self._write() as connection:
            connection.execute(delete(runs).where(runs.c.run_id == run_id))

    # -- how far MLflow is

    def has_unrecorded(self) -> bool:
        """Whether there is anything that MLflow has not heard of: one question, asked again and again."""
        waiting = (
            select(runs.c.run_id).where(~runs.c.is_recorded, runs.c.state != "queued"),
            select(aliases.c.id).where(~aliases.c.is_recorded),
            select(versions.c.run_id).where(versions.c.is_deleted),
        )
        found = self._rows(select(or_(*(question.exists() for question in waiting)).label("is_any")))
        return bool(found[0]["is_any"])

    def unrecorded_runs(self) -> list[RecordedRun]:
        """Return the runs of which MLflow does not have everything, oldest first."""
        statement = select(
            runs.c.run_id, runs.c.state, runs.c.mlflow_run_id, runs.c.mlflow_offset, runs.c.is_deleted
        ).where(~runs.c.is_recorded, runs.c.state != "queued")
        return [RecordedRun(**row) for row in self._rows(statement.order_by(runs.c.submitted_at))]

    def mlflow_run_id(self, run_id: str) -> str | None:
        """Return the id that MLflow gave a run."""
        found = self._rows(select(runs.c.mlflow_run_id).where(runs.c.run_id == run_id))
        return found[0]["mlflow_run_id"] if found else None

    def save_recorded(self, run_id: str, **values: Any) -> None:
        """Write ``mlflow_run_id``, ``mlflow_offset`` or ``is_recorded`` of a run."""
        with self._write() as connection:
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(**values))

    # -- versions

    def add_version(self, view: VersionView) -> None:
        """Record the intent of a version; one that is there stays as it is."""
        with self._write() as connection:
            if connection.execute(select(versions.c.run_id).where(versions.c.run_id == view.run_id)).first() is None:
                connection.execute(
                    insert(versions).values(
                        run_id=view.run_id, model=view.model, number=view.number, created_at=view.created_at,
                        view=_dump(view), is_deleted=False,
                    )
                )  # fmt: skip

    def save_version(self, view: VersionView) -> None:
        """Record how a version stands (its number goes by `save_number`)."""
        with self._write() as connection:
            connection.execute(update(versions).where(versions.c.run_id == view.run_id).values(view=_dump(view)))

    def save_number(self, run_id: str, number: int) -> None:
        """Record the registry's number of a version."""
        with self._write() as connection:
            connection.execute(update(versions).where(versions.c.run_id == run_id).values(number=number))

    def versions(self, model: str | None = None) -> list[VersionView]:
        """Return versions with their numbers and aliases, newest first."""
        statement = select(versions.c.view, versions.c.number).where(~versions.c.is_deleted)
        if model is not None:
            statement = statement.where(versions.c.model == model)
        named = self.aliases()
        found = []
        for row in self._rows(statement.order_by(versions.c.created_at.desc())):
            view = msgspec.json.decode(row["view"], type=VersionView)
            own = tuple(
                sorted(alias for (of, alias), run_id in named.items() if (of, run_id) == (view.model, view.run_id))
            )
            found.append(msgspec.structs.replace(view, number=row["number"], aliases=own))
        return found

    def version(self, run_id: str) -> VersionView | None:
        """Return the version that a run made, or None."""
        return next((view for view in self.versions() if view.run_id == run_id), None)

    def numbers(self) -> dict[str, int]:
        """Return the registry's number of every version that has one, by run id."""
        statement = select(versions.c.run_id, versions.c.number).where(versions.c.number.is_not(None))
        return {row["run_id"]: row["number"] for row in self._rows(statement)}

    def mark_version_deleted(self, run_id: str) -> None:
        """Take a version out of every list; its row goes when MLflow has heard of it."""
        with self._write() as connection:
            connection.execute(update(versions).where(versions.c.run_id == run_id).values(is_deleted=True))

    def deleted_versions(self) -> list[tuple[str, str, int | None]]:
        """Return run id, model and number of the versions that MLflow must still forget."""
        statement = select(versions.c.run_id, versions.c.model, versions.c.number).where(versions.c.is_deleted)
        return [(row["run_id"], row["model"], row["number"]) for row in self._rows(statement)]

    def drop_version(self, run_id: str) -> None:
        """Forget a version."""
        with self._write() as connection:
            connection.execute(delete(versions).where(versions.c.run_id == run_id))

    # -- aliases

    def move_alias(self, model: str, alias: str, run_id: str | None, *, why: str = "") -> None:
        """Write one move into the journal."""
        with self._write() as connection:
            connection.execute(
                insert(aliases).values(
                    model=model, alias=alias, run_id=run_id, at=time.time(), why=why, is_recorded=False
                )
            )

    def aliases(self, model: str | None = None) -> dict[tuple[str, str], str]:
        """Return the run id behind each (model, alias)."""
        newest = select(func.max(aliases.c.id)).group_by(aliases.c.model, aliases.c.alias)
        statement = select(aliases).where(aliases.c.id.in_(newest), aliases.c.run_id.is_not(None))
        if model is not None:
            statement = statement.where(aliases.c.model == model)
        return {(row["model"], row["alias"]): row["run_id"] for row in self._rows(statement)}

    def unrecorded_moves(self) -> list[AliasMove]:
        """Return the moves that MLflow has not heard of, oldest first."""
        return [
            AliasMove(**row) for row in self._rows(select(aliases).where(~aliases.c.is_recorded).order_by(aliases.c.id))
        ]

    def mark_move_recorded(self, move_id: int) -> None:
        """MLflow has heard of this move."""
        with self._write() as connection:
            connection.execute(update(aliases).where(aliases.c.id == move_id).values(is_recorded=True))

    # -- endpoints

    def save_endpoint(self, row: EndpointRow, *history: ReleaseRow) -> None:
        """Record what an endpoint shall be, and the releases that made it so, in one transaction."""
        values = msgspec.structs.asdict(row)
        with self._write() as connection:
            if connection.execute(select(endpoints.c.name).where(endpoints.c.name == row.name)).first() is None:
                connection.execute(insert(endpoints).values(**values))
            else:
                values.pop("process")  # written by `save_process` alone
                connection.execute(update(endpoints).where(endpoints.c.name == row.name).values(**values))
            for release in history:
                connection.execute(insert(releases).values(**msgspec.structs.asdict(release)))
        self._n_endpoint_changes += 1

    def save_process(self, name: str, process: str) -> None:
        """Record which process was started for an endpoint."""
        with self._write() as connection:
            connection.execute(update(endpoints).where(endpoints.c.name == name).values(process=process))
        self._n_endpoint_changes += 1

    def endpoints(self) -> list[EndpointRow]:
        """Return every endpoint, newest first; from memory where nothing was written since."""
        changes = self._n_endpoint_changes  # before the look: what is written meanwhile is read the next time
        known, rows = self._endpoints
        if known != changes:
            rows = [EndpointRow(**row) for row in self._rows(select(endpoints).order_by(endpoints.c.created_at.desc()))]
            self._endpoints = (changes, rows)
        return list(rows)

    def endpoint(self, name: str) -> EndpointRow | None:
        """Return one endpoint, or None."""
        return next((row for row in self.endpoints() if row.name == name), None)

    def releases(self, name: str) -> list[ReleaseRow]:
        """Return an endpoint's history, oldest first."""
        statement = _columns(releases, "id").where(releases.c.endpoint == name).order_by(releases.c.id)
        return [ReleaseRow(**row) for row in self._rows(statement)]

    def tokens(self, endpoint: str) -> list[TokenRow]:
        """Return the tokens that an endpoint lets in beside its owner's."""
        return [TokenRow(**row) for row in self._rows(select(tokens).where(tokens.c.endpoint == endpoint))]

    def save_tokens(self, endpoint: str, rows: list[TokenRow], *history: ReleaseRow) -> None:
        """Record all tokens of an endpoint, and what made them so, in one transaction."""
        with self._write() as connection:
            connection.execute(delete(tokens).where(tokens.c.endpoint == endpoint))
            for row in rows:
                connection.execute(insert(tokens).values(**msgspec.structs.asdict(row)))
            for line in history:
                connection.execute(insert(releases).values(**msgspec.structs.asdict(line)))
        self._n_endpoint_changes += 1

    def drop_endpoint(self, name: str) -> None:
        """Forget an endpoint, its tokens and its history."""
        with self._write() as connection:
            connection.execute(delete(tokens).where(tokens.c.endpoint == name))
            connection.execute(delete(releases).where(releases.c.endpoint == name))
            connection.execute(delete(endpoints).where(and_(endpoints.c.name == name)))
        self._n_endpoint_changes += 1


def _columns(table: Table, *without: str) -> Any:
    return select(*(column for column in table.columns if column.name not in without))


def _dump(view: Struct) -> str:
    return msgspec.json.encode(view).decode()


def _load_run(text: str) -> RunView:
    return msgspec.json.decode(text, type=RunView)
