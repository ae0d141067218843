"""``state.db``: made, migrated, kept."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event

from lepton_jupyter.backend import tables
from lepton_jupyter.backend.store import EndpointRow, ReleaseRow, Store
from lepton_jupyter.backend.tables import is_network_file_system, metadata
from lepton_jupyter.core.errors import LeptonError
from lepton_jupyter.core.paths import Home
from lepton_jupyter.formats.views import RunView, VersionView


def version(run_id: str, created_at: float = 1.0) -> VersionView:
    return VersionView(
        model="Net",
        run_id=run_id,
        number=None,
        bundle="/b",
        manifest_hash="h",
        is_deployable=True,
        created_at=created_at,
    )


def test_the_migrations_make_the_tables_that_the_code_knows(home: Home) -> None:
    store = Store(home)
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.close()


def test_a_file_of_a_newer_version_is_refused_and_stays(home: Home) -> None:
    Store(home).close()
    _execute(home, "update alembic_version set version_num = '9999'")
    with pytest.raises(LeptonError, match="newer lepton_jupyter"):
        Store(home)
    assert not list(home.root.glob("state.db.before-*"))


def test_an_older_file_is_copied_before_it_is_migrated(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(Path(tables.__file__).with_name("migrations"), folder)
    Store(home).close()
    _execute(home, "insert into aliases values (1, 'Net', 'champion', 'aaaa', 1.0, '', 0)")
    (folder / "versions" / "r0099_more.py").write_text(
        "from alembic import op\nrevision = '0099'\ndown_revision = '0005'\n"
        "def upgrade():\n    op.execute('create table more (x)')\n    op.execute('delete from aliases')\n"
    )
    monkeypatch.setattr(tables, "MIGRATIONS", folder)
    Store(home).close()
    assert _execute(home, "select count(*) from more") == [(0,)]
    kept = sqlite3.connect(home.state_db.with_name("state.db.before-0099"))
    assert kept.execute("select count(*) from aliases").fetchall() == [(1,)]
    kept.close()


def _execute(home: Home, statement: str) -> list[tuple]:
    database = sqlite3.connect(home.state_db)
    try:
        found = database.execute(statement).fetchall()
        database.commit()
        return found
    finally:
        database.close()


def test_a_network_file_system_is_recognised() -> None:
    mounts = ["/dev/sda / ext4 rw 0 0", "server:/home /home nfs4 rw 0 0", "tmpfs /home/x/local tmpfs rw 0 0"]
    assert is_network_file_system(Path("/home/x/lepton"), mounts)
    assert not is_network_file_system(Path("/home/x/local/lepton"), mounts)
    assert not is_network_file_system(Path("/srv/lepton"), mounts)


def test_aliases_are_a_journal(home: Home) -> None:
    store = Store(home)
    for run_id, at in (("aaaa", 1.0), ("bbbb", 2.0)):
        store.add_version(version(run_id, at))
    store.move_alias("Net", "champion", "aaaa")
    store.move_alias("Net", "champion", "bbbb")
    store.move_alias("Net", "previous", "aaaa")
    assert [view.aliases for view in store.versions("Net")] == [("champion",), ("previous",)]
    assert [move.run_id for move in store.unrecorded_moves()] == ["aaaa", "bbbb", "aaaa"]
    store.move_alias("Net", "previous", None)
    assert store.aliases("Net") == {("Net", "champion"): "bbbb"}
    store.close()


def test_an_endpoint_and_its_release_are_one_transaction(home: Home) -> None:
    store = Store(home)
    row = EndpointRow(name="e", created_at=1.0, is_wanted=True, model="Net", run_id="aaaa", port=1, release=1)
    store.save_endpoint(row, ReleaseRow(endpoint="e", at=1.0, action="deploy", run_id="aaaa"))
    store.save_process("e", "{}")
    store.save_endpoint(row)
    found = store.endpoint("e")
    assert found is not None and found.process == "{}"
    assert [release.action for release in store.releases("e")] == ["deploy"]
    store.close()


def test_endpoints_are_read_from_the_file_only_where_something_was_written(home: Home) -> None:
    store = Store(home)
    row = EndpointRow(name="e", created_at=1.0, is_wanted=True, model="Net", run_id="aaaa", port=1, release=1)
    store.save_endpoint(row)
    assert [each.port for each in store.endpoints()] == [1]
    asked: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda _, __, statement, *___: asked.append(statement))
    assert store.endpoint("e") is not None
    assert (store.endpoint("f"), len(store.endpoints()), asked) == (None, 1, [])
    store.save_endpoint(msgspec.structs.replace(row, port=2))
    store.save_process("e", "{}")
    found = store.endpoint("e")
    assert found is not None
    assert (found.port, found.process) == (2, "{}")
    store.drop_endpoint("e")
    assert store.endpoints() == []
    store.close()


def test_what_mlflow_has_not_heard_of_is_known_by_one_question(home: Home) -> None:
    store = Store(home)
    assert not store.has_unrecorded()
    run = RunView(run_id="r", kind="train", title="t", state="queued", created_at=1.0)
    store.add_run(run)
    assert not store.has_unrecorded()  # nothing to say about it yet
    store.save_run(msgspec.structs.replace(run, state="running"))
    assert store.has_unrecorded()
    store.save_recorded("r", is_recorded=True)
    assert not store.has_unrecorded()
    store.move_alias("Net", "champion", "r")
    assert store.has_unrecorded()
    store.mark_move_recorded(store.unrecorded_moves()[0].id)
    store.add_version(version("r"))
    assert not store.has_unrecorded()
    store.mark_version_deleted("r")
    assert store.has_unrecorded()
    store.close()
