"""Who is connected, for how long, and what ends it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.support.hub import (
    HOST,
    NOW,
    POLICY_KEY,
    ManualClock,
    MemoryBus,
    MemoryDevices,
    MemoryHubs,
    RecordingLink,
    a_device,
    a_hub,
    an_attempt,
    by_ca,
    chain,
    token,
)
from tests.support.pki import TestAuthority

from muster.errors import Kind, Problem
from muster.hub import enforcement as enforcement_module
from muster.hub import sessions as sessions_module
from muster.hub.access import Attempt
from muster.hub.enforcement import Enforcement
from muster.hub.sessions import LiveSession, Sessions
from muster.ids import DeviceId, new_etag
from muster.model.device import DeviceStatus
from muster.model.notice import Notice
from muster.model.resource import Hub

ROOT = TestAuthority("root")
DEV1 = DeviceId("dev1")


class World:
    """Sessions over stores in memory, with notices delivered when a test says so."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.hub = a_hub(ROOT)
        self.hubs = MemoryHubs(self.hub)
        self.devices = MemoryDevices()
        self.bus = MemoryBus()
        self.sessions = Sessions(self.hubs, self.devices, self.clock)
        self.enforcement = Enforcement(self.sessions, self.hubs, self.devices, self.bus)

    async def connect(self, attempt: Attempt | None = None) -> tuple[LiveSession, RecordingLink]:
        """Open a session."""
        link = RecordingLink()
        live, _ = await self.sessions.open(attempt or an_attempt(), link.close)
        return live, link

    def change(self, **changes: object) -> None:
        """Change the stored device without telling anybody."""
        stored = self.devices.devices["hub-1", "dev1"]
        self.devices.put(replace(stored, etag=new_etag(), **changes))  # type: ignore[arg-type]  # test helper

    def change_hub(self, **changes: object) -> None:
        """Change the stored hub without telling anybody."""
        self.hub = replace(self.hub, etag=new_etag(), **changes)  # type: ignore[arg-type]  # test helper
        self.hubs.hubs[:] = [self.hub]

    async def tell(self, topic: str, subject: str = "hub-1/dev1") -> None:
        """Deliver a notice, and let what it set going finish."""
        await self.bus.publish(Notice(topic, subject))
        await self.enforcement.recheck_changed_hubs()


@pytest.fixture
def world() -> World:
    """A hub with one device."""
    made = World()
    made.devices.put(a_device())
    return made


async def test_a_newer_connection_drops_the_older(world: World) -> None:
    """One device, one connection: the last to come stays."""
    old, old_link = await world.connect()
    new, new_link = await world.connect()
    assert old_link.closed_with is not None
    assert "400027" in old_link.closed_with
    assert (old.ended, old.is_refused, new.ended) == (True, False, False)
    old.close()  # its connection reports the end late, and must not take the newer one along
    assert world.sessions.find("hub-1", DEV1) is new
    assert new_link.closed_with is None


async def test_a_refused_newcomer_does_not_drop_anybody(world: World) -> None:
    """Who knows a device's name but not its key cannot throw it out."""
    old, _ = await world.connect()
    with pytest.raises(Problem):
        await world.connect(an_attempt(password=b"guess"))
    assert not old.ended
    assert world.sessions.find("hub-1", DEV1) is old


async def test_an_unknown_host(world: World) -> None:
    """A host that no hub answers to is said to be just that."""
    with pytest.raises(Problem) as caught:
        await world.connect(an_attempt(host="elsewhere.example"))
    assert caught.value.kind is Kind.NOT_FOUND


async def test_a_session_ends_when_its_token_does(world: World) -> None:
    """A session does not outlive what it was admitted with, by a tick."""
    live, link = await world.connect()
    world.clock.pass_(minutes=59, seconds=59)
    world.sessions.expire()
    assert not live.ended
    world.clock.pass_(seconds=1)
    world.sessions.expire()
    assert (live.is_refused, "expired" in (link.closed_with or "")) == (True, True)


async def test_a_session_ends_when_its_certificate_does(world: World) -> None:
    """So does one with a certificate, after the certificate's last second."""
    leaf = ROOT.leaf("dev1", ends=timedelta(minutes=1))
    world.devices.put(by_ca())
    live, _ = await world.connect(an_attempt(password=None, chain=chain(leaf)))
    world.clock.moment = leaf.certificate.not_valid_after_utc
    world.sessions.expire()
    assert not live.ended
    world.clock.pass_(seconds=1)
    world.sessions.expire()
    assert live.is_refused


