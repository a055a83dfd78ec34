"""One database, many readers, one writer that commits a turn's work at once.

A transaction costs one fsync whoever is in it, so changes that wait while another commit is
under way are committed together (group commit). Each change still stands alone: it runs in
a savepoint of its own, and one that raises takes nobody down with it.

Rules:

1. `write(change)` returns only after the commit: what it returned survives `kill -9`.
2. *change* and *query* are synchronous functions of a `Connection`; they do no I/O but SQL and
   touch nothing shared, because a change runs in the writer's thread.
3. A change may run more than once if the commit of its group fails as a whole: it then runs alone.
4. `read(query)` runs on the calling thread for SQLite, so keep it to look-ups by index;
   `scan(query)` is for what may take long, and runs in a thread.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from muster.errors import Kind, Problem

T = TypeVar("T")

# One commit gathers at most this many changes: enough to hide the fsync (0.1-1 ms against about
# 50 us a change), few enough that the first of them does not wait longer than some 20 ms.
_GROUP = 256
# Changes that may wait for the writer. At 5,000 a second that is two seconds; a caller is better
# told to come back than kept longer.
_WAITING = 10_000


@dataclass(slots=True)
class _Change:
    run: Callable[[Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Database:
    """A SQLite database in WAL mode with full durability."""

    def __init__(self, path: Path) -> None:
        self._engine = _sqlite_engine(path)
        # Kept open for the look-ups that run on the event loop: a checkout from the pool
        # would cost more than the look-up.
        self._reader = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._scanners = ThreadPoolExecutor(max_workers=2, thread_name_prefix="muster-scan")
        self._queue: queue.Queue[_Change | None] = queue.Queue(maxsize=_WAITING)
        self._writer = threading.Thread(
            target=self._write_forever, name="muster-writer", daemon=True
        )
        self._writer.start()
        self._closed = False

    @property
    def engine(self) -> Engine:
        """The engine itself, for migrations and tests."""
        return self._engine

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what *query* finds, now and on this thread: index look-ups only."""
        return query(self._reader)

    async def scan(self, query: Callable[[Connection], T]) -> T:
        """Return what *query* finds, from a thread: for what walks many rows."""

        def run() -> T:
            with self._engine.connect() as connection:
                return query(connection)

        return await asyncio.get_running_loop().run_in_executor(self._scanners, run)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run *change* and return what it returned once that is committed.

        Raises what *change* raised, with its work undone; `Problem(THROTTLED)` when too many
        changes wait already, `Problem(UNAVAILABLE)` when the database cannot be written.
        """
        if self._closed:
            raise Problem(Kind.UNAVAILABLE, "the database is closed")
        loop = asyncio.get_running_loop()
        item = _Change(change, loop, loop.create_future())
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            raise Problem(
                Kind.THROTTLED, "too many changes wait to be stored", retry_after=1
            ) from None
        result: T = await item.future
        return result

    async def close(self) -> None:
        """Commit what waits, then close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._queue.put(None)
        self._writer.join()
        self._scanners.shutdown()
        self._reader.close()
        self._engine.dispose()

    def _write_forever(self) -> None:
        with self._engine.connect() as connection:
            while True:
                group, last = self._take_group()
                if group:
                    _commit(connection, group)
                if last:
                    return

    def _take_group(self) -> tuple[list[_Change], bool]:
        group: list[_Change] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) == _GROUP:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True


def _commit(connection: Connection, group: list[_Change]) -> None:
    try:
        with connection.begin():
            for item in group:
                _run_in_savepoint(connection, item)
    except Exception as error:  # noqa: BLE001 - it is handed to the one who asked for the change
        if len(group) > 1:
            for item in group:
                item.result = item.error = None
                _commit(connection, [item])
            return
        group[0].error = error
    for item in group:
        item.loop.call_soon_threadsafe(_settle, item)


def _run_in_savepoint(connection: Connection, item: _Change) -> None:
    savepoint = connection.begin_nested()
    try:
        item.result = item.run(connection)
    except Exception as error:  # noqa: BLE001 - as above
        # Everything but a broken connection is the caller's to hear; the group goes on.
        savepoint.rollback()
        item.error = error
    else:
        savepoint.commit()


def _settle(item: _Change) -> None:
    if item.future.done():  # the caller was cancelled; the change is committed all the same
        return
    if item.error is None:
        item.future.set_result(item.result)
    elif isinstance(item.error, OperationalError):
        problem = Problem(Kind.UNAVAILABLE, "the database cannot be written", retry_after=5)
        problem.__cause__ = item.error
        item.future.set_exception(problem)
    else:
        item.future.set_exception(item.error)


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=4,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not open transactions by itself: SQLAlchemy's BEGIN below does.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # invariant 8: an answer survives power loss
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA busy_timeout=5000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE: a writer that upgrades later can be refused in the middle of its work.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
