"""`kill -9` at any moment loses nothing that was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import struct
import sys
from pathlib import Path

import pytest

from muster.clock import SystemClock
from muster.events.journal import JournalLimits
from muster.events.log import EmbeddedEventLog
from muster.events.stream import JournalStream

PARTITIONS = 3
KILLS = 20
# Small, so that segments end, indexes are written and old ones are dropped all the time.
LIMITS = JournalLimits(segment_bytes=100_000, total_bytes=2_000_000)
ACKNOWLEDGED = struct.Struct(f"<{PARTITIONS}Q")

CHILD = """
import asyncio, os, sys
from pathlib import Path
from muster.clock import SystemClock
from muster.events.journal import JournalLimits
from muster.events.log import EmbeddedEventLog
import struct

answers = os.dup(1)
os.dup2(2, 1)  # the log's own words do not belong among the answers

async def main():
    root, partitions, segment_bytes, total_bytes = sys.argv[1], *map(int, sys.argv[2:])
    limits = JournalLimits(segment_bytes=segment_bytes, total_bytes=total_bytes)
    log = EmbeddedEventLog(Path(root), clock=SystemClock(), limits=limits)
    stream = await log.open_stream("hub", partition_count=partitions, retention_days=1)
    infos = [await stream.partition_info(number) for number in range(partitions)]
    counts = [info.last_sequence_number + 1 for info in infos]
    ended = asyncio.Event()

    def turn(problem=None):
        if problem is not None:
            ended.set()
            return
        os.write(answers, struct.pack("<%dQ" % partitions, *counts))
        for number in range(60):
            partition = number % partitions
            payload = b"%d:%d" % (partition, counts[partition])
            stream.append(partition, payload, payload * (number % 7))
            counts[partition] += 1
        stream.on_durable(turn)

    turn()
    await ended.wait()

asyncio.run(main())
"""


async def run_and_kill(root: Path, delay: float) -> list[int]:
    """Append at full speed, kill after *delay* seconds of work; return what was acknowledged."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, str(root), str(PARTITIONS)),
        *(str(LIMITS.segment_bytes), str(LIMITS.total_bytes)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    last = await child.stdout.readexactly(ACKNOWLEDGED.size)  # it is at work now
    with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(delay):
            while True:
                last = await child.stdout.readexactly(ACKNOWLEDGED.size)
    assert child.returncode is None, "the child ended by itself"
    child.send_signal(signal.SIGKILL)
    rest = await child.stdout.read()
    await child.wait()
    whole = len(rest) - len(rest) % ACKNOWLEDGED.size
    return list(ACKNOWLEDGED.unpack((last + rest[:whole])[-ACKNOWLEDGED.size :]))


async def check(stream: JournalStream, partition: int, acknowledged: int) -> None:
    """Every acknowledged event that retention keeps is there, once, in order and whole."""
    info = await stream.partition_info(partition)
    assert info.last_sequence_number + 1 >= acknowledged
    at = info.first_sequence_number
    while events := await stream.read(partition, at, 10_000):
        for event in events:
            assert event.sequence_number == at
            assert event.envelope == b"%d:%d" % (partition, at)
            assert event.payload == event.envelope * (len(event.payload) // len(event.envelope))
            at += 1
    assert at == info.last_sequence_number + 1


@pytest.mark.faults
async def test_kill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Killed again and again while writing, ending segments and dropping old ones."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    root = tmp_path / "events"
    previous = [0] * PARTITIONS
    for _ in range(KILLS):
        acknowledged = await run_and_kill(root, chance.uniform(0.0, 0.25))
        assert all(new >= old for new, old in zip(acknowledged, previous, strict=True))
        log = EmbeddedEventLog(root, clock=SystemClock(), limits=LIMITS)
        stream = await log.open_stream("hub", partition_count=PARTITIONS, retention_days=1)
        for partition in range(PARTITIONS):
            await check(stream, partition, acknowledged[partition])
        previous = acknowledged
        await log.close()
    assert min(previous) > 1000
