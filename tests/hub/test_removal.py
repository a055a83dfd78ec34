"""A deleted hub leaves nothing behind."""

from __future__ import annotations

from tests.support.hub import MemoryBus, MemoryDevices, MemoryHubs, MemoryLog, a_device, a_hub

from muster.hub.removal import HubRemoval
from muster.model.notice import Notice


async def test_events_and_devices_go_with_their_hub() -> None:
    """In steps, however many there are, and without touching another hub's."""
    log, devices, bus = MemoryLog(), MemoryDevices(), MemoryBus()
    HubRemoval(log, devices, MemoryHubs(a_hub(hub_id="hub-2")), bus)
    for hub_id in ("hub-1", "hub-2"):
        await log.open_stream(hub_id, partition_count=1, retention_days=1)
    for number in range(2001):
        devices.put(a_device(f"d{number}"))
    devices.put(a_device(hub_id="hub-2"))
    await bus.publish(Notice("hub.deleted", "hub-1"))
    assert set(log.streams) == {"hub-2"}
    assert set(devices.devices) == {("hub-2", "dev1")}


async def test_a_notice_alone_deletes_nothing() -> None:
    """What is stored decides: a hub that is there keeps everything."""
    log, devices, bus = MemoryLog(), MemoryDevices(), MemoryBus()
    HubRemoval(log, devices, MemoryHubs(a_hub()), bus)
    await log.open_stream("hub-1", partition_count=1, retention_days=1)
    devices.put(a_device())
    await bus.publish(Notice("hub.deleted", "hub-1"))
    assert set(log.streams) == {"hub-1"}
    assert len(devices.devices) == 1
