"""One database, many readers, one writer that commits a turn's work at once.

A transaction costs one fsync whoever is in it, so the changes of one event-loop turn, and those
that wait while another commit is under way or for the pace of commits, are committed together
(group commit). Each change still stands alone: in company it runs in a savepoint of its own, and
one that raises takes nobody down with it.

Rules:

1. `write(change)` returns only after the commit: what it returned survives `kill -9`. When it
   raises `Problem(UNAVAILABLE)` the change is not known to be stored; it may be, if the
   machine failed in the middle of the commit.
2. *change* and *query* are synchronous functions of a `Connection`; they do no I/O but SQL and
   touch nothing shared, because a change runs in the writer's thread. They neither commit nor roll
   back, and they return values, never a cursor.
3. A change may run more than once, each time from a clean slate: when the commit of its group is
   refused because of somebody's rows, each change of the group runs again alone.
4. `read(query)` runs on the calling thread, so keep it to look-ups by index; `scan(query)` is for
   what may take long: it runs in a thread and sees one moment of the database.
5. Reading connections cannot write. Every read sees what was committed before it began.
6. A disk that is full or failing stops the writes and not the reads. Nothing is retried behind
   the caller's back, and the next write finds out by itself whether the disk is well again.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, CursorResult, Engine, Result
from sqlalchemy.exc import DBAPIError

from muster.errors import Kind, Problem
from muster.store.sqlite import is_unavailable, reading_engine, writing_engine

T = TypeVar("T")

_logger = structlog.get_logger(__name__)

# One commit gathers at most this many changes: enough to hide the fsync (0.1-1 ms against about
# 50 us a change), few enough that the first of them does not wait longer than some 20 ms.
_GROUP = 256
# While changes come in company, commits begin at most this often: each costs some 100 us of CPU
# whoever is in it, so with few in it commits cost more than changes. Whoever writes alone never
# waits for this.
_PACE_SECONDS = 0.004
# Changes that may wait for the writer. At 10,000 a second that is one second; a caller is better
# told to come back than kept longer.
_WAITING = 10_000
# Long reads at a time, and those that may wait for a thread: each holds a snapshot, and while one
# is held the write-ahead log cannot be emptied.
_SCANNERS = 2
_SCANS_WAITING = 64
# Where `announce` leaves its names until the commit, in `Connection.info`.
_ANNOUNCED = "muster.announced"


class _Change:
    """A change on its way: what to run, who waits, and how it went."""

    __slots__ = ("error", "future", "loop", "result", "run")

    def __init__(
        self,
        run: Callable[[Connection], Any],
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
    ) -> None:
        self.run = run
        self.loop = loop
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


def announce(connection: Connection, name: str) -> None:
    """Have the callbacks of `Database.on_commit(name)` called once this transaction is committed.

    Belongs in a change. When the change fails after this call, they may be called all the same.
    """
    connection.info.setdefault(_ANNOUNCED, set()).add(name)


class Database:
    """A SQLite database in WAL mode with full durability, used from one event loop.

    Raises `Problem(UNAVAILABLE)` when the file cannot be opened, `Problem(FORBIDDEN)` when it may
    be read by other users: it holds keys.
    """

    def __init__(self, path: Path) -> None:
        self._engine = writing_engine(path)
        self._readers = reading_engine(path, pool_size=_SCANNERS + 1)
        try:
            # Opened here, so that a database that cannot be opened is refused at once; kept,
            # because a checkout from the pool costs more than a look-up.
            self._connection = self._engine.connect()
            self._reader = self._readers.connect().execution_options(isolation_level="AUTOCOMMIT")
        except DBAPIError as error:
            raise _translated(error) from error
        self._scanners = ThreadPoolExecutor(_SCANNERS, thread_name_prefix="muster-scan")
        self._scans = 0
        self._gathered: list[_Change] = []
        self._waiting = 0
        self._queue: queue.SimpleQueue[list[_Change] | None] = queue.SimpleQueue()
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._closing: asyncio.Future[None] | None = None
        self._writer = threading.Thread(
            target=self._write_forever, name="muster-writer", daemon=True
        )
        self._writer.start()

    @property
    def engine(self) -> Engine:
        """The engine itself, for migrations and tests."""
        return self._engine

    def on_commit(self, name: str, callback: Callable[[], None]) -> None:
        """Call *callback* on the event loop, once for each commit that `announce`d *name*."""
        self._listeners.setdefault(name, []).append(callback)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what *query* finds, now and on this thread: index look-ups only.

        Raises `Problem(UNAVAILABLE)` when the database cannot be read.
        """
        self._refuse_when_closed()
        return _run_query(self._reader, query)

    async def scan(self, query: Callable[[Connection], T]) -> T:
        """Return what *query* finds at one moment, from a thread: for what walks many rows.

        Raises `Problem(UNAVAILABLE)` when the database cannot be read or the scan takes longer
        than `sqlite.SCAN_SECONDS`, `Problem(THROTTLED)` when too many scans wait already.
        """
        self._refuse_when_closed()
        if self._scans >= _SCANS_WAITING:
            raise Problem(Kind.THROTTLED, "too many long reads wait already", retry_after=1)

        def run() -> T:
            with self._readers.connect() as connection:
                return _run_query(connection, query)

        self._scans += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._scanners, run)
        finally:
            self._scans -= 1

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run *change* and return what it returned once that is committed.

        Raises what *change* raised, with its work undone; `Problem(THROTTLED)` when too many
        changes wait already, `Problem(UNAVAILABLE)` when the database cannot be written.
        Cancelling the caller does not take the change back.
        """
        self._refuse_when_closed()
        if self._waiting >= _WAITING:
            raise Problem(Kind.THROTTLED, "too many changes wait to be stored", retry_after=1)
        loop = asyncio.get_running_loop()
        item = _Change(change, loop, loop.create_future())
        self._waiting += 1
        self._gathered.append(item)
        # The second half is for what a loop left behind that closed before its turn ended.
        if len(self._gathered) == 1 or self._gathered[0].loop is not loop:
            loop.call_soon(self._hand_over)
        result: T = await item.future
        return result

    async def close(self) -> None:
        """Commit what waits, then close. Idempotent: every caller returns once it is closed."""
        if self._closing is None:
            self._hand_over()
            self._queue.put(None)
            self._closing = asyncio.ensure_future(asyncio.to_thread(self._stop))
        # A caller that is cancelled must not leave the others with half a close.
        await asyncio.shield(self._closing)

    def _refuse_when_closed(self) -> None:
        if self._closing is not None:
            raise Problem(Kind.UNAVAILABLE, "the database is closed")

    def _hand_over(self) -> None:
        # One list for each event-loop turn: the writer is woken once, not once for each change.
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _stop(self) -> None:
        self._writer.join()
        self._scanners.shutdown()
        self._reader.close()
        self._readers.dispose()
        # Last, because SQLite empties its write-ahead log when the last connection closes.
        self._connection.close()
        self._engine.dispose()

    def _write_forever(self) -> None:
        last = False
        next_begin = 0.0
        while not last:
            waiting, last = self._take_waiting(next_begin)
            next_begin = time.monotonic() + _PACE_SECONDS if len(waiting) > 1 else 0.0
            for start in range(0, len(waiting), _GROUP):
                group = waiting[start : start + _GROUP]
                try:
                    announced = _commit(self._connection, group)
                except BaseException as error:  # noqa: BLE001 - whoever waits must hear of our bug
                    announced = set()
                    for item in group:
                        item.result, item.error = None, error
                self._report(group, announced)

    def _take_waiting(self, not_before: float) -> tuple[list[_Change], bool]:
        turn = self._queue.get()
        if turn is not None and (wait := not_before - time.monotonic()) > 0:
            time.sleep(wait)
        waiting: list[_Change] = []
        while turn is not None:
            waiting += turn
            try:
                turn = self._queue.get_nowait()
            except queue.Empty:
                return waiting, False
        return waiting, True

    def _report(self, group: list[_Change], names: set[str]) -> None:
        # Nearly always one loop; tests and scripts may use another.
        for loop in {item.loop for item in group}:
            mine = [item for item in group if item.loop is loop]
            try:
                loop.call_soon_threadsafe(self._settle, mine, names)
            except RuntimeError:  # that loop is closed: nobody waits there any more
                self._waiting -= len(mine)

    def _settle(self, group: list[_Change], names: Iterable[str]) -> None:
        self._waiting -= len(group)
        for item in group:
            if item.future.done():  # the caller was cancelled; the change stands all the same
                continue
            if item.error is None:
                item.future.set_result(item.result)
            else:
                item.future.set_exception(_translated(item.error))
        for name in names:
            for callback in self._listeners.get(name, ()):
                try:
                    callback()
                except Exception:
                    _logger.exception("commit callback failed", announced=name)


def _run_query(connection: Connection, query: Callable[[Connection], T]) -> T:
    try:
        found = query(connection)
    except DBAPIError as error:
        raise _translated(error) from error
    _refuse_cursor(found)
    return found


def _commit(connection: Connection, group: list[_Change]) -> set[str]:
    """Commit *group* and return what it announced; each change learns its own outcome."""
    announced: set[str] = connection.info.setdefault(_ANNOUNCED, set())
    announced.clear()
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # SQLAlchemy has no type for it
    try:
        with connection.begin() as transaction:
            for item in group:
                if len(group) == 1:
                    item.result = item.run(connection)
                    _refuse_cursor(item.result)
                else:
                    _run_in_savepoint(connection, driver, item)
                if not transaction.is_active:
                    raise RuntimeError("a change committed or rolled back by itself")  # noqa: TRY301 - undoes the group
    except BaseException as error:  # noqa: BLE001 - it is handed to those who asked for the changes
        # A COMMIT that SQLite refuses leaves its transaction open, which SQLAlchemy does not see.
        with contextlib.suppress(sqlite3.Error):
            driver.rollback()
        if len(group) == 1 or is_unavailable(error):
            for item in group:
                item.result, item.error = None, error
            return set()
        # Somebody's rows: each alone, and only the guilty one fails.
        names = set()
        for item in group:
            item.result = item.error = None
            names |= _commit(connection, [item])
        return names
    return set(announced)


def _run_in_savepoint(connection: Connection, driver: sqlite3.Connection, item: _Change) -> None:
    # Straight to the driver: SQLAlchemy's own savepoint costs as much as an insert.
    driver.execute("SAVEPOINT muster_change")
    try:
        item.result = item.run(connection)
        _refuse_cursor(item.result)
    except BaseException as error:
        if not driver.in_transaction:
            raise  # SQLite undid the whole transaction (disk full, I/O error): the group failed
        driver.execute("ROLLBACK TO muster_change")
        item.result, item.error = None, error
    driver.execute("RELEASE muster_change")


def _refuse_cursor(result: object) -> None:
    # An open cursor would keep its connection at an old moment of the database.
    if isinstance(result, Result | CursorResult):
        raise TypeError("a query or change returns values, not a cursor")


def _translated(error: BaseException) -> BaseException:
    """Return the `Problem` that *error* is for the caller; what is a bug stays what it is."""
    if is_unavailable(error):
        problem = Problem(Kind.UNAVAILABLE, "the database is not available", retry_after=5)
        problem.__cause__ = error
        return problem
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    # A future takes neither a StopIteration nor an order to stop that was meant for the writer.
    bug = RuntimeError("a change ended in a way that no caller expects")
    bug.__cause__ = error
    return bug
