"""Client assertions: three clients' dialects are taken, everything else is refused."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import jwt
import pytest

from muster.errors import Kind, Problem
from muster.identity.assertions import ReplayCache, VerifiedAssertion, verify_assertion

ENDPOINT = "https://localhost:8443/tenant/oauth2/v2.0/token"
ENDPOINTS = (ENDPOINT, "https://localhost:8443/tenant/")


def b64(data: bytes, *, padded: bool = False) -> str:
    """Return base64url of *data*."""
    text = base64.urlsafe_b64encode(data).decode()
    return text if padded else text.rstrip("=")


def sha1(der: bytes) -> bytes:
    """Return the digest that x5t spells."""
    return hashlib.sha1(der).digest()


@pytest.fixture
async def client(service: Any, identity: Any) -> Any:
    """The application with its certificate registered."""
    await service.applications.add_certificate(service.owner.client_id, identity.der, by="test")
    return await service.applications.get(service.owner.client_id)


def dialect(name: str, client: Any, identity: Any, now: float) -> dict[str, Any]:
    """Return algorithm, headers and claims as that client writes them."""
    base = {"aud": ENDPOINT, "iss": client.client_id, "sub": client.client_id, "jti": f"id-{name}"}
    x5c = base64.b64encode(identity.der).decode()
    if name == "python":
        return {
            "algorithm": "RS256",
            "headers": {"x5t": b64(sha1(identity.der), padded=True)},
            "payload": base | {"exp": now + 600.25, "iat": now + 0.25},
        }
    if name == "python with chain":
        return {
            "algorithm": "RS256",
            "headers": {"x5t": b64(sha1(identity.der), padded=True), "x5c": [x5c]},
            "payload": base | {"exp": now + 600.25, "iat": now + 0.25},
        }
    if name == "node":
        return {
            "algorithm": "PS256",
            "headers": {"x5t#S256": b64(hashlib.sha256(identity.der).digest())},
            "payload": base | {"exp": int(now) + 600, "iat": int(now), "nbf": int(now) + 1},
        }
    if name == "net":
        return {
            "algorithm": "PS256",
            "headers": {"x5t#S256": b64(hashlib.sha256(identity.der).digest()), "x5c": x5c},
            "payload": base | {"exp": str(int(now) + 600), "nbf": str(int(now))},
        }
    assert name == "net for adfs"
    return {
        "algorithm": "RS256",
        "headers": {"x5t": b64(sha1(identity.der)), "x5c": x5c},
        "payload": base | {"exp": str(int(now) + 600), "nbf": str(int(now))},
    }


DIALECTS = ["python", "python with chain", "node", "net", "net for adfs"]


def encode(identity: Any, parts: dict[str, Any]) -> str:
    """Sign *parts*. PyJWT refuses to write some of what the clients write, so by hand."""
    import json

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    header = {"alg": parts["algorithm"], "typ": "JWT", **parts["headers"]}
    signed = b64(json.dumps(header).encode()) + "." + b64(json.dumps(parts["payload"]).encode())
    pad: Any = padding.PKCS1v15()
    if parts["algorithm"] == "PS256":
        pad = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return f"{signed}.{b64(identity.key.sign(signed.encode(), pad, hashes.SHA256()))}"


@pytest.mark.parametrize("name", DIALECTS)
def test_every_client_is_understood(service: Any, client: Any, identity: Any, name: str) -> None:
    """facts/control-plane.md section 2.4, one row each."""
    now = service.clock.now()
    parts = dialect(name, client, identity, now.timestamp())
    verified = verify_assertion(encode(identity, parts), client, ENDPOINTS, now=now)
    assert verified.client_id == client.client_id
    assert verified.jti == f"id-{name}"
    assert verified.expires == float(parts["payload"]["exp"])


def test_ezcas_spelling_of_a_thumbprint_is_understood(
    service: Any, client: Any, identity: Any
) -> None:
    """Upper-case hexadecimal in x5t."""
    now = service.clock.now()
    parts = dialect("net for adfs", client, identity, now.timestamp())
    parts["headers"]["x5t"] = sha1(identity.der).hex().upper()
    verify_assertion(encode(identity, parts), client, ENDPOINTS, now=now)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"payload": {"aud": "https://login.microsoftonline.com/t/oauth2/v2.0/token"}}, "audience"),
        ({"payload": {"aud": None}}, "valid signed"),
        ({"payload": {"iss": "another"}}, "issuer and subject"),
        ({"payload": {"sub": "another"}}, "issuer and subject"),
        ({"payload": {"sub": 7}}, "valid signed"),
        ({"payload": {"jti": None}}, "valid signed"),
        ({"payload": {"jti": 7}}, "valid signed"),
        ({"payload": {"jti": ""}}, "jti"),
        ({"payload": {"jti": "x" * 257}}, "jti"),
        ({"payload": {"exp": None}}, "valid signed"),
        ({"payload": {"exp": "soon"}}, "exp"),
        ({"payload": {"exp": 1}}, "expired"),
        ({"payload": {"exp": 99_999_999_999}}, "exp"),
        ({"payload": {"nbf": 99_999_999_999}}, "not valid yet"),
        ({"headers": {"x5t#S256": None}}, "names no certificate"),
        ({"headers": {"x5t#S256": "AAAA"}}, "names no certificate"),
        ({"headers": {"x5t#S256": 7}}, "names no certificate"),
        ({"headers": {"x5t#S256": "\u0661"}}, "names no certificate"),
        ({"headers": {"x5t#S256": "x" * 1000}}, "names no certificate"),
        ({"headers": {"crit": ["x"], "x": 1}}, "valid signed"),
        ({"algorithm": "RS512"}, "valid signed"),
        ({"algorithm": "none"}, "valid signed"),
        ({"algorithm": "HS256"}, "valid signed"),
    ],
)
def test_a_wrong_assertion_is_refused(
    service: Any, client: Any, identity: Any, change: dict[str, Any], reason: str
) -> None:
    """Each thing that is checked, wrong by itself."""
    now = service.clock.now()
    parts = dialect("node", client, identity, now.timestamp())
    for name, value in change.items():
        parts[name] = (parts[name] | value) if isinstance(value, dict) else value
    for name in ("payload", "headers"):
        parts[name] = {key: value for key, value in parts[name].items() if value is not None}
    with pytest.raises(Problem) as caught:
        verify_assertion(encode(identity, parts), client, ENDPOINTS, now=now)
    assert caught.value.kind is Kind.UNAUTHENTICATED
    assert reason in caught.value.detail


def test_another_key_is_refused(
    service: Any, client: Any, identity: Any, another_identity: Any
) -> None:
    """Naming a registered certificate, or bringing one's own in x5c, proves nothing."""
    now = service.clock.now()
    parts = dialect("net", client, identity, now.timestamp())
    parts["headers"]["x5c"] = base64.b64encode(another_identity.der).decode()
    with pytest.raises(Problem) as caught:
        verify_assertion(encode(another_identity, parts), client, ENDPOINTS, now=now)
    assert caught.value.kind is Kind.UNAUTHENTICATED
    unregistered = dialect("net", client, another_identity, now.timestamp())
    with pytest.raises(Problem, match="names no certificate"):
        verify_assertion(encode(another_identity, unregistered), client, ENDPOINTS, now=now)


