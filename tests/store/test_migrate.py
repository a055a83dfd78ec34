"""The history leads to the tables, whatever state a database is in, and never half-way."""

from __future__ import annotations

import ast
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Integer, MetaData, String, Table, inspect

import muster.store.migrate as migrate_module
from muster.errors import Kind, Problem
from muster.store.migrate import all_tables, differences, main, upgrade, write_revision
from muster.store.schema import JsonDocument, UtcDateTime
from muster.store.sqlite import writing_engine

HISTORY = Path(migrate_module.__file__).parent / "migrations"
VERSIONS = sorted((HISTORY / "versions").glob("*.py"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine on an empty database."""
    made = writing_engine(tmp_path / "muster.db")
    yield made
    made.dispose()


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """An empty history of its own, with this program's environment."""
    copy = tmp_path / "100% history"
    shutil.copytree(HISTORY, copy, ignore=shutil.ignore_patterns("versions", "__pycache__"))
    (copy / "versions").mkdir()
    return copy


def first_tables() -> MetaData:
    """Return two tables with every column type of ours."""
    tables = MetaData()
    Table(
        "owner",
        tables,
        Column("id", Integer, primary_key=True),
        Column("name", String, nullable=False, index=True),
        Column("at", UtcDateTime, nullable=False),
        Column("document", JsonDocument, nullable=False),
    )
    Table("pet", tables, Column("owner_id", ForeignKey("owner.id", ondelete="CASCADE")))
    return tables


def test_a_generated_history_leads_to_all_tables(engine: Engine, history: Path) -> None:
    """What the command writes for today's tables makes exactly these tables."""
    path = write_revision("first tables", history=history)
    upgrade(engine, history=history)
    with engine.connect() as connection:
        assert differences(connection, all_tables()) == []
    assert path.name == "0001_first_tables.py"


def test_the_history_leads_to_all_tables(engine: Engine) -> None:
    """A table that was changed without a migration fails here: run the module's command."""
    upgrade(engine)
    with engine.connect() as connection:
        assert differences(connection, all_tables()) == []


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_history_depends_on_nothing_of_today(path: Path) -> None:
    """A migration imports no module of ours: its tables may be gone tomorrow."""
    names = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        if name
    }
    assert not {name for name in names if name.split(".")[0] == "muster"}


def test_own_types_are_written_as_sql_types(history: Path) -> None:
    """A generated file says BigInteger and LargeBinary, and never imports our types."""
    text = write_revision("first", tables=first_tables(), history=history).read_text()
    assert "sa.BigInteger()" in text
    assert "sa.LargeBinary()" in text
    assert "muster" not in text


def test_a_second_step_keeps_rows(engine: Engine, history: Path) -> None:
    """A later change is a step of its own; rows, and rows that refer to them, stay."""
    write_revision("first", tables=first_tables(), history=history)
    upgrade(engine, history=history)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO owner VALUES (1, 'a', 5, x'7b7d')")
        connection.exec_driver_sql("INSERT INTO pet VALUES (1)")
    later = first_tables()
    later.tables["owner"].append_column(Column("colour", String))
    later.tables["owner"].c.name.nullable = True  # SQLite must make the table anew for this
    path = write_revision("colour", tables=later, history=history)
    assert path.name.startswith("0002_")
    upgrade(engine, history=history)
    with engine.connect() as connection:
        assert differences(connection, later) == []
        assert connection.exec_driver_sql("SELECT count(*) FROM owner").scalar() == 1
        assert connection.exec_driver_sql("SELECT count(*) FROM pet").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_upgrading_twice_changes_nothing(engine: Engine, history: Path) -> None:
    """A later start finds nothing to do."""
    write_revision("first", tables=first_tables(), history=history)
    upgrade(engine, history=history)
    upgrade(engine, history=history)
    with engine.connect() as connection:
        assert differences(connection, first_tables()) == []


def test_nothing_to_change_is_said(history: Path) -> None:
    """No empty step is written."""
    write_revision("first", tables=first_tables(), history=history)
    with pytest.raises(Problem) as caught:
        write_revision("second", tables=first_tables(), history=history)
    assert caught.value.kind is Kind.CONFLICT
    assert len(list((history / "versions").glob("*.py"))) == 1


def test_a_newer_database_is_refused(engine: Engine, history: Path) -> None:
    """A program that is older than the database leaves it alone and says what to do."""
    write_revision("first", tables=first_tables(), history=history)
    upgrade(engine, history=history)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Problem, match="newer version") as caught:
        upgrade(engine, history=history)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_a_foreign_database_is_refused(engine: Engine, history: Path) -> None:
    """Tables without a history are somebody else's: nothing is added to them."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (id INTEGER)")
    with pytest.raises(Problem) as caught:
        upgrade(engine, history=history)
    assert caught.value.kind is Kind.UNSUPPORTED
    assert inspect(engine).get_table_names() == ["theirs"]


def test_a_failing_step_leaves_nothing(engine: Engine, history: Path) -> None:
    """Half an upgrade is no upgrade: all steps are undone together."""
    path = write_revision("first", tables=first_tables(), history=history)
    path.write_text(path.read_text() + "    raise RuntimeError('broken step')\n")
    with pytest.raises(RuntimeError, match="broken step"):
        upgrade(engine, history=history)
    assert inspect(engine).get_table_names() == []


def test_a_locked_database_is_unavailable(engine: Engine, history: Path, tmp_path: Path) -> None:
    """Somebody who holds the file for long makes the upgrade fail, clearly."""
    write_revision("first", tables=first_tables(), history=history)
    with engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA busy_timeout=1")  # type: ignore[union-attr]  # the one connection of the pool
    holder = sqlite3.connect(tmp_path / "muster.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(Problem) as caught:
            upgrade(engine, history=history)
    finally:
        holder.close()
    assert caught.value.kind is Kind.UNAVAILABLE


def test_the_command_writes_a_file(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`revision` prints the file it wrote; when nothing is missing it says so and fails."""
    assert main(["revision", "first tables", "--history", str(history)]) == 0
    assert Path(capsys.readouterr().out.strip()).exists()
    assert main(["revision", "again", "--history", str(history)]) == 1
    assert "already leads" in capsys.readouterr().err
