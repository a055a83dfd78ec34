"""Statements of the hot paths, compiled once and run by the driver itself.

SQLAlchemy takes ten times as long to run an insert as SQLite does to carry it out. A `Prepared` is
written like any other statement and compiled by SQLAlchemy, types included; what it leaves out is
the look at the statement, the cursor result and the events of each execution.

Rules:

1. Only for `Database.read` and `Database.write`, whose connections are in the state they ought to
   be in: it opens no transaction, so several in one `scan` would not see one moment.
2. It fails with the same errors as `Connection.execute`, without the parameters: those are
   nobody's to read.
3. One statement has one list of parameters, all by name; lists that expand are not supported.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Select, Update
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

_Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Compiled:
    sql: str
    parameters: tuple[tuple[str, _Convert | None], ...]
    # What the compiler put in by itself: the OFFSET 0 of a limit.
    constants: dict[str, Any]
    # The result's columns that are not what the driver returns, by place.
    conversions: tuple[tuple[int, _Convert], ...]
    make_row: Callable[[Iterable[Any]], Any]


class Prepared:
    """One statement. Used by one `Database` or several of the same kind.

    *columns* are the columns that an insert sets; the others have their defaults.
    """

    def __init__(self, statement: Select[Any] | Insert | Update | Delete, *columns: str) -> None:
        # Inline: without asking the database for the key of the new row.
        self._statement = statement.inline() if isinstance(statement, Insert) else statement
        self._columns = list(columns) or None
        self._compiled: _Compiled | None = None

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Return all rows, as named tuples."""
        compiled = self._compiled or self._compile(connection.dialect)
        found = self._run(connection, compiled, values).fetchall()
        if not compiled.conversions:
            return [compiled.make_row(row) for row in found]
        rows = []
        for row in found:
            converted = list(row)
            for place, convert in compiled.conversions:
                converted[place] = convert(row[place])
            rows.append(compiled.make_row(converted))
        return rows

    def row(self, connection: Connection, values: Mapping[str, Any]) -> Any | None:
        """Return the first row, or None."""
        found = self.rows(connection, values)
        return found[0] if found else None

    def run(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Insert, update or delete; return how many rows that changed."""
        compiled = self._compiled or self._compile(connection.dialect)
        return self._run(connection, compiled, values).rowcount

    def _run(
        self, connection: Connection, compiled: _Compiled, values: Mapping[str, Any]
    ) -> sqlite3.Cursor:
        if compiled.constants:
            values = {**compiled.constants, **values}
        arguments = [
            values[name] if convert is None else convert(values[name])
            for name, convert in compiled.parameters
        ]
        driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # SQLAlchemy has no type for it
        try:
            return driver.execute(compiled.sql, arguments)
        except sqlite3.IntegrityError as error:
            raise IntegrityError(compiled.sql, None, error) from error
        except sqlite3.Error as error:
            raise DBAPIError(compiled.sql, None, error) from error

    def _compile(self, dialect: Dialect) -> _Compiled:
        # Two threads may do this at once, with the same result.
        compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
        assert isinstance(compiled, SQLCompiler)
        assert compiled.positiontup is not None  # SQLite's driver takes parameters by place
        binds = [(name, compiled.binds[name]) for name in compiled.positiontup]
        self._compiled = _Compiled(
            str(compiled),
            tuple((name, _typed(one.type, dialect).bind_processor(dialect)) for name, one in binds),
            {name: one.value for name, one in binds if not one.required},
            *_result(self._statement, dialect),
        )
        return self._compiled


def _result(
    statement: Select[Any] | Insert | Update | Delete, dialect: Dialect
) -> tuple[tuple[tuple[int, _Convert], ...], Callable[[Iterable[Any]], Any]]:
    columns = list(statement.selected_columns) if isinstance(statement, Select) else []
    processors = [_typed(one.type, dialect).result_processor(dialect, None) for one in columns]
    conversions = tuple(
        (place, convert) for place, convert in enumerate(processors) if convert is not None
    )
    keys = [str(one.key) for one in columns]
    row = namedtuple("_Row", keys)  # type: ignore[misc]  # noqa: PYI024 - its fields are not known before
    return conversions, row._make


def _typed(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    return type_.dialect_impl(dialect)