CHANGES = {
    "disabled": {"status": DeviceStatus.DISABLED},
    "key changed": {"authentication": by_ca().authentication},
    "created anew": {"generation_id": "generation-2"},
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_that_shuts_the_device_out_ends_its_session(world: World, name: str) -> None:
    """The notice makes the hub look again, and what it finds decides."""
    live, link = await world.connect()
    world.change(**CHANGES[name])
    assert not live.ended
    await world.tell("device.changed")
    assert (live.is_refused, link.closed_with is not None) == (True, True)
    assert world.sessions.count("hub-1") == 0


async def test_a_deleted_device_is_gone(world: World) -> None:
    """Deletion ends the session."""
    live, _ = await world.connect()
    world.devices.devices.clear()
    await world.tell("device.deleted")
    assert live.is_refused


async def test_a_change_that_leaves_the_device_in_leaves_the_session(world: World) -> None:
    """A repeated, late or harmless notice costs a look and nothing else."""
    live, link = await world.connect()
    world.change(status_reason="checked")
    for _ in range(3):
        await world.tell("device.changed")
    await world.tell("device.changed", "hub-1/other")
    assert not live.ended
    assert link.closed_with is None
    assert live.device_etag == world.devices.devices["hub-1", "dev1"].etag


async def test_a_hub_that_stops_trusting_a_ca_drops_its_devices(world: World) -> None:
    """Removing a CA ends the sessions it vouched for, and no others."""
    world.devices.put(by_ca("dev2"))
    by_key, _ = await world.connect()
    by_chain, _ = await world.connect(
        an_attempt("dev2", password=None, chain=chain(ROOT.leaf("dev2")))
    )
    world.change_hub(certificates=())
    await world.tell("hub.changed", "hub-1")
    assert (by_key.ended, by_chain.is_refused) == (False, True)


async def test_a_new_policy_key_drops_whoever_used_the_old(world: World) -> None:
    """A session opened by a policy's key ends when that key is no longer one."""
    live, _ = await world.connect(an_attempt(password=token(key=POLICY_KEY, name="device")))
    world.change_hub(policies=())
    await world.tell("hub.changed", "hub-1")
    assert live.is_refused


async def test_a_deleted_hub_drops_everybody(world: World) -> None:
    """Nobody stays at a hub that is gone."""
    for number in range(50):
        world.devices.put(a_device(f"d{number}"))
        await world.connect(an_attempt(f"d{number}"))
    world.hubs.hubs.clear()
    await world.tell("hub.deleted", "hub-1")
    assert world.sessions.count("hub-1") == 0


@pytest.mark.parametrize("what", ["device", "hub", "deleted device"])
async def test_a_lost_notice_is_made_up_for_by_the_sweep(world: World, what: str) -> None:
    """The sweep finds sessions whose hub or device is of another version."""
    live, _ = await world.connect()
    await world.enforcement.sweep()
    assert not live.ended
    if what == "device":
        world.change(status=DeviceStatus.DISABLED)
    elif what == "hub":
        world.hubs.hubs.clear()
    else:
        world.devices.devices.clear()
    await world.enforcement.sweep()
    assert live.is_refused


async def test_the_running_task_rechecks_expires_and_sweeps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to call anything: notice, time and sweep do their work in the background."""
    monkeypatch.setattr(enforcement_module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(enforcement_module, "SWEEP_SECONDS", 0.05)
    for name in ("a", "b", "c"):
        world.devices.put(a_device(name))
    task = asyncio.ensure_future(world.enforcement.run())
    async with asyncio.timeout(10):
        _, swept = await world.connect(an_attempt("a"))
        del world.devices.devices["hub-1", "a"]  # and nobody is told
        await swept.closed.wait()
        _, expired = await world.connect(an_attempt("b"))
        world.clock.pass_(hours=2)
        await expired.closed.wait()
        world.clock.pass_(hours=-2)
        _, told = await world.connect(an_attempt("c"))
        world.hubs.hubs.clear()
        await world.bus.publish(Notice("hub.deleted", "hub-1"))
        await told.closed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_change_between_check_and_registration_is_seen(world: World) -> None:
    """A device that is disabled after it was read, but before it is registered, gets no session.

    Its notice finds nobody to drop; it is the newcomer who looks again.
    """
    handlers = world.bus.handlers["device.changed"]

    def disable() -> None:
        world.change(status=DeviceStatus.DISABLED)
        step = handlers[0](Notice("device.changed", "hub-1/dev1"))
        with pytest.raises(StopIteration):  # nobody to look at: it runs through
            step.send(None)  # type: ignore[attr-defined]  # a coroutine

    world.devices.after_read = disable
    link = RecordingLink()
    with pytest.raises(Problem) as caught:
        await world.sessions.open(an_attempt(), link.close)
    assert "disabled" in caught.value.detail
    assert world.sessions.count("hub-1") == 0


async def test_not_knowing_is_no_reason_to_drop(world: World) -> None:
    """A database that cannot be read now does not cut off a fleet; the next look decides."""
    live, _ = await world.connect()
    world.change(status=DeviceStatus.DISABLED)
    world.devices.failing = Problem(Kind.UNAVAILABLE, "busy")
    await world.tell("device.changed")
    assert not live.ended
    world.devices.failing = None
    await world.enforcement.sweep()
    assert live.is_refused


async def test_disconnect_is_final_and_says_whether_anybody_was_there(world: World) -> None:
    """Whoever disconnects a device learns whether it was connected here."""
    _, link = await world.connect()
    assert world.sessions.disconnect("hub-1", DEV1, "told so")
    assert link.closed_with == "told so"
    assert not world.sessions.disconnect("hub-1", DEV1, "told so")


async def test_what_the_registry_shows(world: World) -> None:
    """Connected and since when, then gone and since when; never is never."""
    never = world.sessions.connection_of("hub-1", DEV1)
    assert (never.connected, never.changed, never.last_activity) == (False, None, None)
    live, _ = await world.connect()
    world.clock.pass_(seconds=5)
    live.touch(world.clock.now())
    here = world.sessions.connection_of("hub-1", DEV1)
    assert here.connected
    assert (here.changed, here.last_activity) == (NOW, NOW + timedelta(seconds=5))
    world.clock.pass_(seconds=5)
    live.close()
    gone = world.sessions.connection_of("hub-1", DEV1)
    assert not gone.connected
    assert gone.changed == NOW + timedelta(seconds=10)
    assert gone.last_activity == NOW + timedelta(seconds=5)


async def test_those_who_left_are_forgotten_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of devices that left is bounded; the longest gone go first."""
    monkeypatch.setattr(sessions_module, "_REMEMBERED", 2)
    for name in ("a", "b", "c"):
        world.devices.put(a_device(name))
        live, _ = await world.connect(an_attempt(name))
        live.close()
    known = [
        world.sessions.connection_of("hub-1", DeviceId(name)).changed is not None
        for name in ("a", "b", "c")
    ]
    assert known == [False, True, True]


async def test_hubs_do_not_share_devices(world: World) -> None:
    """The same device id at another hub is another device."""
    other = a_hub(hub_id="hub-2", hostname="hub2.example")
    world.hubs.hubs.append(other)
    world.devices.put(a_device(hub_id="hub-2"))
    one, _ = await world.connect()
    two, _ = await world.connect(
        an_attempt(host="hub2.example", password=token("hub2.example/devices/dev1"))
    )
    assert not one.ended
    assert not two.ended
    with pytest.raises(Problem):
        await world.connect(an_attempt(host="hub2.example", password=token(f"{HOST}/devices/dev1")))


async def test_a_failing_sweep_does_not_end_the_sweeping(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in one look, sessions expire and the next look is taken."""
    monkeypatch.setattr(enforcement_module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(enforcement_module, "SWEEP_SECONDS", 0.01)
    failures = [Problem(Kind.UNAVAILABLE, "busy"), OSError("bug")]
    real = world.hubs.list_hubs

    async def list_hubs() -> list[Hub]:
        if failures:
            raise failures.pop()
        return await real()

    monkeypatch.setattr(world.hubs, "list_hubs", list_hubs)
    _, link = await world.connect()
    task = asyncio.ensure_future(world.enforcement.run())
    world.devices.devices.clear()
    async with asyncio.timeout(10):
        await link.closed.wait()
    task.cancel()
    assert failures == []
