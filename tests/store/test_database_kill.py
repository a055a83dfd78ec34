"""`kill -9` at any moment loses no change that was acknowledged."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import struct
import sys
from pathlib import Path

import pytest

KILLS = 8
NUMBER = struct.Struct("<Q")

# Twenty callers store numbers at full speed; each acknowledged one is written to the pipe.
CHILD = """
import asyncio, struct, sys, os
from pathlib import Path
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from muster.store.database import Database

numbers = Table("numbers", MetaData(), Column("number", Integer, primary_key=True))

async def main():
    database = Database(Path(sys.argv[1]))
    numbers.metadata.create_all(database.engine)
    last = await database.read(lambda c: c.execute(select(func.max(numbers.c.number))).scalar())
    following = iter(range((last or 0) + 1, 2**60))

    async def caller():
        for number in following:
            await database.write(lambda c: c.execute(insert(numbers), {"number": number}) and None)
            os.write(1, struct.pack("<Q", number))

    await asyncio.gather(*(caller() for _ in range(20)))

asyncio.run(main())
"""


@pytest.mark.faults
async def test_kill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Killed again and again in the middle of commits, the database has every number it told."""
    chance = random.Random(20261123)
    path = tmp_path / "muster.db"
    acknowledged: set[int] = set()
    for _ in range(KILLS):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD, str(path)), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        told = await child.stdout.readexactly(NUMBER.size)
        killer = asyncio.get_running_loop().call_later(
            chance.uniform(0.0, 0.2), child.send_signal, signal.SIGKILL
        )
        told += await child.stdout.read()
        assert await child.wait() == -signal.SIGKILL
        killer.cancel()
        acknowledged |= {number for (number,) in NUMBER.iter_unpack(told)}
    plain = sqlite3.connect(path)
    stored = {number for (number,) in plain.execute("SELECT number FROM numbers")}
    assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    plain.close()
    assert acknowledged <= stored
    assert len(acknowledged) > 500
