"""A deleted hub leaves nothing behind."""

from __future__ import annotations

from tests.support.hub import MemoryDevices, MemoryHubs, MemoryLog, a_device, a_hub

from muster.hub.removal import HubRemains


async def test_events_and_devices_go_with_their_hub() -> None:
    """In steps, however many there are, and without touching another hub's."""
    log, devices = MemoryLog(), MemoryDevices()
    for hub_id in ("hub-1", "hub-2"):
        await log.open_stream(hub_id, partition_count=1, retention_days=1)
    for number in range(2001):
        devices.put(a_device(f"d{number}"))
    devices.put(a_device(hub_id="hub-2"))
    await HubRemains(log, devices, MemoryHubs(a_hub(hub_id="hub-2"))).clear("hub-1")
    assert set(log.streams) == {"hub-2"}
    assert set(devices.devices) == {("hub-2", "dev1")}


async def test_a_hub_that_is_there_keeps_everything() -> None:
    """What is stored decides, not who calls."""
    log, devices = MemoryLog(), MemoryDevices()
    await log.open_stream("hub-1", partition_count=1, retention_days=1)
    devices.put(a_device())
    await HubRemains(log, devices, MemoryHubs(a_hub())).clear("hub-1")
    assert set(log.streams) == {"hub-1"}
    assert len(devices.devices) == 1
