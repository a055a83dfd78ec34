"""The two SQLite engines: one that writes, one that cannot.

SQLite decides much by settings that hold for one connection only; they are all made here. The
driver is kept from opening transactions by itself, so that SQLAlchemy's `BEGIN` is the only one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from muster.errors import Kind, Problem

# How long one statement of a scan may run. Nothing a person waits for takes longer, and an
# endless one would keep the write-ahead log from being emptied.
SCAN_SECONDS = 30.0
# How often a running statement looks at the clock, in virtual-machine steps: about every 1 ms.
_STEPS = 100_000
# After a burst the write-ahead log is cut back to this many bytes: 16 times what SQLite lets it
# grow to before it copies it into the database.
_LOG_BYTES = 64 * 1024 * 1024
# Pages kept in memory, in KiB, for each connection: the upper levels of every index of a registry
# of a million devices.
_CACHE_KIB = 16 * 1024

# What SQLite says when the disk, the file or another process is at fault, and not the statement.
_OUTSIDE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def is_unavailable(error: BaseException) -> bool:
    """Whether *error* says that the database cannot be used now, rather than what is a bug."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, sqlite3.Error):
        return False
    # The lower byte is the primary result code; the rest says more about the same.
    return getattr(original, "sqlite_errorcode", 0) & 0xFF in _OUTSIDE


def writing_engine(path: Path) -> Engine:
    """Return the engine that changes the database at *path*, which is made if it is not there.

    Raises `Problem(FORBIDDEN)` when others may read the file, `Problem(UNAVAILABLE)` when it
    cannot be made.
    """
    _make_private(path)
    engine = _engine(path, 3)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # invariant 8: an answer survives power loss
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE: a writer that upgrades later can be refused in the middle of its work.
        # Straight to the driver, for every commit pays for it.
        if not _is_autocommit(connection):
            try:
                _driver(connection).execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise DBAPIError("BEGIN IMMEDIATE", None, error) from error

    return engine


def reading_engine(path: Path, pool_size: int) -> Engine:
    """Return the engine that only reads; the database must be there."""
    engine = _engine(path, pool_size)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # Deferred: takes no lock, and shows one moment of the database until it ends.
        if not _is_autocommit(connection):
            connection.exec_driver_sql("BEGIN")
            _limit(connection)

    return engine


def _limit(connection: Connection) -> None:
    end = time.monotonic() + SCAN_SECONDS
    _driver(connection).set_progress_handler(lambda: time.monotonic() > end, _STEPS)


def _driver(connection: Connection) -> sqlite3.Connection:
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # SQLAlchemy has no type for it
    return driver


def _is_autocommit(connection: Connection) -> bool:
    return connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"


def _engine(path: Path, pool_size: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")

    return engine


def _make_private(path: Path) -> None:
    try:
        # Never opened when it is there: closing it again would drop the locks that this process
        # may hold on it (POSIX advisory locks).
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise Problem(
            Kind.UNAVAILABLE, f"the database cannot be opened: {error.strerror}"
        ) from error
    if mode & 0o077:
        raise Problem(
            Kind.FORBIDDEN,
            f"others may use the database file {path.name} (mode {mode:o}): make it 600",
        )
