"""A deleted hub leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.hub import MemoryBus, MemoryDevices, MemoryHubs, MemoryLog, a_device, a_hub

from muster.errors import Kind, Problem
from muster.hub.removal import HubRemoval
from muster.model.notice import Notice


async def test_events_and_devices_go_with_their_hub() -> None:
    """In steps, however many there are, and without touching another hub's."""
    log, devices, bus = MemoryLog(), MemoryDevices(), MemoryBus()
    removal = HubRemoval(log, devices, MemoryHubs(a_hub(hub_id="hub-2")), bus)
    for hub_id in ("hub-1", "hub-2"):
        await log.open_stream(hub_id, partition_count=1, retention_days=1)
    for number in range(2001):
        devices.put(a_device(f"d{number}"))
    devices.put(a_device(hub_id="hub-2"))
    await bus.publish(Notice("hub.deleted", "hub-1"))
    await removal.clear()
    assert set(log.streams) == {"hub-2"}
    assert set(devices.devices) == {("hub-2", "dev1")}


async def test_a_notice_alone_deletes_nothing() -> None:
    """What is stored decides: a hub that is there keeps everything."""
    log, devices, bus = MemoryLog(), MemoryDevices(), MemoryBus()
    removal = HubRemoval(log, devices, MemoryHubs(a_hub()), bus)
    await log.open_stream("hub-1", partition_count=1, retention_days=1)
    devices.put(a_device())
    await bus.publish(Notice("hub.deleted", "hub-1"))
    await removal.clear()
    assert set(log.streams) == {"hub-1"}
    assert len(devices.devices) == 1


async def test_it_runs_beside_the_notices() -> None:
    """A notice is taken at once; the work is done by a task, which can be stopped."""
    log, devices, bus = MemoryLog(), MemoryDevices(), MemoryBus()
    removal = HubRemoval(log, devices, MemoryHubs(), bus)
    devices.put(a_device())
    await bus.publish(Notice("hub.deleted", "hub-1"))
    assert len(devices.devices) == 1
    async with asyncio.timeout(5):
        await log.deleted.wait()
    assert devices.devices == {}
    for _ in range(2):
        await removal.close()
    await bus.publish(Notice("hub.deleted", "hub-2"))
    await removal.close()


async def test_a_hub_that_cannot_be_cleared_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first failure is logged, the second hub is cleared."""
    log, devices, bus = MemoryLog(), MemoryDevices(), MemoryBus()
    removal = HubRemoval(log, devices, MemoryHubs(), bus)
    real, failures = log.delete_stream, [Problem(Kind.UNAVAILABLE, "disk"), OSError("bug")]

    async def delete_stream(name: str) -> None:
        if failures:
            raise failures.pop()
        await real(name)

    monkeypatch.setattr(log, "delete_stream", delete_stream)
    for number in range(3):
        devices.put(a_device(hub_id=f"hub-{number}"))
        await bus.publish(Notice("hub.deleted", f"hub-{number}"))
    await removal.clear()
    assert len(devices.devices) == 2
