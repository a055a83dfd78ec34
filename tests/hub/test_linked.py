"""What provisioning writes at the hubs of this server, and what it may not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.hub import (
    HOST,
    NOW,
    OTHER,
    POLICY_KEY,
    POLICY_KEY_2,
    ManualClock,
    MemoryDevices,
    MemoryHubs,
    a_ca,
    a_device,
    a_hub,
    an_attempt,
    chain,
)
from tests.support.pki import Credential, TestAuthority

from muster.certs.identity import sha256_thumbprint
from muster.control.links import LinkSpecification, check_link, merge_links
from muster.errors import Kind, Problem
from muster.hub.access import admit
from muster.hub.credentials import provisioned_credentials
from muster.hub.linked import LinkedHubs
from muster.hub.registry import Registry
from muster.ids import DeviceId, new_etag
from muster.model.device import (
    AuthenticationType,
    Device,
    DeviceAuthentication,
    DeviceStatus,
    InitialTwin,
    ProvisionedDevice,
)
from muster.model.resource import Hub, LinkedHub

ROOT = TestAuthority("root")
ISSUING = ROOT.below("issuing")
LEAF = ISSUING.leaf("dev1")
BY_CA = DeviceAuthentication(AuthenticationType.CERTIFICATE_AUTHORITY)


def by_thumbprint(leaf: Credential) -> DeviceAuthentication:
    """Return what pins *leaf*."""
    return DeviceAuthentication(
        AuthenticationType.SELF_SIGNED, primary_thumbprint=sha256_thumbprint(chain(leaf)[0])
    )


def provisioned(leaf: Credential = LEAF, length: int = 2, **fields: object) -> ProvisionedDevice:
    """Return a device that was attested."""
    return ProvisionedDevice(DeviceId("dev1"), chain(leaf, length), **fields)  # type: ignore[arg-type]  # test helper


def link(
    host: str = HOST, key: str = POLICY_KEY, policy: str = "iothubowner", text: str | None = None
) -> LinkedHub:
    """Return a link by connection string."""
    made = f"HostName={host};SharedAccessKeyName={policy};SharedAccessKey={key}"
    return LinkedHub(host, made if text is None else text, "here")


class World:
    """Two hubs over stores in memory; the first knows the root."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.devices = MemoryDevices()
        self.first = a_hub(ROOT)
        self.second = a_hub(hub_id="hub-2", hostname="hub2.example")
        self.hubs = MemoryHubs(self.first, self.second)
        registry = Registry(self.devices, self.clock)
        self.linked = LinkedHubs(registry, self.devices, self.hubs, self.clock)

    def stored(self, hub_id: str = "hub-1") -> Device:
        """Return the device at that hub."""
        return self.devices.devices[hub_id, "dev1"]


@pytest.fixture
def world() -> World:
    """Two hubs without devices."""
    return World()


# What is written of the certificates (docs/decisions/0011) --------------------------------------

