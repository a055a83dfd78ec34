from __future__ import annotations

import asyncio

import pytest

from muster.net.tasks import TaskSet, Unfinished, begin


async def _add(*waits: asyncio.Future[int]) -> int:
    return sum([await wait for wait in waits])


async def test_work_that_waits_for_nothing_is_over_at_once():
    """Its result comes back without a task."""
    assert begin(_add()) == 0


async def test_what_work_raises_at_once_comes_out():
    """Nothing stands between the caller and the failure."""

    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        begin(fail())


async def test_work_that_waits_goes_on_in_a_task():
    """However often it waits, and whether what it waits for is there already or not."""
    loop = asyncio.get_running_loop()
    waits = [loop.create_future() for _ in range(3)]
    rest = begin(_add(*waits))
    assert isinstance(rest, Unfinished)
    waits[0].set_result(1)

    async def go_on() -> int:
        return await rest

    task = asyncio.create_task(go_on())
    for number, wait in enumerate(waits[1:], start=2):
        await asyncio.sleep(0)
        wait.set_result(number)
    assert await task == 6


async def test_what_it_waits_for_may_fail():
    """The failure reaches the work, which may bear with it."""
    wait = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await wait
        except LookupError as error:
            return str(error)
        return "nothing"

    rest = begin(work())
    wait.set_exception(LookupError("gone"))
    assert await rest == "gone"


async def test_cancelling_reaches_the_work():
    """The work cleans up after itself, as in a task of its own."""
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(True)

    rest = begin(work())

    async def go_on() -> None:
        await rest

    task = asyncio.create_task(go_on())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]


async def test_closing_cancels_who_is_late():
    """A task that does not end in time is cancelled and counted."""
    tasks = TaskSet()
    tasks.start(asyncio.sleep(60), name="late")
    assert await tasks.close(0.01) == 1
    assert not tasks.tasks
