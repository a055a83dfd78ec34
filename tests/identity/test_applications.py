"""Applications and their credentials."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from muster.errors import Kind, Problem
from muster.identity.applications import (
    MAX_CERTIFICATES,
    MAX_SECRETS,
    digest_secret,
    holds_secret,
    new_secret,
)
from muster.store.principals import SqlApplicationStore


def test_a_secret_has_256_random_bits() -> None:
    """Which is why a plain digest of it is enough."""
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == 43 for secret in made)


async def test_only_the_digest_is_stored(service: Any) -> None:
    """Whoever reads the database cannot sign in with what it holds."""
    application = await service.applications.get(service.owner.client_id)
    (stored,) = application.secrets
    assert stored.digest == digest_secret(service.secret)
    assert service.secret not in repr(application)


async def test_several_secrets_count_until_they_expire(service: Any) -> None:
    """A second secret can be handed out before the first is taken away."""
    client = service.owner.client_id
    short = await service.applications.add_secret(
        client, by="test", label="short", lifetime=timedelta(days=1)
    )
    application = await service.applications.get(client)
    now = service.clock.now()
    assert holds_secret(application, service.secret, now=now)
    assert holds_secret(application, short, now=now)
    assert not holds_secret(application, short, now=now + timedelta(days=1))
    assert holds_secret(application, service.secret, now=now + timedelta(days=1))
    assert not holds_secret(application, "", now=now)
    assert not holds_secret(application, "\ud800", now=now)


async def test_expired_secrets_make_room(service: Any) -> None:
    """The limit counts secrets that count."""
    client = service.owner.client_id
    for _ in range(MAX_SECRETS - 1):
        await service.applications.add_secret(client, by="test", lifetime=timedelta(hours=1))
    with pytest.raises(Problem) as caught:
        await service.applications.add_secret(client, by="test")
    assert caught.value.kind is Kind.CONFLICT
    service.clock.turn(hours=2)
    await service.applications.add_secret(client, by="test")
    assert len((await service.applications.get(client)).secrets) == 2


async def test_certificates_are_checked_and_counted(service: Any, identity: Any) -> None:
    """What is registered must be a certificate that can sign assertions, once."""
    client = service.owner.client_id
    for bad in (b"", b"garbage", identity.der + b"x", b"\x30" * 20_000):
        with pytest.raises(Problem) as caught:
            await service.applications.add_certificate(client, bad, by="test")
        assert caught.value.kind is Kind.MALFORMED
    await service.applications.add_certificate(client, identity.der, by="test")
    with pytest.raises(Problem) as caught:
        await service.applications.add_certificate(client, identity.der, by="test")
    assert caught.value.kind is Kind.CONFLICT
    assert MAX_CERTIFICATES >= 2
    await service.applications.remove_certificate(client, identity.der, by="test")
    assert (await service.applications.get(client)).certificates == ()


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00b", "a\u202eb", "x" * 121])
async def test_a_name_is_printable(service: Any, name: str) -> None:
    """Names are shown to people and put in tokens."""
    with pytest.raises(Problem) as caught:
        await service.applications.create(name, by="test")
    assert caught.value.kind is Kind.MALFORMED


async def test_an_unknown_application_is_not_found(service: Any) -> None:
    """Every change says so."""
    for call in (
        service.applications.get("nobody"),
        service.applications.delete("nobody", by="test"),
        service.applications.add_secret("nobody", by="test"),
    ):
        with pytest.raises(Problem) as caught:
            await call
        assert caught.value.kind is Kind.NOT_FOUND


async def test_an_application_that_others_keep_changing(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever loses every race is told to try again."""

    async def lose(*_: Any) -> bool:
        return False

    monkeypatch.setattr(SqlApplicationStore, "replace_application", lose)
    with pytest.raises(Problem) as caught:
        await service.applications.add_secret(service.owner.client_id, by="test")
    assert (caught.value.kind, caught.value.retry_after) == (Kind.UNAVAILABLE, 1)
