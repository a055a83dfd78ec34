"""Hubs: made, changed, raced for and deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from muster.control.certificates import CertificateManager
from muster.control.hostnames import HOSTNAME_TAG
from muster.control.hubs import MAX_CONSUMER_GROUPS, MAX_HUBS
from muster.control.placement import Precondition
from muster.control.policies import PolicySpecification
from muster.errors import Kind, Problem
from muster.ids import ETag
from muster.model.resource import ResourceAddress
from muster.store.audit import audit
from muster.store.outbox import outbox

ANY = Precondition()


async def put(control: Any, name: str, **changes: Any) -> Any:
    """Put a hub; return it."""
    hub, _ = await control.hubs.put(
        control.at(name), control.hub(**changes), precondition=ANY, by="me"
    )
    return hub


async def kind_of(call: Any) -> Kind:
    """Return why *call* is refused."""
    with pytest.raises(Problem) as caught:
        await call
    return caught.value.kind


async def test_a_new_hub_has_all_it_needs(control: Any) -> None:
    """Keys, partitions, a host name; and nobody sees a key in its representation."""
    hub, new = await control.hubs.put(control.at("plant"), control.hub(), precondition=ANY, by="me")
    assert new
    assert hub.hostname == "localhost"
    assert (hub.partition_count, hub.retention_days) == (4, 1)
    assert hub.consumer_groups == ("$Default",)
    assert hub.policy("iothubowner") is not None
    assert hub.policies[0].primary_key not in repr(hub)
    assert await control.hubs.get(control.at("PLANT", "MUSTER")) == hub


async def test_each_change_is_audited_and_told(control: Any) -> None:
    """One audit line and one notice for each change, and none for what changed nothing."""
    await put(control, "plant")
    await put(control, "plant")
    await control.hubs.set_tags(control.at("plant"), {"a": "b"}, by="me")
    await control.hubs.add_consumer_group(control.at("plant"), "lab", by="me")
    await control.hubs.add_consumer_group(control.at("plant"), "LAB", by="me")
    await control.hubs.delete(control.at("plant"), precondition=ANY, by="me")
    assert not await control.hubs.delete(control.at("plant"), precondition=ANY, by="me")

    def lines(connection: Any) -> Any:
        return (
            [row.action for row in connection.execute(select(audit).order_by(audit.c.id))],
            [row.topic for row in connection.execute(select(outbox).order_by(outbox.c.id))],
        )

    actions, topics = await control.database.read(lines)
    assert actions == [
        "subscription.create",
        "hub.create",
        "hub.update",
        "hub.update",
        "hub.add-consumer-group",
        "hub.delete",
    ]
    assert topics == ["hub.changed"] * 4 + ["hub.deleted"]


async def test_an_update_keeps_keys_partitions_and_certificates(
    control: Any, make_authority: Any
) -> None:
    """After a GET, which shows no keys, a PUT brings none."""
    before = await put(control, "plant", retention_days=3)
    import base64

    text = base64.b64encode(make_authority().der).decode()
    await CertificateManager(control.hubs, control.clock).put(
        control.at("plant"), "ca", text, verified=True, precondition=Precondition(), by="me"
    )
    after = await put(control, "plant", partition_count=4)
    assert after.policies == before.policies
    assert after.retention_days == 3
    assert after.id == before.id
    assert len(after.verified_certificates) == 1
    assert await kind_of(put(control, "plant", partition_count=8)) is Kind.MALFORMED


@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("a", {}, Kind.MALFORMED),
        ("plant", {"document": {}}, Kind.MALFORMED),
        ("plant", {"partition_count": 1}, Kind.MALFORMED),
        ("plant", {"partition_count": 33}, Kind.MALFORMED),
        ("plant", {"retention_days": 0}, Kind.MALFORMED),
        ("plant", {"retention_days": 8}, Kind.MALFORMED),
        ("plant", {"policies": (PolicySpecification("a", "Everything"),)}, Kind.MALFORMED),
    ],
)
async def test_bad_hubs_are_refused(
    control: Any, name: str, changes: dict[str, Any], kind: Kind
) -> None:
    """And nothing is stored."""
    assert await kind_of(put(control, name, **changes)) is kind
    assert await control.hubs.list(control.subscription_id) == []


async def test_places_have_to_exist(control: Any) -> None:
    """A hub stands in a group of a subscription."""
    for address in (control.at("plant", "nowhere"), ResourceAddress("no", "muster", "plant")):
        call = control.hubs.put(address, control.hub(), precondition=ANY, by="me")
        assert await kind_of(call) is Kind.NOT_FOUND
    assert await kind_of(control.hubs.get(control.at("plant"))) is Kind.NOT_FOUND
    await put(control, "plant")
    assert await kind_of(control.hubs.get(control.at("plant", "other"))) is Kind.NOT_FOUND


async def test_preconditions_are_kept(control: Any) -> None:
    """If-Match names a version, If-None-Match wants none."""
    hub = await put(control, "plant")

    def conditional(name: str, precondition: Precondition) -> Any:
        return control.hubs.put(control.at(name), control.hub(), precondition=precondition, by="me")

    stale = Precondition(if_match=ETag("old"))
    assert await kind_of(conditional("plant", stale)) is Kind.PRECONDITION_FAILED
    assert await kind_of(conditional("fresh", stale)) is Kind.PRECONDITION_FAILED
    must_be_new = Precondition(must_be_new=True)
    assert await kind_of(conditional("plant", must_be_new)) is Kind.PRECONDITION_FAILED
    await conditional("fresh", must_be_new)
    await conditional("plant", Precondition(if_match=hub.etag))
    deletion = control.hubs.delete(control.at("plant"), precondition=stale, by="me")
    assert await kind_of(deletion) is Kind.PRECONDITION_FAILED
    everything = Precondition(if_match=ETag("*"))
    assert await control.hubs.delete(control.at("plant"), precondition=everything, by="me")


async def test_hubs_made_at_once_get_hostnames_of_their_own(control: Any) -> None:
    """Whoever loses the race for `localhost` gets the next address."""
    made = await asyncio.gather(*(put(control, f"plant{number}") for number in range(4)))
    assert {hub.hostname for hub in made} == {
        "localhost",
        "127.0.0.2",
        "127.0.0.3",
        "127.0.0.4",
    }


async def test_one_name_is_made_once(control: Any) -> None:
    """Many creations of one name make one hub, and one of them is told that it is new."""
    calls = (
        control.hubs.put(control.at("plant"), control.hub(), precondition=ANY, by="me")
        for _ in range(4)
    )
    results = await asyncio.gather(*calls)
    assert sorted(new for _, new in results) == [False, False, False, True]
    assert len({hub.id for hub, _ in results}) == 1


async def test_the_hostname_tag_moves_a_hub(control: Any) -> None:
    """To a name that is free; without the tag it stays where it is."""
    await put(control, "first")
    await put(control, "second")
    moved = await control.hubs.set_tags(
        control.at("second"), {HOSTNAME_TAG: "hub.plant.example"}, by="me"
    )
    assert moved.hostname == "hub.plant.example"
    again = await control.hubs.set_tags(control.at("second"), {}, by="me")
    assert again.hostname == "hub.plant.example"
    taken = control.hubs.set_tags(control.at("second"), {HOSTNAME_TAG: "localhost"}, by="me")
    assert await kind_of(taken) is Kind.CONFLICT


async def test_a_subscription_gets_full(control: Any) -> None:
    """At the public service's limit."""
    for number in range(MAX_HUBS):
        await put(control, f"plant{number}")
    assert await kind_of(put(control, "more")) is Kind.CONFLICT
    await put(control, "plant7")


