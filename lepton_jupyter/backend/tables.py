"""The tables of ``state.db`` and how the file is opened: what is going on, never what was learned."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)

from lepton_jupyter.core.errors import LeptonError

BUSY_TIMEOUT_S = 20.0
MIGRATIONS = Path(__file__).with_name("migrations")
NETWORK_FILE_SYSTEMS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "fuse.",
)

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("submitted_at", Float, nullable=False),
    Column("kind", String, nullable=False, index=True),
    Column("model", String, index=True),
    Column("parent", String, index=True),
    Column("state", String, nullable=False, index=True),
    Column("view", Text, nullable=False),
    Column("mlflow_run_id", String),
    Column("mlflow_offset", Integer, nullable=False, default=0),
    Column("is_recorded", Boolean, nullable=False, default=False, index=True),
    Column("is_deleted", Boolean, nullable=False, default=False),
)
versions = Table(
    "versions",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    Column("number", Integer),
    Column("created_at", Float, nullable=False),
    Column("view", Text, nullable=False),
    Column("is_deleted", Boolean, nullable=False, default=False),
)
aliases = Table(
    "aliases",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String, nullable=False, index=True),
    Column("alias", String, nullable=False),
    Column("run_id", String),
    Column("at", Float, nullable=False),
    Column("why", String, nullable=False, default=""),
    Column("is_recorded", Boolean, nullable=False, default=False),
)
endpoints = Table(
    "endpoints",
    metadata,
    Column("name", String, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("is_wanted", Boolean, nullable=False),
    Column("model", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("follows", String),
    Column("is_held", Boolean, nullable=False, default=False),
    Column("port", Integer, nullable=False),
    Column("release", Integer, nullable=False),
    Column("process", Text),
    Column("warning", Text, nullable=False, default=""),
    Column("beside", Text),
    Column("options", Text, nullable=False, default="{}", server_default="{}"),
)
releases = Table(
    "releases",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("endpoint", String, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("action", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("who", String, nullable=False, default=""),
    Column("why", String, nullable=False, default=""),
)
tokens = Table(
    "tokens",
    metadata,
    Column("endpoint", String, primary_key=True),
    Column("sha256", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("scopes", String, nullable=False),
    Column("made_at", Float, nullable=False),
    Column("ends_at", Float),
    Column("who", String, nullable=False, default=""),
)
schedules = Table(
    "schedules",
    metadata,
    Column("name", String, primary_key=True),
    Column("generation", String, nullable=False),
    Column("record", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("anchor_at", Float, nullable=False),
    Column("next_due_at", Float, index=True),
    Column("n_fired", Integer, nullable=False, default=0),
    Column("n_missed", Integer, nullable=False, default=0),
)
firings = Table(
    "firings",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("schedule", String, nullable=False, index=True),
    Column("due_at", Float, nullable=False),
    Column("at", Float, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("run_id", String, index=True),
    Column("attempt", Integer, nullable=False, default=0),
    Column("retry_at", Float),
    Column("n_missed", Integer, nullable=False, default=0),
    Column("why", Text, nullable=False, default=""),
    Column("is_closed", Boolean, nullable=False, default=False),
    UniqueConstraint("schedule", "due_at", name="one_firing_a_due_time"),
    Index("open_firings", "is_closed", "schedule"),
)
checks = Table(
    "checks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String, nullable=False, index=True),
    Column("schedule", String, index=True),
    Column("subject", String, nullable=False, default=""),
    Column("name", String, nullable=False),
    Column("value", Float),
    Column("at", Float, nullable=False),
)
alerts = Table(
    "alerts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("schedule", String, nullable=False, index=True),
    Column("subject", String, nullable=False, default=""),
    Column("rule", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("since", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("n_met", Integer, nullable=False, default=0),
    Column("value", Float),
    Column("run_id", String),
    Column("text", Text, nullable=False, default=""),
    Column("acked_by", String, nullable=False, default=""),
    Column("acked_why", String, nullable=False, default=""),
    Column("silenced_until", Float),
    Column("silenced_by", String, nullable=False, default=""),
    Column("silenced_why", String, nullable=False, default=""),
)
alert_changes = Table(
    "alert_changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("alert_id", Integer, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("what", String, nullable=False),
    Column("value", Float),
    Column("run_id", String),
    Column("who", String, nullable=False, default=""),
    Column("why", String, nullable=False, default=""),
)
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("alert_id", Integer, index=True),
    Column("run_id", String),
    Column("schedule", String, nullable=False, index=True),
    Column("generation", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("title", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("picture", String),
    Column("state", String, nullable=False, index=True),
    Column("created_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Float),
    Column("delivered_at", Float),
    Column("last_error", Text, nullable=False, default=""),
)


def is_network_file_system(path: Path, mounts: Iterable[str] | None = None) -> bool:
    """Whether a path lies on a network file system, where SQLite's WAL is not safe.

    Parameters
    ----------
    path : Path
        Absolute.
    mounts : iterable of str, optional
        Lines of ``/proc/mounts``; the system's where it is None.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text().splitlines()
        except OSError:
            return False
    best, kind = -1, ""
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind.startswith(NETWORK_FILE_SYSTEMS)


def open_database(path: Path) -> Engine:
    """Open ``state.db``, made or brought to this version's tables; the old file is kept beside it as ``.before-REV``.

    Raises
    ------
    LeptonError
        If the file comes from a newer version; it stays as it is.
    sqlalchemy.exc.SQLAlchemyError
        If the file is not a database.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
    journal = "DELETE" if is_network_file_system(path.resolve()) else "WAL"

    def set_pragmas(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(engine, "connect", set_pragmas)
    _migrate(engine, path)
    path.chmod(0o600)
    return engine


def _migrate(engine: Engine, path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == head:
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise LeptonError(
            f"'{path}' was written by a newer lepton_jupyter (its tables are '{current}', ours '{head}').",
            "Bring this environment to that version: pip install -U lepton_jupyter",
            code="unavailable",
        )
    if current is not None:
        _back_up(path, path.with_name(f"{path.name}.before-{head}"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _back_up(path: Path, copy: Path) -> None:
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()
    copy.chmod(0o600)
