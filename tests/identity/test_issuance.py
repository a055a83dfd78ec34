"""Who gets a token, and who does not."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import jwt
import pytest

from muster.errors import Kind, Problem
from muster.identity.issuance import ClientProof, ManagedIdentity
from muster.model.principal import PrincipalKind

ARM = "https://management.azure.com"


def assertion(service: Any, identity: Any, jti: str = "1") -> str:
    """Return an assertion of the owner's."""
    client = service.owner.client_id
    now = service.clock.now().timestamp()
    thumbprint = base64.urlsafe_b64encode(hashlib.sha1(identity.der).digest()).decode()
    claims = {
        "aud": service.issuer.token_endpoints()[0],
        "iss": client,
        "sub": client,
        "jti": jti,
        "exp": now + 600,
    }
    return jwt.encode(claims, identity.key, algorithm="RS256", headers={"x5t": thumbprint})


async def refused(service: Any, client_id: str, proof: ClientProof) -> Problem:
    """Return why no token was granted."""
    with pytest.raises(Problem) as caught:
        await service.credentials.grant(client_id, proof, ARM)
    return caught.value


async def test_a_secret_earns_a_token(service: Any) -> None:
    """The client id is compared without case."""
    for client_id in (service.owner.client_id, service.owner.client_id.upper()):
        issued = await service.credentials.grant(client_id, ClientProof(secret=service.secret), ARM)
        principal = await service.validator.validate(issued.access_token, {ARM})
        assert principal.object_id == service.owner.object_id
        assert service.secret not in repr(issued)


async def test_an_assertion_earns_one_token(service: Any, identity: Any) -> None:
    """Once; and the token says that a certificate was used."""
    await service.applications.add_certificate(service.owner.client_id, identity.der, by="test")
    proof = ClientProof(assertion=assertion(service, identity))
    issued = await service.credentials.grant(service.owner.client_id, proof, ARM)
    claims = jwt.decode(issued.access_token, options={"verify_signature": False})
    assert claims["appidacr"] == "2"
    assert "before" in (await refused(service, service.owner.client_id, proof)).detail


async def test_unknown_disabled_and_wrong_sound_alike(service: Any) -> None:
    """A secret cannot be used to learn which clients there are."""
    another = await service.applications.create("Another", by="test")
    wrong = [
        await refused(service, "nobody", ClientProof(secret="x")),
        await refused(service, service.owner.client_id, ClientProof(secret="x")),
        await refused(service, another.client_id, ClientProof(secret=service.secret)),
    ]
    await service.applications.set_enabled(service.owner.client_id, enabled=False, by="test")
    wrong.append(
        await refused(service, service.owner.client_id, ClientProof(secret=service.secret))
    )
    assert {problem.kind for problem in wrong} == {Kind.UNAUTHENTICATED}
    assert len({problem.detail for problem in wrong}) == 1


@pytest.mark.parametrize("proof", [ClientProof(), ClientProof(secret="a", assertion="b")])
async def test_there_is_exactly_one_proof(service: Any, proof: ClientProof) -> None:
    """RFC 6749 section 2.3: a client must not use more than one method."""
    problem = await refused(service, service.owner.client_id, proof)
    assert problem.kind is Kind.MALFORMED


async def test_a_managed_identity_has_its_own_door_only(service: Any) -> None:
    """Its header secret is worth nothing at the token endpoint, which is not on loopback."""
    made = await service.applications.create(
        "Local", by="test", kind=PrincipalKind.MANAGED_IDENTITY
    )
    header = await service.applications.add_secret(made.client_id, by="test")
    assert (
        await refused(service, made.client_id, ClientProof(secret=header))
    ).kind is Kind.UNAUTHENTICATED

    local = ManagedIdentity(service.store, service.issuer, service.clock, client_id=made.client_id)
    issued = await local.token_for_header(header, ARM, client_id=None)
    principal = await service.validator.validate(issued.access_token, {ARM})
    assert principal.object_id == made.object_id
    await local.token(ARM, client_id=made.client_id.upper())

    for call, kind in (
        (local.token_for_header("wrong", ARM, client_id=None), Kind.UNAUTHENTICATED),
        (local.token_for_header("", ARM, client_id=None), Kind.UNAUTHENTICATED),
        (local.token_for_header(header, ARM, client_id="another"), Kind.NOT_FOUND),
        (local.token(ARM, client_id=service.owner.client_id), Kind.NOT_FOUND),
    ):
        with pytest.raises(Problem) as caught:
            await call
        assert caught.value.kind is kind
    await service.applications.set_enabled(made.client_id, enabled=False, by="test")
    with pytest.raises(Problem):
        await local.token(ARM, client_id=None)