def test_an_expired_certificate_signs_nothing(service: Any, client: Any, identity: Any) -> None:
    """The registered certificate has to be valid at the moment."""
    service.clock.turn(days=40)
    now = service.clock.now()
    parts = dialect("node", client, identity, now.timestamp())
    with pytest.raises(Problem, match="expired"):
        verify_assertion(encode(identity, parts), client, ENDPOINTS, now=now)


@pytest.mark.parametrize("text", ["", "a.b.c", "x" * 100_000, "\u0661", "e30.e30.e30"])
def test_rubbish_is_refused(service: Any, client: Any, text: str) -> None:
    """Rubbish is a refusal, not a failure."""
    with pytest.raises(Problem) as caught:
        verify_assertion(text, client, ENDPOINTS, now=service.clock.now())
    assert caught.value.kind is Kind.UNAUTHENTICATED


def test_an_access_token_is_no_assertion(service: Any, client: Any) -> None:
    """A token that we signed ourselves proves nothing about the client."""
    token = service.issuer.mint(client, "https://management.azure.com", by_certificate=True)
    assert jwt.get_unverified_header(token.access_token)["x5t"]
    with pytest.raises(Problem):
        verify_assertion(token.access_token, client, ENDPOINTS, now=service.clock.now())


def test_an_assertion_counts_once_for_each_resource(service: Any) -> None:
    """MSAL for Python reuses one for other scopes; nobody needs it twice for the same."""
    now = service.clock.now()
    replays = ReplayCache()
    used = VerifiedAssertion("client", "jti", now.timestamp() + 600)
    replays.use(used, "https://management.azure.com", now=now)
    replays.use(used, "https://iothubs.azure.net", now=now)
    replays.use(
        VerifiedAssertion("another", "jti", used.expires), "https://iothubs.azure.net", now=now
    )
    for spelling in ("https://management.azure.com", "https://management.azure.com/"):
        with pytest.raises(Problem) as caught:
            replays.use(used, spelling, now=now)
        assert caught.value.kind is Kind.UNAUTHENTICATED


def test_the_replay_cache_is_bounded_and_forgets_nothing_early(service: Any) -> None:
    """When it is full of live assertions, new ones wait; expired ones make room."""
    now = service.clock.now()
    replays = ReplayCache(capacity=3)
    for number in range(3):
        replays.use(VerifiedAssertion("c", f"{number}", now.timestamp() + 600), "a", now=now)
    late = VerifiedAssertion("c", "late", now.timestamp() + 600)
    with pytest.raises(Problem) as caught:
        replays.use(late, "a", now=now)
    assert caught.value.kind is Kind.THROTTLED
    service.clock.turn(seconds=661)
    replays.use(late, "a", now=service.clock.now())
    assert len(replays._used) == 1
