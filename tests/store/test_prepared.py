"""A prepared statement does what `Connection.execute` does, and fails with the same errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from muster.errors import Kind, Problem
from muster.store.database import Database
from muster.store.prepared import Prepared
from muster.store.schema import JsonDocument, UtcDateTime

TABLES = MetaData()
things = Table(
    "things",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("at", UtcDateTime),
    Column("good", Boolean, nullable=False),
    Column("document", JsonDocument, nullable=False),
)
INSERT = Prepared(insert(things), "name", "at", "good", "document")
FIRST = Prepared(select(things).order_by(things.c.id).limit(bindparam("most")))
BY_NAME = Prepared(select(things.c.good, things.c.at).where(things.c.name == bindparam("called")))
REPLACE = Prepared(
    update(things).where(things.c.name == bindparam("called")).values(good=bindparam("good"))
)
DELETE = Prepared(delete(things).where(things.c.name == bindparam("called")))
MOMENT = datetime(2026, 11, 23, 12, 0, 0, 123456, UTC)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An open database with one table."""
    opened = Database(tmp_path / "muster.db")
    TABLES.create_all(opened.engine)
    yield opened
    await opened.close()


def thing(name: str, **more: Any) -> dict[str, Any]:
    """Return the values of a row."""
    return {"name": name, "at": MOMENT, "good": True, "document": {"of": [name]}} | more


async def test_values_keep_their_types(database: Database) -> None:
    """What was inserted is read back as the same Python values, and as SQLAlchemy reads it."""

    def change(connection: Connection) -> None:
        INSERT.run(connection, thing("a"))
        INSERT.run(connection, thing("b", at=None, good=False, document=None))

    await database.write(change)
    rows = await database.read(lambda c: FIRST.rows(c, {"most": 10}))
    assert [row._asdict() for row in rows] == [
        {"id": 1, "name": "a", "at": MOMENT, "good": True, "document": {"of": ["a"]}},
        {"id": 2, "name": "b", "at": None, "good": False, "document": None},
    ]
    plain = await database.read(lambda c: c.execute(select(things).order_by(things.c.id)).all())
    assert [tuple(row) for row in plain] == [tuple(row) for row in rows]


async def test_one_row_or_none(database: Database) -> None:
    """`row` gives the first row, by the columns asked for, and None where there is none."""
    await database.write(lambda c: INSERT.run(c, thing("a")))
    found = await database.read(lambda c: BY_NAME.row(c, {"called": "a"}))
    assert (found.good, found.at) == (True, MOMENT)
    assert await database.read(lambda c: BY_NAME.row(c, {"called": "b"})) is None
    assert len(await database.read(lambda c: FIRST.rows(c, {"most": 0}))) == 0


async def test_changes_are_counted(database: Database) -> None:
    """`run` tells how many rows an update or delete met."""
    await database.write(lambda c: INSERT.run(c, thing("a")))
    values = {"called": "a", "good": False}
    assert await database.write(lambda c: REPLACE.run(c, values)) == 1
    assert await database.write(lambda c: REPLACE.run(c, values | {"called": "b"})) == 0
    assert (await database.read(lambda c: BY_NAME.row(c, {"called": "a"}))).good is False
    assert await database.write(lambda c: DELETE.run(c, {"called": "a"})) == 1
    assert await database.write(lambda c: DELETE.run(c, {"called": "a"})) == 0


async def test_a_repeated_key_is_an_integrity_error(database: Database) -> None:
    """It is SQLAlchemy's error, undone like any other, and it does not show the values."""
    await database.write(lambda c: INSERT.run(c, thing("secret")))
    with pytest.raises(IntegrityError) as caught:
        await database.write(lambda c: INSERT.run(c, thing("secret")))
    assert "secret" not in str(caught.value)
    assert len(await database.read(lambda c: FIRST.rows(c, {"most": 10}))) == 1


async def test_errors_of_the_driver_are_translated(database: Database) -> None:
    """A write where none is allowed is the Problem that `Connection.execute` leads to."""
    with pytest.raises((Problem, DBAPIError)) as prepared:
        await database.read(lambda c: INSERT.run(c, thing("a")))
    with pytest.raises((Problem, DBAPIError)) as plain:
        await database.read(lambda c: c.execute(insert(things), thing("a")).rowcount)
    assert type(prepared.value) is type(plain.value)
    assert isinstance(plain.value, Problem)
    assert plain.value.kind is Kind.UNAVAILABLE


async def test_missing_values_are_bugs(database: Database) -> None:
    """A parameter without a value and a naive moment never reach the database."""
    with pytest.raises(KeyError, match="document"):
        await database.write(lambda c: INSERT.run(c, {"name": "a", "at": None, "good": True}))
    with pytest.raises(ValueError, match="naive"):
        await database.write(lambda c: INSERT.run(c, thing("a", at=MOMENT.replace(tzinfo=None))))
