"""A change to a device is in force when the call that made it returns."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.support.hub import ManualClock, MemoryDevices, MemoryHubs, a_device, a_hub, an_attempt

from muster.hub.enforced import EnforcedDevices
from muster.hub.sessions import LiveSession, Sessions
from muster.ids import new_etag
from muster.model.audit import AuditEntry
from muster.model.device import DeviceStatus

AUDIT = AuditEntry(datetime(2026, 11, 23, tzinfo=UTC), "test", "device.update", "dev1")


@pytest.fixture
def devices() -> MemoryDevices:
    """The store behind."""
    made = MemoryDevices()
    made.put(a_device())
    return made


@pytest.fixture
def sessions(devices: MemoryDevices) -> Sessions:
    """Who is connected."""
    return Sessions(MemoryHubs(a_hub()), devices, ManualClock())


async def connect(sessions: Sessions) -> tuple[LiveSession, list[str]]:
    """Admit the device; return its session and the reasons for which it was ended."""
    ended: list[str] = []
    live, _ = await sessions.open(an_attempt(), ended.append)
    return live, ended


async def test_a_disabled_device_is_cut_before_the_call_returns(
    devices: MemoryDevices, sessions: Sessions
) -> None:
    """No notice is needed for it, and none could be late."""
    live, ended = await connect(sessions)
    device = devices.devices["hub-1", "dev1"]
    off = replace(device, status=DeviceStatus.DISABLED, etag=new_etag())
    assert await EnforcedDevices(devices, sessions).replace_device(off, device.etag, AUDIT)
    assert live.ended
    assert len(ended) == 1


async def test_a_deleted_device_is_cut_before_the_call_returns(
    devices: MemoryDevices, sessions: Sessions
) -> None:
    """Whatever version was asked for."""
    live, _ = await connect(sessions)
    device = devices.devices["hub-1", "dev1"]
    enforced = EnforcedDevices(devices, sessions)
    assert await enforced.delete_device(device.hub_id, device.device_id, None, AUDIT)
    assert live.ended


async def test_a_change_that_admits_the_device_still_cuts_nobody(
    devices: MemoryDevices, sessions: Sessions
) -> None:
    """A new status reason, say."""
    live, ended = await connect(sessions)
    device = devices.devices["hub-1", "dev1"]
    changed = replace(device, status_reason="moved", etag=new_etag())
    assert await EnforcedDevices(devices, sessions).replace_device(changed, device.etag, AUDIT)
    assert not live.ended
    assert ended == []


async def test_a_change_that_was_not_made_cuts_nobody(
    devices: MemoryDevices, sessions: Sessions
) -> None:
    """Another version is stored: nothing happened."""
    live, _ = await connect(sessions)
    off = replace(a_device(), status=DeviceStatus.DISABLED, etag=new_etag())
    assert not await EnforcedDevices(devices, sessions).replace_device(off, new_etag(), AUDIT)
    assert not live.ended