WRITTEN = {
    "the hub knows the root": (a_hub(ROOT), provisioned(), BY_CA),
    "the hub knows the issuing CA": (a_hub(ISSUING), provisioned(length=1), BY_CA),
    "the hub knows no CA": (a_hub(), provisioned(), by_thumbprint(LEAF)),
    "the hub has not verified it": (
        a_hub(certificates=(a_ca(ROOT, verified=False),)),
        provisioned(),
        by_thumbprint(LEAF),
    ),
    "the chain is incomplete for the hub": (
        a_hub(ROOT),
        provisioned(length=1),
        by_thumbprint(LEAF),
    ),
    "the device is named otherwise": (
        a_hub(ROOT),
        ProvisionedDevice(DeviceId("renamed"), chain(LEAF, 2)),
        by_thumbprint(LEAF),
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_of_the_certificates(name: str) -> None:
    """The CA where the hub would let the device in by it, the thumbprint where it would not."""
    hub, device, written = WRITTEN[name]
    assert provisioned_credentials(hub, device, now=NOW) == written


@pytest.mark.parametrize("hub", [a_hub(ROOT), a_hub()], ids=["by CA", "by thumbprint"])
async def test_the_device_gets_in_with_what_was_written(hub: Hub) -> None:
    """Whatever form it takes, the attested chain opens a session at once."""
    world = World()
    world.hubs.hubs[0] = hub
    await world.linked.ensure_device(link(), provisioned())
    attempt = an_attempt(password=None, chain=chain(LEAF, 2))
    admit(hub, world.stored(), attempt, now=NOW)


async def test_a_renewed_certificate_needs_no_second_provisioning(world: World) -> None:
    """A device known by its CA is let in with its next certificate as it is."""
    await world.linked.ensure_device(link(), provisioned())
    attempt = an_attempt(password=None, chain=chain(ISSUING.leaf("dev1"), 2))
    admit(world.first, world.stored(), attempt, now=NOW)


def test_a_device_without_a_certificate_is_not_linked() -> None:
    """There would be nothing to know it by."""
    with pytest.raises(Problem) as caught:
        provisioned_credentials(a_hub(), ProvisionedDevice(DeviceId("d"), ()), now=NOW)
    assert caught.value.kind is Kind.UNSUPPORTED


# Ensuring ---------------------------------------------------------------------------------------


async def test_a_new_device_begins_with_its_initial_twin(world: World) -> None:
    """Tags, desired properties and capabilities come from the enrolment, once."""
    twin = InitialTwin({"site": "a"}, {"period": 5})
    device = provisioned(iot_edge=True, initial_twin=twin)
    await world.linked.ensure_device(link(), device)
    stored = world.stored()
    assert (stored.tags, stored.desired, stored.iot_edge) == ({"site": "a"}, {"period": 5}, True)
    assert (stored.status, stored.authentication) == (DeviceStatus.ENABLED, BY_CA)
    (line,) = world.devices.audits
    assert (line.actor, line.detail["by"]) == ("policy:iothubowner", "provisioning")


async def test_repeating_changes_nothing(world: World) -> None:
    """The second call writes nothing: no version, no audit line."""
    await world.linked.ensure_device(link(), provisioned())
    before = world.stored()
    await world.linked.ensure_device(link(), provisioned())
    assert world.stored() is before
    assert len(world.devices.audits) == 1


async def test_an_existing_device_keeps_what_is_its_own(world: World) -> None:
    """Credentials change; generation, status and twin do not, and nobody is enabled again."""
    world.devices.put(
        a_device(status=DeviceStatus.DISABLED, status_reason="stolen", tags={"mine": 1})
    )
    before = world.stored()
    await world.linked.ensure_device(link(), provisioned(initial_twin=InitialTwin({"site": "a"})))
    after = world.stored()
    assert after.authentication == BY_CA
    assert after.etag != before.etag
    assert (after.generation_id, after.status, after.status_reason, after.tags) == (
        before.generation_id, DeviceStatus.DISABLED, "stolen", {"mine": 1},
    )  # fmt: skip


async def test_a_new_certificate_replaces_the_old_thumbprint(world: World) -> None:
    """At a hub that does not know the CA, the old certificate no longer lets anybody in."""
    await world.linked.ensure_device(link("hub2.example"), provisioned())
    renewed = ISSUING.leaf("dev1")
    await world.linked.ensure_device(link("hub2.example"), provisioned(renewed))
    assert world.stored("hub-2").authentication == by_thumbprint(renewed)


async def test_races_settle_on_one_device(world: World) -> None:
    """When another writer is faster, what it wrote is brought up to date."""
    world.devices.after_read = lambda: world.devices.put(a_device())
    await world.linked.ensure_device(link(), provisioned())
    assert world.stored().authentication == BY_CA
    assert world.stored().generation_id == "generation-1"


async def test_a_device_that_never_stands_still(world: World) -> None:
    """Giving up is said to be temporary."""

    def change() -> None:
        world.devices.put(a_device(etag=new_etag()))
        world.devices.after_read = change

    world.devices.after_read = change
    with pytest.raises(Problem) as caught:
        await world.linked.ensure_device(link(), provisioned())
    assert (caught.value.kind, caught.value.retry_after) == (Kind.UNAVAILABLE, 1)


LINKS = {
    "a remote hub": (link("elsewhere.azure-devices.net"), Kind.NOT_FOUND),
    "a wrong key": (link(key=OTHER), Kind.FORBIDDEN),
    "no key": (link(key=""), Kind.FORBIDDEN),
    "a policy without the right": (link(policy="registryRead"), Kind.FORBIDDEN),
    "an unknown policy": (link(policy="nobody"), Kind.FORBIDDEN),
    "no connection string": (link(text=""), Kind.FORBIDDEN),
    "an odd connection string": (link(text=";=;a=b;SharedAccessKey"), Kind.FORBIDDEN),
}


@pytest.mark.parametrize("name", LINKS)
async def test_a_link_needs_a_current_key(world: World, name: str) -> None:
    """A link that may not write the registry writes nothing, and tells no key."""
    bad, kind = LINKS[name]
    with pytest.raises(Problem) as caught:
        await world.linked.ensure_device(bad, provisioned())
    assert caught.value.kind is kind
    assert OTHER not in caught.value.detail
    assert world.devices.devices == {}


async def test_the_second_key_will_do(world: World) -> None:
    """Keys are rotated one after the other."""
    await world.linked.ensure_device(link(key=POLICY_KEY_2), provisioned())
    assert world.stored().device_id == "dev1"


@pytest.mark.parametrize(
    "text",
    [
        f"hostname={HOST};SHAREDACCESSKEYNAME=iothubowner;sharedaccesskey={POLICY_KEY}",
        f" HostName = {HOST} ; SharedAccessKey = {POLICY_KEY} ;SharedAccessKeyName= iothubowner;",
    ],
)
async def test_a_link_that_can_be_made_can_be_used(world: World, text: str) -> None:
    """However the control plane lets a connection string be spelled, devices come by it."""
    (made,) = merge_links([LinkSpecification(text, location="here")], [])
    check_link(made, world.first, ours=True)
    await world.linked.ensure_device(made, provisioned())
    assert world.stored().device_id == "dev1"


# Moving and resetting ---------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
async def test_a_moved_device_is_at_one_hub(world: World, keep: bool) -> None:
    """It takes its twin along if it is to, and its status always."""
    world.devices.put(
        a_device(status=DeviceStatus.DISABLED, tags={"mine": 1}, desired={"p": 2}, iot_edge=True)
    )
    device = provisioned(initial_twin=InitialTwin({"site": "a"}))
    await world.linked.move_device(link(), link("hub2.example"), device, keep_data=keep)
    moved = world.stored("hub-2")
    assert ("hub-1", "dev1") not in world.devices.devices
    assert moved.status is DeviceStatus.DISABLED
    assert (moved.tags, moved.desired, moved.iot_edge) == (
        ({"mine": 1}, {"p": 2}, True) if keep else ({"site": "a"}, {}, False)
    )
    assert moved.authentication == by_thumbprint(LEAF)
    await world.linked.move_device(link(), link("hub2.example"), device, keep_data=keep)
    assert world.stored("hub-2") == moved


async def test_a_move_that_broke_off_is_finished(world: World) -> None:
    """With the device at both hubs, repeating leaves it at one, and disabled if it was."""
    world.devices.put(a_device(status=DeviceStatus.DISABLED))
    world.devices.put(a_device(hub_id="hub-2", tags={"kept": 1}))
    await world.linked.move_device(link(), link("hub2.example"), provisioned(), keep_data=True)
    assert ("hub-1", "dev1") not in world.devices.devices
    assert world.stored("hub-2").status is DeviceStatus.DISABLED
    assert world.stored("hub-2").tags == {"kept": 1}


async def test_a_move_from_a_hub_that_is_gone(world: World) -> None:
    """There is nothing to bring along, and nothing to remove."""
    gone = link("gone.example")
    await world.linked.move_device(gone, link("hub2.example"), provisioned(), keep_data=True)
    assert world.stored("hub-2").status is DeviceStatus.ENABLED


async def test_a_move_needs_both_keys(world: World) -> None:
    """A link that may not delete at the origin moves nothing."""
    world.devices.put(a_device())
    for origin, target in (
        (link(key=OTHER), link("hub2.example")),
        (link(), link("hub2.example", OTHER)),
    ):
        with pytest.raises(Problem) as caught:
            await world.linked.move_device(origin, target, provisioned(), keep_data=True)
        assert caught.value.kind is Kind.FORBIDDEN
    assert set(world.devices.devices) == {("hub-1", "dev1")}


@pytest.mark.parametrize("exists", [True, False])
async def test_a_reset_device_begins_again(world: World, exists: bool) -> None:
    """Its twin is the enrolment's again; its status and generation stay."""
    if exists:
        world.devices.put(a_device(status=DeviceStatus.DISABLED, tags={"mine": 1}))
    device = provisioned(initial_twin=InitialTwin({"site": "a"}, {"p": 1}))
    await world.linked.reset_device(link(), device)
    stored = world.stored()
    assert (stored.tags, stored.desired) == ({"site": "a"}, {"p": 1})
    if exists:
        assert (stored.status, stored.generation_id) == (DeviceStatus.DISABLED, "generation-1")


async def test_an_expired_leaf_is_not_known_by_its_ca() -> None:
    """What the hub would refuse is not what it is told to expect."""
    old = ISSUING.leaf("dev1", begins=timedelta(days=-9), ends=timedelta(days=-1))
    assert old.certificate.public_bytes(Encoding.DER) == chain(old)[0]
    assert provisioned_credentials(a_hub(ROOT), provisioned(old), now=NOW) == by_thumbprint(old)
