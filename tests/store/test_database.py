"""The writer groups commits, keeps failures apart, and never tells of what is not stored."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from muster.errors import Kind, Problem
from muster.store import database as database_module
from muster.store import sqlite as engines
from muster.store.database import Database, announce

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
)
parts = Table(
    "parts",
    metadata,
    Column("id", Integer, primary_key=True),
    # Deferred, so that only the commit finds out.
    Column("thing", ForeignKey("things.id", deferrable=True, initially="DEFERRED")),
)


def add(number: int, name: str = "x") -> Callable[[Connection], int]:
    """Return a change that stores one thing and returns its number."""

    def change(connection: Connection) -> int:
        connection.execute(insert(things).values(id=number, name=name))
        return number

    return change


def count(connection: Connection) -> int:
    """Return how many things are stored."""
    return connection.execute(select(func.count()).select_from(things)).scalar_one()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An open database with two tables."""
    opened = Database(tmp_path / "muster.db")
    metadata.create_all(opened.engine)
    yield opened
    await opened.close()


@pytest.fixture
def commits(database: Database) -> list[int]:
    """A list that grows by one with each commit of the writer."""
    seen: list[int] = []
    event.listen(database.engine, "commit", lambda _connection: seen.append(1))
    return seen


async def test_changes_of_one_turn_share_a_commit(database: Database, commits: list[int]) -> None:
    """A hundred changes asked for at once cost one transaction, and each gets its own answer."""
    answers = await asyncio.gather(*(database.write(add(n)) for n in range(100)))
    assert answers == list(range(100))
    assert len(commits) == 1
    assert await database.read(count) == 100


async def test_a_group_is_bounded(database: Database, commits: list[int]) -> None:
    """More changes than one commit may gather are stored by several, in order."""
    answers = await asyncio.gather(*(database.write(add(n)) for n in range(600)))
    assert answers == list(range(600))
    assert len(commits) == 3


