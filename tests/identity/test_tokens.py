"""Access tokens: ours are accepted, and no trick of RFC 8725 is."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.identity.tokens import MAX_TOKEN_LENGTH
from muster.model.principal import Role

ARM = "https://management.azure.com"
AUDIENCES = frozenset({ARM, ARM + "/"})


def claims_of(service: Any, **changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, but for *changes* (None: left out)."""
    token = service.issuer.mint(service.owner, ARM, by_certificate=False).access_token
    claims = jwt.decode(token, options={"verify_signature": False}) | changes
    return {name: value for name, value in claims.items() if value is not None}


def b64(value: bytes | dict[str, Any]) -> str:
    """Return *value* as a part of a compact token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def refusal(service: Any, token: str) -> str:
    """Return why *token* was refused."""
    with pytest.raises(Problem) as caught:
        await service.validator.validate(token, AUDIENCES)
    assert caught.value.kind is Kind.UNAUTHENTICATED
    return caught.value.detail


async def test_a_token_tells_who_calls(service: Any) -> None:
    """The caller is the application, with the roles that are stored."""
    token = service.issuer.mint(service.owner, ARM, by_certificate=False)
    principal = await service.validator.validate(token.access_token, AUDIENCES)
    assert principal == service.owner.principal
    assert principal.roles == {Role.OWNER}


async def test_a_token_has_what_clients_read(service: Any) -> None:
    """Version 1.0's claims, oid and upn for EZCA's clients among them."""
    issued = service.issuer.mint(service.owner, ARM + "/", by_certificate=True)
    claims = jwt.decode(issued.access_token, options={"verify_signature": False})
    now = int(service.clock.now().timestamp())
    assert claims.pop("uti")
    assert claims == {
        "aud": ARM + "/",
        "iss": f"https://localhost:8443/{service.owner.tenant_id}/",
        "iat": now,
        "nbf": now - 300,
        "exp": now + 3600,
        "tid": service.owner.tenant_id,
        "oid": service.owner.object_id,
        "sub": service.owner.object_id,
        "appid": service.owner.client_id,
        "appidacr": "2",
        "idtyp": "app",
        "upn": "Quality lab",
        "roles": ["Owner"],
        "ver": "1.0",
    }
    assert issued.expires_in == 3600
    assert issued.expires_on == now + 3600


async def test_a_token_ends_after_an_hour_and_a_minute(service: Any) -> None:
    """One hour, and the leeway for clocks that differ."""
    token = service.issuer.mint(service.owner, ARM, by_certificate=False).access_token
    service.clock.turn(seconds=3659)
    await service.validator.validate(token, AUDIENCES)
    service.clock.turn(seconds=1)
    assert "expired" in await refusal(service, token)


async def test_roles_are_read_on_each_call(service: Any) -> None:
    """A role that was taken away does not live on in a token."""
    token = service.issuer.mint(service.owner, ARM, by_certificate=False).access_token
    await service.validator.validate(token, AUDIENCES)
    await service.applications.set_roles(
        service.owner.client_id, frozenset({Role.READER}), by="test"
    )
    assert (await service.validator.validate(token, AUDIENCES)).roles == {Role.READER}


async def test_a_token_is_verified_once(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients send the same token for an hour; one that differs in a letter is another."""
    decoded: list[str] = []
    decode = jwt.decode

    def counted(token: str, *others: Any, **options: Any) -> Any:
        decoded.append(token)
        return decode(token, *others, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    token = service.issuer.mint(service.owner, ARM, by_certificate=False).access_token
    first = await service.validator.validate(token, AUDIENCES)
    assert await service.validator.validate(token, AUDIENCES) == first
    assert decoded == [token]
    head, body, signature = token.split(".")
    forged = ("B" if signature[0] == "A" else "A") + signature[1:]
    await refusal(service, f"{head}.{body}.{forged}")
    assert len(decoded) == 2


async def test_a_remembered_token_is_good_for_its_audience_only(service: Any) -> None:
    """What one wire accepted is judged anew on another."""
    token = service.issuer.mint(service.owner, ARM, by_certificate=False).access_token
    await service.validator.validate(token, AUDIENCES)
    with pytest.raises(Problem, match="another audience"):
        await service.validator.validate(token, frozenset({"https://iothubs.azure.net"}))


async def test_a_remembered_token_ends_with_its_key(service: Any) -> None:
    """A key that is forgotten takes its tokens along."""
    token = service.issuer.mint(service.owner, ARM, by_certificate=False).access_token
    await service.validator.validate(token, AUDIENCES)
    service.keys._keys = []
    assert "key of this server" in await refusal(service, token)


async def test_tokens_are_remembered_within_bounds(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one verified longest ago is forgotten first, and still good."""
    monkeypatch.setattr("muster.identity.tokens.MAX_REMEMBERED", 2)
    tokens = [
        service.issuer.mint(service.owner, ARM, by_certificate=False).access_token for _ in range(3)
    ]
    for token in (*tokens, tokens[0]):
        await service.validator.validate(token, AUDIENCES)
    assert len(service.validator._remembered) == 2


@pytest.mark.parametrize("how", ["disabled", "deleted"])
async def test_a_disabled_caller_is_refused_at_once(service: Any, how: str) -> None:
    """A token does not outlive its caller."""
    token = service.issuer.mint(service.owner, ARM, by_certificate=False).access_token
    await service.validator.validate(token, AUDIENCES)
    if how == "disabled":
        await service.applications.set_enabled(service.owner.client_id, enabled=False, by="test")
    else:
        await service.applications.delete(service.owner.client_id, by="test")
    assert "disabled" in await refusal(service, token)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "https://graph.microsoft.com"}, "audience"),
        ({"aud": None}, "not a valid"),
        ({"iss": "https://sts.windows.net/x/"}, "issuer"),
        ({"iss": None}, "not a valid"),
        ({"tid": "another"}, "tenant"),
        ({"tid": None}, "not a valid"),
        ({"tid": 7}, "tenant"),
        ({"oid": None}, "not a valid"),
        ({"oid": ["x"]}, "tenant"),
        ({"oid": "00000000-0000-0000-0000-000000000000"}, "does not exist"),
        ({"exp": None}, "not a valid"),
        ({"exp": "never"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 1}, "expired"),
        ({"nbf": 99_999_999_999}, "not valid yet"),
    ],
)
async def test_a_wrong_claim_is_refused(service: Any, changes: dict[str, Any], reason: str) -> None:
    """Signed by us is not enough: every claim that matters is required and compared."""
    assert reason in await refusal(service, service.keys.sign(claims_of(service, **changes)))


async def test_unsigned_tokens_are_refused(service: Any) -> None:
    """RFC 8725 section 3.1: `none` in any spelling, and an empty signature."""
    claims = claims_of(service)
    for alg in ("none", "None", "nOnE", "NONE", ""):
        header = {"alg": alg, "typ": "JWT", "kid": service.keys.kid}
        await refusal(service, f"{b64(header)}.{b64(claims)}.")
    good = service.keys.sign(claims)
    await refusal(service, good.rsplit(".", 1)[0] + ".")


async def test_the_public_key_is_no_shared_secret(service: Any) -> None:
    """CVE-2015-9235: HS256 with the RSA public key as its secret."""
    import hashlib
    import hmac

    public = service.keys.public_key(service.keys.kid)
    for encoding, form in (
        (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.PEM, PublicFormat.PKCS1),
        (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ):
        secret = public.public_bytes(encoding, form)
        signed = f"{b64({'alg': 'HS256', 'kid': service.keys.kid})}.{b64(claims_of(service))}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        await refusal(service, f"{signed}.{b64(mac)}")


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"kid": "../../dev/null"},
        {"kid": "x' OR '1'='1"},
        {"kid": ["{kid}"]},
        {"kid": None},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"kid": "{kid}", "jku": "https://evil.example/keys"},
        {"kid": "{kid}", "crit": ["exp2"], "exp2": 1},
    ],
)
async def test_keys_come_from_nowhere_but_here(service: Any, header: dict[str, Any]) -> None:
    """Another's key is not found through a header, whatever the header says."""
    attacker = rsa.generate_private_key(65537, 2048)
    own = service.keys.kid
    headers = {name: own if value == "{kid}" else value for name, value in header.items()}
    headers = {name: value for name, value in headers.items() if value is not None}
    try:
        token = jwt.encode(claims_of(service), attacker, algorithm="RS256", headers=headers)
    except (jwt.PyJWTError, TypeError):  # the library will not even make it: by hand then
        signed = f"{b64({'alg': 'RS256', **headers})}.{b64(claims_of(service))}"
        token = f"{signed}.{b64(b'x' * 256)}"
    await refusal(service, token)


async def test_an_embedded_key_is_not_used(service: Any) -> None:
    """CVE-2018-0114: a `jwk` header names the attacker's own key."""
    attacker = rsa.generate_private_key(65537, 2048)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(attacker.public_key(), as_dict=True)
    headers = {"kid": service.keys.kid, "jwk": jwk}
    token = jwt.encode(claims_of(service), attacker, algorithm="RS256", headers=headers)
    await refusal(service, token)


async def test_nested_and_other_algorithms_are_refused(service: Any) -> None:
    """A token inside a token is no token; neither is one of our own key in another algorithm."""
    inner = service.keys.sign(claims_of(service))
    signed = f"{b64({'alg': 'RS256', 'cty': 'JWT', 'kid': service.keys.kid})}.{b64(inner.encode())}"
    await refusal(service, f"{signed}.{b64(b'x' * 256)}")
    private = service.keys._keys[-1].private
    for algorithm in ("PS256", "RS384", "RS512"):
        token = jwt.encode(
            claims_of(service), private, algorithm=algorithm, headers={"kid": service.keys.kid}
        )
        await refusal(service, token)


async def test_the_empty_elliptic_signature_is_refused(service: Any) -> None:
    """CVE-2022-21449: ES256 with r = s = 0."""
    header = {"alg": "ES256", "kid": service.keys.kid}
    await refusal(service, f"{b64(header)}.{b64(claims_of(service))}.{b64(bytes(64))}")


async def test_a_huge_token_is_refused_unread(service: Any) -> None:
    """A megabyte costs no more than its length."""
    assert str(MAX_TOKEN_LENGTH) in await refusal(service, "a" * 1_000_000)


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b.c", "\u0661.\u0661.\u0661", "e30.e30.e30", "\ud800.a.b"],
)
async def test_what_is_no_token_is_refused(service: Any, token: str) -> None:
    """Rubbish is a refusal, not a failure."""
    await refusal(service, token)


async def test_a_deep_header_is_refused(service: Any) -> None:
    """json.loads raises RecursionError, which is no ValueError, on deep nesting."""
    await refusal(service, f"{b64(b'[' * 6000)}.e30.e30")
    deep = b'{"alg":"RS256","kid":' + b"[" * 3000 + b"]" * 3000 + b"}"
    await refusal(service, f"{b64(deep)}.e30.e30")


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "cty", "x5c"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2),
    ),
    payload=st.binary(max_size=64),
    signature=st.binary(max_size=300),
)
async def test_no_header_makes_it_fail(
    service: Any, header: dict[str, Any], payload: bytes, signature: bytes
) -> None:
    """Whatever the header holds, the answer is a refusal."""
    if header.get("kid"):
        header["kid"] = service.keys.kid
    await refusal(service, f"{b64(header)}.{b64(payload)}.{b64(signature)}")
