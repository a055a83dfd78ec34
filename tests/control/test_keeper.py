"""What holds for every kind of resource: races, audit, and what is refused alike."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from muster.control.hubs import Hubs
from muster.control.placement import Precondition
from muster.control.services import ProvisioningServices
from muster.errors import Kind, Problem
from muster.ids import new_etag
from muster.store.audit import audit
from muster.store.resources import SqlResourceStore

ANY = Precondition()


class RivalledStore(SqlResourceStore):
    """A store in which somebody else is always faster."""

    lost = 0

    async def _lose(self, *_: Any) -> bool:
        self.lost += 1
        return False

    replace_hub = replace_service = delete_hub = delete_service = _lose


@pytest.fixture(params=["hub", "service"])
def word(request: pytest.FixtureRequest) -> str:
    """Each kind of resource."""
    return str(request.param)


def keeper(control: Any, word: str, store: Any = None) -> Any:
    """Return what keeps that kind, in *store*."""
    if store is None:
        return control.hubs if word == "hub" else control.services
    if word == "hub":
        return Hubs(store, control.subscriptions, control.hubs, control.clock, domain="localhost")
    return ProvisioningServices(
        store, store, control.subscriptions, control.clock, domain="localhost"
    )


def wanted(control: Any, word: str) -> Any:
    """Return a good specification of that kind."""
    return control.hub() if word == "hub" else control.service()


async def refusal(call: Any) -> Problem:
    """Return why *call* is refused."""
    with pytest.raises(Problem) as caught:
        await call
    return caught.value


async def test_whoever_loses_every_race_may_try_again(control: Any, word: str) -> None:
    """Whatever the change was, it gives up after a few attempts and says that it is temporary."""
    place = control.at("plant")
    await keeper(control, word).put(place, wanted(control, word), precondition=ANY, by="me")
    store = RivalledStore(control.database, own_names=["localhost"])
    rivalled = keeper(control, word, store)
    for count, call in enumerate(
        (
            rivalled.put(place, wanted(control, word), precondition=ANY, by="me"),
            rivalled.set_tags(place, {"site": "north"}, by="me"),
            rivalled.delete(place, precondition=ANY, by="me"),
        ),
        start=1,
    ):
        problem = await refusal(call)
        assert (problem.kind, problem.retry_after) == (Kind.UNAVAILABLE, 1)
        assert "'plant'" in problem.detail
        assert store.lost == 5 * count


async def test_every_change_is_audited_under_its_kind(control: Any, word: str) -> None:
    """Making, changing and deleting; what changes nothing leaves no line."""
    place = control.at("plant")
    kept = keeper(control, word)
    await kept.put(place, wanted(control, word), precondition=ANY, by="ada")
    await kept.put(place, wanted(control, word), precondition=ANY, by="ada")
    await kept.change_certificates(
        place, lambda same: same, action="certificate.delete", certificate="ca", by="ada"
    )
    await kept.delete(place, precondition=ANY, by="ada")
    rows = await control.database.read(
        lambda connection: connection.execute(
            select(audit.c.actor, audit.c.action)
            .where(audit.c.subject == f"{word}:plant")
            .order_by(audit.c.id)
        ).all()
    )
    assert [tuple(row) for row in rows] == [
        ("ada", f"{word}.create"),
        ("ada", f"{word}.update"),
        ("ada", f"{word}.delete"),
    ]


async def test_another_group_s_resource_is_not_found(control: Any, word: str) -> None:
    """Neither read nor deleted, and its name is not free."""
    kept = keeper(control, word)
    await kept.put(control.at("plant"), wanted(control, word), precondition=ANY, by="me")
    elsewhere = control.at("plant", "other")
    assert (await refusal(kept.get(elsewhere))).kind is Kind.NOT_FOUND
    assert (await refusal(kept.keys(elsewhere))).kind is Kind.NOT_FOUND
    assert not await kept.delete(elsewhere, precondition=ANY, by="me")
    assert not await kept.is_name_free("PLANT")
    assert (await refusal(kept.is_name_free("a b"))).kind is Kind.MALFORMED
    assert (await kept.get(control.at("PLANT", "MUSTER"))).address.name == "plant"


async def test_a_named_version_is_not_tried_again(control: Any, word: str) -> None:
    """Whoever named the version it saw hears that it is gone."""
    kept = keeper(control, word)
    await kept.put(control.at("plant"), wanted(control, word), precondition=ANY, by="me")
    stale = Precondition(if_match=new_etag())
    for call in (
        kept.put(control.at("plant"), wanted(control, word), precondition=stale, by="me"),
        kept.delete(control.at("plant"), precondition=stale, by="me"),
    ):
        assert (await refusal(call)).kind is Kind.PRECONDITION_FAILED