async def test_company_waits_for_more(
    database: Database, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a commit that several shared, those of the next moment share one as well."""
    monkeypatch.setattr(database_module, "_PACE_SECONDS", 0.5)
    await asyncio.gather(*(database.write(add(n)) for n in range(2)))
    first = asyncio.create_task(database.write(add(2)))
    await asyncio.sleep(0.01)
    assert await database.write(add(3)) == 3
    assert await first == 2
    assert len(commits) == 2


async def test_who_writes_alone_does_not_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes one after the other are committed at once."""
    monkeypatch.setattr(database_module, "_PACE_SECONDS", 30.0)
    async with asyncio.timeout(10):
        assert [await database.write(add(n)) for n in range(3)] == [0, 1, 2]


async def test_a_failing_change_takes_nobody_down(database: Database, commits: list[int]) -> None:
    """What one change raises reaches its caller alone, and its own work is undone."""

    def half(connection: Connection) -> None:
        add(1000)(connection)
        raise Problem(Kind.CONFLICT, "not today")

    results = await asyncio.gather(
        database.write(add(1)),
        database.write(half),
        database.write(add(1)),
        database.write(add(2)),
        return_exceptions=True,
    )
    assert results[0] == 1
    assert isinstance(results[1], Problem)
    assert isinstance(results[2], IntegrityError)
    assert results[3] == 2
    assert len(commits) == 1
    assert await database.read(count) == 2


async def test_a_single_failing_change_is_undone(database: Database) -> None:
    """A change without company is undone as well."""

    def half(connection: Connection) -> None:
        add(1)(connection)
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await database.write(half)
    assert await database.read(count) == 0
    assert await database.write(add(1)) == 1


async def test_a_commit_refused_for_one_stores_the_others(database: Database) -> None:
    """When the commit itself fails over one change's rows, the others are stored all the same."""

    def orphan(connection: Connection) -> None:
        connection.execute(insert(parts).values(id=1, thing=99))

    results = await asyncio.gather(
        database.write(add(1)),
        database.write(orphan),
        database.write(add(2)),
        return_exceptions=True,
    )
    assert results[0] == 1
    assert isinstance(results[1], IntegrityError)
    assert results[2] == 2
    assert await database.read(count) == 2


@pytest.mark.parametrize("company", [0, 3])
@pytest.mark.parametrize("stop", [SystemExit, asyncio.CancelledError, StopIteration])
async def test_the_writer_outlives_any_change(
    database: Database, stop: type[BaseException], company: int
) -> None:
    """A change that raises what nobody should raise fails alone; the writer goes on."""

    def run(_connection: Connection) -> None:
        raise stop

    results = await asyncio.gather(
        database.write(run),
        *(database.write(add(n)) for n in range(company)),
        return_exceptions=True,
    )
    assert isinstance(results[0], RuntimeError)
    assert results[1:] == list(range(company))
    assert await database.write(add(50)) == 50


@pytest.mark.parametrize("company", [0, 3])
async def test_a_change_that_commits_is_a_bug(database: Database, company: int) -> None:
    """A change cannot end the transaction that others share."""

    def run(connection: Connection) -> None:
        connection.commit()

    results = await asyncio.gather(
        database.write(run),
        *(database.write(add(n)) for n in range(company)),
        return_exceptions=True,
    )
    assert isinstance(results[0], Exception)
    assert not isinstance(results[0], Problem)
    assert results[1:] == list(range(company))
    assert await database.write(add(50)) == 50


async def test_cursors_are_refused(database: Database) -> None:
    """A query that returns its cursor would pin an old snapshot; it is told so."""
    for ask in (database.read, database.scan, database.write):
        with pytest.raises(TypeError):
            await ask(lambda connection: connection.execute(select(things)))


async def test_a_read_sees_the_latest_commit(database: Database) -> None:
    """The reader is never behind: what a write returned is there for the next read."""
    for number in range(20):
        await database.write(add(number))
        assert await database.read(count) == number + 1
        assert await database.scan(count) == number + 1


async def test_readers_cannot_write(database: Database) -> None:
    """A change given to `read` or `scan` by mistake changes nothing."""
    for ask in (database.read, database.scan):
        with pytest.raises((OperationalError, Problem)):
            await ask(add(1))
    assert await database.read(count) == 0


async def test_a_scan_does_not_hold_the_writer(database: Database) -> None:
    """Writes go on while a scan runs, and the scan keeps seeing the moment it began at."""
    loop = asyncio.get_running_loop()
    started, resume = asyncio.Event(), asyncio.Event()

    def slow(connection: Connection) -> tuple[int, int]:
        before = count(connection)
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(resume.wait(), loop).result(10)
        return before, count(connection)

    scan = asyncio.create_task(database.scan(slow))
    await started.wait()
    await database.write(add(1))
    resume.set()
    assert await scan == (0, 0)
    assert await database.scan(count) == 1


async def test_an_endless_scan_is_stopped(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan that takes too long is refused, and the next one works."""
    monkeypatch.setattr(engines, "SCAN_SECONDS", 0.0)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    with pytest.raises(Problem) as caught:
        await database.scan(lambda connection: connection.exec_driver_sql(endless).scalar())
    assert caught.value.kind is Kind.UNAVAILABLE
    monkeypatch.undo()
    assert await database.scan(count) == 0


async def test_too_many_scans_are_refused(database: Database) -> None:
    """Scans that would wait too long are told to come back."""
    results = await asyncio.gather(
        *(database.scan(count) for _ in range(200)), return_exceptions=True
    )
    refused = [result for result in results if result != 0]
    assert refused
    assert all(isinstance(r, Problem) and r.kind is Kind.THROTTLED for r in refused)
    assert await database.scan(count) == 0


async def test_too_many_changes_are_refused(database: Database) -> None:
    """Changes that would wait too long are refused with a time to come back, the others stored."""
    results = await asyncio.gather(
        *(database.write(lambda _connection: None) for _ in range(10_050)), return_exceptions=True
    )
    refused = [result for result in results if result is not None]
    assert len(refused) == 50
    assert all(isinstance(r, Problem) and r.kind is Kind.THROTTLED for r in refused)
    assert all(r.retry_after for r in refused if isinstance(r, Problem))
    await database.write(add(1))


async def test_a_cancelled_caller_does_not_stop_the_writer(database: Database) -> None:
    """The change of a caller that went away is stored, and nobody else notices."""
    task = asyncio.create_task(database.write(add(1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.write(add(2)) == 2
    assert await database.read(count) == 2


async def test_a_full_database_is_never_a_success(database: Database) -> None:
    """With no room left every change of the group fails, reads go on, and room brings it back."""
    await database.write(add(0))

    def limit(pages: int) -> Callable[[Connection], object]:
        return lambda connection: connection.exec_driver_sql(
            f"PRAGMA max_page_count={pages}"
        ).scalar()

    await database.write(limit(1))  # SQLite raises it to what is in use
    results = await asyncio.gather(
        *(database.write(add(n, "y" * 5000)) for n in range(1, 6)), return_exceptions=True
    )
    assert all(isinstance(r, Problem) and r.kind is Kind.UNAVAILABLE for r in results)
    assert await database.read(count) == 1
    await database.write(limit(100_000))
    assert await database.write(add(1, "y" * 5000)) == 1
    assert await database.read(count) == 2


async def test_a_failing_disk_is_never_a_success(database: Database) -> None:
    """A write error of the operating system fails the change; nothing half-written is seen."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        results = await asyncio.gather(
            *(database.write(add(n, "z" * 50_000)) for n in range(3)), return_exceptions=True
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert all(isinstance(r, Problem) and r.kind is Kind.UNAVAILABLE for r in results)
    assert await database.read(count) == 0
    assert await database.write(add(1)) == 1
    assert await database.read(count) == 1


async def test_a_wrong_statement_is_a_bug(database: Database) -> None:
    """SQL that cannot run is not blamed on the disk."""
    for ask in (database.read, database.scan, database.write):
        with pytest.raises(OperationalError, match="no such table"):
            await ask(lambda connection: connection.exec_driver_sql("SELECT * FROM nowhere"))


async def test_close_stores_what_waits(tmp_path: Path) -> None:
    """Closing drains the queue, can be repeated and refuses what comes after."""
    database = Database(tmp_path / "muster.db")
    metadata.create_all(database.engine)
    writes = [asyncio.create_task(database.write(add(n))) for n in range(50)]
    await asyncio.sleep(0)
    await asyncio.gather(database.close(), database.close())
    assert [await write for write in writes] == list(range(50))
    await database.close()
    for ask in (database.read, database.scan, database.write):
        with pytest.raises(Problem) as caught:
            await ask(count)
        assert caught.value.kind is Kind.UNAVAILABLE
    with sqlite3.connect(tmp_path / "muster.db") as plain:
        assert plain.execute("SELECT count(*) FROM things").fetchone() == (50,)
    plain.close()


def test_a_closed_loop_does_not_kill_the_writer(tmp_path: Path) -> None:
    """Answers for a loop that is gone are dropped, and another loop is still served."""
    database = Database(tmp_path / "muster.db")
    metadata.create_all(database.engine)

    async def leave() -> None:
        database.write(add(1)).send(None)  # asks, and never waits for the answer

    async def stay() -> int:
        await database.write(add(2))
        found = await database.read(count)
        await database.close()
        return found

    asyncio.run(leave())
    assert asyncio.run(stay()) == 2


async def test_commit_callbacks_fire_once_for_a_group(database: Database) -> None:
    """A callback is called once for each commit that announced its name, and for no other."""
    fired: list[str] = []
    database.on_commit("notices", lambda: fired.append("notices"))
    database.on_commit("notices", lambda: 1 // 0)
    database.on_commit("other", lambda: fired.append("other"))
    await asyncio.gather(*(database.write(lambda c: announce(c, "notices")) for _ in range(5)))
    await database.write(add(1))
    await database.read(count)
    assert fired == ["notices"]


async def test_files_are_private(tmp_path: Path, database: Database) -> None:
    """Only the owner may read the database and its side files; a looser file is refused."""
    await database.write(add(1))
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    loose = tmp_path / "loose.db"
    loose.touch(0o644)
    with pytest.raises(Problem) as caught:
        Database(loose)
    assert caught.value.kind is Kind.FORBIDDEN


@pytest.mark.parametrize("content", [None, b"not a database" * 100])
async def test_what_cannot_be_opened_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A missing directory or a foreign file is refused at once, not at the first write."""
    path = tmp_path / "nowhere" / "muster.db"
    if content is not None:
        path = tmp_path / "foreign.db"
        path.touch(0o600)
        path.write_bytes(content)
    with pytest.raises(Problem) as caught:
        Database(path)
    assert caught.value.kind is Kind.UNAVAILABLE
