"""The registry's rules: keys, versions, limits and the trail it leaves."""

from __future__ import annotations

import base64

import pytest
from tests.support.hub import NOW, OTHER, PRIMARY, SECONDARY, ManualClock, MemoryDevices, a_device

from muster.errors import Kind, Problem
from muster.hub import registry as registry_module
from muster.hub.registry import DeviceSettings, Registry
from muster.ids import DeviceId, ETag, Thumbprint, new_etag
from muster.model.device import AuthenticationType, DeviceAuthentication, DeviceStatus

ACTOR = "policy:iothubowner"
DEV1 = DeviceId("dev1")
SAS = AuthenticationType.SAS
SELF = AuthenticationType.SELF_SIGNED
PRINT, PRINT_1 = Thumbprint("A" * 64), Thumbprint("B" * 40)


class World:
    """A registry over a store in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.devices = MemoryDevices()
        self.registry = Registry(self.devices, self.clock)


@pytest.fixture
def world() -> World:
    """An empty registry."""
    return World()


def wanted(device_id: str = "dev1", **fields: object) -> DeviceSettings:
    """Return settings."""
    return DeviceSettings(DeviceId(device_id), **fields)  # type: ignore[arg-type]  # test helper


async def refusal(awaitable: object) -> Kind:
    """Return the kind of the refusal."""
    with pytest.raises(Problem) as caught:
        await awaitable  # type: ignore[misc]  # a coroutine
    return caught.value.kind


async def test_a_new_device_gets_two_keys(world: World) -> None:
    """Without credentials it gets two different keys of 64 bytes, and a generation."""
    device = await world.registry.create("hub-1", wanted(), actor=ACTOR)
    proof = device.authentication
    keys = [base64.b64decode(key or "") for key in (proof.primary_key, proof.secondary_key)]
    assert [len(key) for key in keys] == [64, 64]
    assert keys[0] != keys[1]
    assert (proof.type, device.status, device.created) == (SAS, DeviceStatus.ENABLED, NOW)
    assert await world.registry.get("hub-1", DEV1) == device
    (line,) = world.devices.audits
    assert (line.action, line.subject, line.actor) == ("device.create", "hub-1/dev1", ACTOR)
    assert not {proof.primary_key, proof.secondary_key} & set(line.detail.values())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((PRIMARY, OTHER), (PRIMARY, OTHER)),
        (("", ""), (None, None)),
        ((PRIMARY, None), (PRIMARY, None)),
    ],
)
async def test_keys_that_are_given_are_kept(
    world: World, given: tuple[str, str], kept: tuple[str | None, str | None]
) -> None:
    """A missing or empty key is made; Node sends empty ones."""
    proof = DeviceAuthentication(SAS, *given)
    device = await world.registry.create("hub-1", wanted(authentication=proof), actor=ACTOR)
    stored = (device.authentication.primary_key, device.authentication.secondary_key)
    for want, got in zip(kept, stored, strict=True):
        assert got == want if want else len(base64.b64decode(got or "")) == 64


@pytest.mark.parametrize(
    "proof",
    [
        DeviceAuthentication(SAS, base64.b64encode(b"k" * 15).decode(), PRIMARY),
        DeviceAuthentication(SAS, PRIMARY, base64.b64encode(b"k" * 65).decode()),
        DeviceAuthentication(SAS, "not base64!", PRIMARY),
        DeviceAuthentication(SAS, "é" * 32, PRIMARY),
        DeviceAuthentication(SAS, "AAAAAAAAAAAAAAAAAAAAAB==", PRIMARY),
        DeviceAuthentication(SELF),
    ],
)
async def test_credentials_that_break_a_rule(world: World, proof: DeviceAuthentication) -> None:
    """Keys have 16 to 64 bytes in canonical base64, and thumbprint devices a thumbprint."""
    create = world.registry.create("hub-1", wanted(authentication=proof), actor=ACTOR)
    assert await refusal(create) is Kind.MALFORMED
    assert world.devices.devices == {}


@pytest.mark.parametrize("size", [16, 64])
async def test_the_ends_of_the_range_of_key_lengths(world: World, size: int) -> None:
    """16 and 64 bytes are inside."""
    key = base64.b64encode(b"k" * size).decode()
    proof = DeviceAuthentication(SAS, key, key)
    device = await world.registry.create("hub-1", wanted(authentication=proof), actor=ACTOR)
    assert device.authentication == proof


@pytest.mark.parametrize(
    "proof",
    [
        DeviceAuthentication(SELF, primary_thumbprint=PRINT),
        DeviceAuthentication(SELF, primary_thumbprint=PRINT, secondary_thumbprint=PRINT_1),
        DeviceAuthentication(SELF, secondary_thumbprint=PRINT_1),
        DeviceAuthentication(AuthenticationType.CERTIFICATE_AUTHORITY),
        DeviceAuthentication(AuthenticationType.NONE),
    ],
)
async def test_other_credentials_are_kept_without_keys(
    world: World, proof: DeviceAuthentication
) -> None:
    """What does not belong to the type is not stored, least of all a key."""
    noisy = DeviceAuthentication(
        proof.type, PRIMARY, SECONDARY, proof.primary_thumbprint, proof.secondary_thumbprint
    )
    device = await world.registry.create("hub-1", wanted(authentication=noisy), actor=ACTOR)
    assert device.authentication == proof


async def test_a_taken_id_and_one_that_is_not_there(world: World) -> None:
    """Creating twice conflicts; changing what is not there is said to be that."""
    await world.registry.create("hub-1", wanted(), actor=ACTOR)
    registry = world.registry
    assert await refusal(registry.create("hub-1", wanted(), actor=ACTOR)) is Kind.CONFLICT
    other = DeviceId("other")
    assert await refusal(registry.get("hub-1", other)) is Kind.NOT_FOUND
    assert await refusal(registry.get("hub-2", DEV1)) is Kind.NOT_FOUND
    update = registry.update("hub-1", wanted("other"), ETag("*"), actor=ACTOR)
    assert await refusal(update) is Kind.NOT_FOUND
    assert await refusal(registry.delete("hub-1", other, ETag("*"), actor=ACTOR)) is Kind.NOT_FOUND


async def test_an_update_replaces_one_version(world: World) -> None:
    """It needs the stored version or `*`, keeps the generation, and makes a new version."""
    device = world.devices.put(a_device())
    world.clock.pass_(hours=1)
    change = wanted(status=DeviceStatus.DISABLED, status_reason="stolen")
    stale = world.registry.update("hub-1", change, new_etag(), actor=ACTOR)
    assert await refusal(stale) is Kind.PRECONDITION_FAILED
    changed = await world.registry.update("hub-1", change, device.etag, actor=ACTOR)
    assert (changed.status, changed.status_reason) == (DeviceStatus.DISABLED, "stolen")
    assert changed.status_updated == world.clock.now()
    assert changed.generation_id == device.generation_id
    assert changed.authentication == device.authentication
    assert changed.etag != device.etag
    again = await world.registry.update("hub-1", wanted(), ETag("*"), actor=ACTOR)
    assert (again.status, again.status_reason) == (DeviceStatus.ENABLED, None)


async def test_an_update_that_loses_a_race_is_not_lost(world: World) -> None:
    """With `*` it is tried on the newer version; with a version it is refused."""
    device = world.devices.put(a_device())

    def other_writer() -> None:
        world.devices.put(a_device(etag=new_etag(), iot_edge=True))

    world.devices.after_read = other_writer
    changed = await world.registry.update(
        "hub-1", wanted(status_reason="mine"), ETag("*"), actor=ACTOR
    )
    assert changed.status_reason == "mine"
    device = changed
    world.devices.after_read = other_writer
    update = world.registry.update("hub-1", wanted(), device.etag, actor=ACTOR)
    assert await refusal(update) is Kind.PRECONDITION_FAILED


async def test_changing_to_certificates_forgets_the_keys(world: World) -> None:
    """And changing back makes new ones."""
    device = world.devices.put(a_device())
    by_ca = DeviceAuthentication(AuthenticationType.CERTIFICATE_AUTHORITY)
    changed = await world.registry.update(
        "hub-1", wanted(authentication=by_ca), device.etag, actor=ACTOR
    )
    assert changed.authentication == by_ca
    back = await world.registry.update(
        "hub-1", wanted(authentication=DeviceAuthentication(SAS)), ETag("*"), actor=ACTOR
    )
    assert back.authentication.primary_key not in {None, PRIMARY}


async def test_delete(world: World) -> None:
    """It needs the stored version or `*`."""
    device = world.devices.put(a_device())
    delete = world.registry.delete("hub-1", DEV1, new_etag(), actor=ACTOR)
    assert await refusal(delete) is Kind.PRECONDITION_FAILED
    await world.registry.delete("hub-1", DEV1, device.etag, actor=ACTOR)
    assert world.devices.devices == {}
    assert world.devices.audits[-1].action == "device.delete"


async def test_lists_and_counts(world: World) -> None:
    """Devices come by id, as many as asked for, within limits."""
    for name in ("c", "a", "b"):
        world.devices.put(a_device(name))
    world.devices.put(a_device("d", status=DeviceStatus.DISABLED))
    found = await world.registry.list("hub-1", top=2)
    assert [device.device_id for device in found] == ["a", "b"]
    assert await world.registry.statistics("hub-1") == (4, 3)
    for top in (0, -1, 1001):
        assert await refusal(world.registry.list("hub-1", top=top)) is Kind.MALFORMED


async def test_a_long_reason_is_refused(world: World) -> None:
    """The reason has at most 128 characters."""
    for length, fits in ((128, True), (129, False)):
        create = world.registry.create(
            "hub-1", wanted(f"d{length}", status_reason="x" * length), actor=ACTOR
        )
        if fits:
            await create
        else:
            assert await refusal(create) is Kind.MALFORMED


async def test_a_hub_has_room_for_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts what is stored and what is created since; deleting makes room in time."""
    monkeypatch.setattr(registry_module, "MAX_DEVICES", 3)
    world.devices.put(a_device("old"))
    for name in ("a", "b"):
        await world.registry.create("hub-1", wanted(name), actor=ACTOR)
    full = world.registry.create("hub-1", wanted("c"), actor=ACTOR)
    assert await refusal(full) is Kind.TOO_LARGE
    await world.registry.create("hub-2", wanted("c"), actor=ACTOR)
    del world.devices.devices["hub-1", "a"]
    world.clock.pass_(seconds=61)
    await world.registry.create("hub-1", wanted("c"), actor=ACTOR)