async def test_consumer_groups_are_bounded(control: Any) -> None:
    """$Default stays; names are compared without case."""
    await put(control, "plant")
    place = control.at("plant")
    for number in range(MAX_CONSUMER_GROUPS - 1):
        await control.hubs.add_consumer_group(place, f"lab{number}", by="me")
    assert await control.hubs.add_consumer_group(place, "LAB0", by="me") == "lab0"
    assert await control.hubs.add_consumer_group(place, "$default", by="me") == "$Default"
    assert await kind_of(control.hubs.add_consumer_group(place, "x", by="me")) is Kind.CONFLICT
    assert await kind_of(control.hubs.add_consumer_group(place, "a b", by="me")) is Kind.MALFORMED
    await control.hubs.delete_consumer_group(place, "Lab0", by="me")
    await control.hubs.delete_consumer_group(place, "Lab0", by="me")
    deletion = control.hubs.delete_consumer_group(place, "$DEFAULT", by="me")
    assert await kind_of(deletion) is Kind.CONFLICT
    assert len((await control.hubs.get(place)).consumer_groups) == MAX_CONSUMER_GROUPS - 1


async def test_certificates_changed_at_once_are_all_kept(control: Any, make_authority: Any) -> None:
    """A change that somebody overtook is made again on top of theirs."""
    import base64

    await put(control, "plant")
    manager = CertificateManager(control.hubs, control.clock)
    text = base64.b64encode(make_authority().der).decode()
    uploads = (
        manager.put(
            control.at("plant"), f"ca{n}", text, verified=True, precondition=Precondition(), by="me"
        )
        for n in range(4)
    )
    results = await asyncio.gather(*uploads)
    assert all(new for _, new in results)
    assert len(await manager.list(control.at("plant"))) == 4


async def test_name_checks(control: Any) -> None:
    """Free, taken, impossible."""
    await put(control, "plant")
    assert not await control.hubs.is_name_free("PLANT")
    assert await control.hubs.is_name_free("plant2")
    assert await kind_of(control.hubs.is_name_free("a")) is Kind.MALFORMED
    counts = await control.hubs.count_devices(control.at("plant"))
    assert (counts.total, counts.enabled) == (3, 2)
