"""Provisioning services: made, linked, changed and deleted."""

from __future__ import annotations

import re
from typing import Any

import pytest

from muster.control.links import LinkSpecification
from muster.control.placement import Precondition
from muster.control.services import MAX_SERVICES
from muster.errors import Kind, Problem
from muster.ids import ETag
from muster.model.resource import AllocationPolicy, Right
from muster.protocols.connection_string import mask_connection_string

ANY = Precondition()


async def put(control: Any, name: str = "line7", **changes: Any) -> Any:
    """Put a provisioning service; return it."""
    service, _ = await control.services.put(
        control.at(name), control.service(**changes), precondition=ANY, by="me"
    )
    return service


async def kind_of(call: Any) -> Kind:
    """Return why *call* is refused."""
    with pytest.raises(Problem) as caught:
        await call
    return caught.value.kind


async def connection_string(control: Any, name: str = "plant", policy: str = "iothubowner") -> str:
    """Make a hub; return a connection string of it."""
    hub, _ = await control.hubs.put(control.at(name), control.hub(), precondition=ANY, by="me")
    key = hub.policy(policy).primary_key
    return f"HostName={hub.hostname};SharedAccessKeyName={policy};SharedAccessKey={key}"


async def test_a_new_service_has_all_it_needs(control: Any) -> None:
    """An id scope, an owner's keys, a host that it may share."""
    service = await put(control)
    assert re.fullmatch("0ne[0-9A-F]{8}", service.id_scope)
    assert service.hostname == "localhost"
    assert service.allocation_policy is AllocationPolicy.HASHED
    assert Right.ENROLLMENT_WRITE in service.policy("provisioningserviceowner").rights
    other = await put(control, "line8")
    assert other.hostname == "localhost"
    assert other.id_scope != service.id_scope
    found = await control.store.find_services_by_host("LOCALHOST:8443")
    assert {one.address.name for one in found} == {"line7", "line8"}


async def test_links_are_kept_replaced_and_cleared(control: Any) -> None:
    """Left out: kept. Masked: kept. An empty list: gone."""
    string = await connection_string(control)
    link = LinkSpecification(string, location="local")
    linked = await put(control, links=(link,))
    assert linked.linked_hub("LOCALHOST").connection_string == string
    assert (await put(control)).linked_hubs == linked.linked_hubs
    masked = LinkSpecification(mask_connection_string(string))
    assert (await put(control, links=(masked,))).linked_hubs == linked.linked_hubs
    assert (await put(control, links=())).linked_hubs == ()


async def test_a_link_needs_a_hub_and_its_key(control: Any) -> None:
    """Of hosts that are ours; a hub elsewhere is taken at its word."""
    good = await connection_string(control)
    for wrong in (
        good.replace("localhost", "127.0.0.9"),
        good.replace("localhost", "nothing.localhost"),
        good.replace("SharedAccessKey=", "SharedAccessKey=AAAA"),
        await connection_string(control, policy="device"),
    ):
        call = put(control, links=(LinkSpecification(wrong, location="local"),))
        assert await kind_of(call) is Kind.MALFORMED
    elsewhere = good.replace("localhost", "plant.azure-devices.net")
    linked = await put(control, links=(LinkSpecification(elsewhere, location="westus"),))
    assert linked.linked_hubs[0].hostname == "plant.azure-devices.net"


async def test_a_link_survives_its_hub(control: Any) -> None:
    """An update of something else does not fail because a linked hub is gone."""
    string = await connection_string(control)
    await put(control, links=(LinkSpecification(string, location="local"),))
    await control.hubs.delete(control.at("plant"), precondition=ANY, by="me")
    masked = LinkSpecification(mask_connection_string(string))
    after = await put(control, links=(masked,), allocation_policy="static")
    assert after.allocation_policy is AllocationPolicy.STATIC
    assert len(after.linked_hubs) == 1


@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("a", {}, Kind.MALFORMED),
        ("line7", {"document": {"location": "l", "sku": {"name": "B1"}}}, Kind.MALFORMED),
        ("line7", {"allocation_policy": "Random"}, Kind.MALFORMED),
        ("line7", {"links": (LinkSpecification(),)}, Kind.MALFORMED),
    ],
)
async def test_bad_services_are_refused(
    control: Any, name: str, changes: dict[str, Any], kind: Kind
) -> None:
    """And nothing is stored."""
    assert await kind_of(put(control, name, **changes)) is kind
    assert await control.services.list(control.subscription_id) == []


async def test_an_update_keeps_scope_and_keys(control: Any) -> None:
    """Devices have the scope burnt in."""
    before = await put(control)
    after = await put(control)
    assert (after.id, after.id_scope, after.policies) == (
        before.id,
        before.id_scope,
        before.policies,
    )
    tagged = await control.services.set_tags(control.at("line7"), {"a": "b"}, by="me")
    assert tagged.document["tags"] == {"a": "b"}


async def test_preconditions_limits_and_deletion(control: Any) -> None:
    """As for hubs."""
    for number in range(MAX_SERVICES):
        await put(control, f"line{number}")
    assert await kind_of(put(control, "more")) is Kind.CONFLICT
    place = control.at("line0")
    stale = Precondition(if_match=ETag("old"))
    assert await kind_of(control.services.delete(place, precondition=stale, by="me")) is (
        Kind.PRECONDITION_FAILED
    )
    assert await control.services.delete(place, precondition=ANY, by="me")
    assert not await control.services.delete(place, precondition=ANY, by="me")
    assert await kind_of(control.services.get(place)) is Kind.NOT_FOUND
    assert await control.services.is_name_free("line0")
    assert not await control.services.is_name_free("LINE1")
