# ruff: noqa: D102 - the pipe is documented by its Protocol

from __future__ import annotations

import asyncio

import pytest

from muster.model.peer import Peer
from muster.net.driver import Driver, Turn
from muster.net.reasons import CloseReason


class RecordingPipe:
    """A pipe that remembers each write, and ends like a connection does."""

    def __init__(self) -> None:
        self.driver: Driver
        self.writes: list[bytes] = []
        self.closed: list[tuple[CloseReason, str]] = []
        self.paused = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self, reason: CloseReason, detail: str = "") -> None:
        self.closed.append((reason, detail))
        self.driver.lost(reason, detail)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@pytest.fixture
def make(lines_class):
    """Make a driver of a line session on a recording pipe."""

    def make(*, idle: float | None = None):
        lines = lines_class(idle=idle)
        pipe = RecordingPipe()
        pipe.driver = Driver(pipe, Peer("a"), lines.open, Turn())
        return pipe.driver, pipe, lines.sessions[0]

    return make


async def test_one_read_makes_one_write(make):
    """However many messages were in it."""
    driver, pipe, session = make()
    driver.receive(b"echo a\necho b\n" * 100)
    assert pipe.writes == [b"a\nb\n" * 100]
    assert len(session.heard) == 200


async def test_answers_of_one_turn_leave_together(make):
    """Ten flushes in one turn of the loop are one write, in the next."""
    driver, pipe, session = make()
    await asyncio.sleep(0)
    for number in range(10):
        session.machine.say(str(number))
        driver.flush()
    assert pipe.writes == []
    await asyncio.sleep(0)
    assert pipe.writes == [b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"]


async def test_closing_inside_handle_waits_for_its_return(make):
    """The session is never re-entered; its last words go out, and the first reason wins."""
    driver, pipe, session = make()
    driver.receive(b"close first\nclose second\necho not lost\n")
    assert pipe.closed == [(CloseReason.SESSION_ENDED, "first")]
    assert pipe.writes == [b"closing\nclosing\nnot lost\n"]
    assert session.reasons == ["session ended: first"]


async def test_nothing_happens_after_the_end(make):
    """Late bytes, flushes, closes and timers find a driver that is gone."""
    driver, pipe, session = make(idle=0.01)
    driver.receive(b"quit\n")
    driver.receive(b"echo late\n")
    driver.receive_eof()
    driver.flush()
    driver.close("late")
    driver.lost(CloseReason.SHUTDOWN, "")
    driver.stop()
    await asyncio.sleep(0.05)
    assert pipe.closed == [(CloseReason.PROTOCOL_ENDED, "")]
    assert pipe.writes == [b"bye\n"]
    assert session.reasons == ["protocol ended"]


async def test_a_deadline_is_kept(make):
    """A machine that waits for its peer is called in time, also when nothing ever came."""
    _driver, pipe, session = make(idle=0.05)
    begun = asyncio.get_running_loop().time()
    await asyncio.wait_for(session.gone.wait(), 2)
    assert asyncio.get_running_loop().time() - begun >= 0.04
    assert pipe.writes == [b"bye\n"]
    assert session.heard == ["!idle"]


async def test_a_deadline_moves_with_the_traffic(make):
    """Each sign of life puts the end off, without a new timer for each."""
    driver, pipe, session = make(idle=0.2)
    for _ in range(8):
        await asyncio.sleep(0.05)
        driver.receive(b"echo on\n")
    assert pipe.closed == []
    await asyncio.wait_for(session.gone.wait(), 2)
    assert pipe.closed == [(CloseReason.PROTOCOL_ENDED, "")]


async def test_an_end_of_stream_is_the_peers(make):
    """A machine that ends because its peer did is counted as the peer's end."""
    driver, pipe, session = make()
    driver.receive_eof()
    assert pipe.closed == [(CloseReason.PEER_CLOSED, "")]
    assert session.heard == ["!eof"]


async def test_stopping_takes_nothing_more_and_gives_a_moment(make):
    """Reading stops at once; what becomes ready in the grace still leaves."""
    driver, pipe, session = make()
    driver.stop()
    assert pipe.paused
    assert pipe.closed == []
    session.machine.say("in time")
    await asyncio.wait_for(session.gone.wait(), 2)
    assert pipe.writes == [b"in time\n"]
    assert pipe.closed == [(CloseReason.SHUTDOWN, "")]
