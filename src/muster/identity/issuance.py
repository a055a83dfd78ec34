"""Issue access tokens: to applications that prove who they are, and to the local machine.

Rules:

1. An application proves itself by a secret or by an assertion, never by both. One that is
   unknown or disabled is refused in the words for a wrong secret.
2. A token is for one resource that is served here (`audiences`).
3. A token looks like the public service's version 1.0, which is what tokens for the resource
   manager are; `upn` carries the application's name, because EZCA's clients read it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.identity.applications import holds_secret
from muster.identity.assertions import ReplayCache, verify_assertion
from muster.identity.signing_keys import SigningKeys
from muster.model.principal import Application, PrincipalKind
from muster.ports.identity import ApplicationReader

TOKEN_LIFETIME = timedelta(hours=1)
# As the public service does: five minutes for readers whose clock is behind.
_BACKDATED = timedelta(minutes=5)
# Tenants are called by their id, and by the one name that lets clients skip instance
# discovery at a host that is not ours (facts/control-plane.md 2.3).
ADFS = "adfs"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An access token as the wires tell of it. Times in whole seconds."""

    access_token: str = field(repr=False)
    audience: str
    not_before: int
    expires_on: int
    expires_in: int


@dataclass(frozen=True, slots=True)
class ClientProof:
    """What a client brought to prove itself: exactly one of the two."""

    secret: str | None = field(default=None, repr=False)
    assertion: str | None = field(default=None, repr=False)


class TokenIssuer:
    """Knows what a token says and signs it. Decides nothing."""

    def __init__(self, keys: SigningKeys, clock: Clock, *, public_url: str, tenant_id: str) -> None:
        self._keys = keys
        self._clock = clock
        self.public_url = public_url.rstrip("/")
        self.tenant_id = tenant_id

    @property
    def issuer(self) -> str:
        """The `iss` of every token."""
        return f"{self.public_url}/{self.tenant_id}/"

    def token_endpoints(self) -> tuple[str, ...]:
        """Return every URL of the token endpoint, and the issuers: what assertions are for."""
        tenants = (self.tenant_id, ADFS)
        endpoints = [
            f"{self.public_url}/{tenant}/oauth2/{version}token"
            for tenant in tenants
            for version in ("v2.0/", "")
        ]
        return (*endpoints, self.issuer, f"{self.issuer}v2.0", self.issuer.rstrip("/"))

    def mint(self, application: Application, audience: str, *, by_certificate: bool) -> IssuedToken:
        """Return a token that says *application* calls *audience*."""
        now = self._clock.now()
        issued = int(now.timestamp())
        begins = int((now - _BACKDATED).timestamp())
        expires = int((now + TOKEN_LIFETIME).timestamp())
        claims = {
            "aud": audience,
            "iss": self.issuer,
            "iat": issued,
            "nbf": begins,
            "exp": expires,
            "tid": application.tenant_id,
            "oid": application.object_id,
            "sub": application.object_id,
            "appid": application.client_id,
            "appidacr": "2" if by_certificate else "1",
            "idtyp": "app",
            "upn": application.name,
            "roles": sorted(role.value for role in application.roles),
            "uti": secrets.token_urlsafe(16),
            "ver": "1.0",
        }
        return IssuedToken(self._keys.sign(claims), audience, begins, expires, expires - issued)


class ClientCredentials:
    """The client credentials grant (RFC 6749 section 4.4, RFC 7523)."""

    def __init__(
        self,
        applications: ApplicationReader,
        issuer: TokenIssuer,
        clock: Clock,
        *,
        replays: ReplayCache | None = None,
    ) -> None:
        self._applications = applications
        self._issuer = issuer
        self._clock = clock
        self._replays = replays or ReplayCache()

    async def grant(self, client_id: str, proof: ClientProof, audience: str) -> IssuedToken:
        """Return a token for *audience* to the application that *proof* proves.

        Does not check *audience*: see `Audiences`.

        Raises `Problem(MALFORMED)` unless there is exactly one proof;
        `Problem(UNAUTHENTICATED)` when it proves nothing; `Problem(THROTTLED)`.
        """
        if (proof.secret is None) == (proof.assertion is None):
            raise Problem(Kind.MALFORMED, "give exactly one of client_secret and client_assertion")
        application = await self._applications.find_application(client_id)
        # A managed identity is the local machine's: it has no business at this endpoint.
        if (
            application is None
            or not application.enabled
            or application.kind is not PrincipalKind.APPLICATION
        ):
            raise _not_proved(proof)
        now = self._clock.now()
        if proof.secret is not None:
            if not holds_secret(application, proof.secret, now=now):
                raise _not_proved(proof)
            return self._issuer.mint(application, audience, by_certificate=False)
        assert proof.assertion is not None
        verified = verify_assertion(
            proof.assertion, application, self._issuer.token_endpoints(), now=now
        )
        self._replays.use(verified, audience, now=now)
        return self._issuer.mint(application, audience, by_certificate=True)


class ManagedIdentity:
    """Tokens for programs on this machine, which hold no credential of their own.

    The endpoint must check that its caller *is* on this machine.
    """

    def __init__(
        self, applications: ApplicationReader, issuer: TokenIssuer, clock: Clock, *, client_id: str
    ) -> None:
        self._applications = applications
        self._issuer = issuer
        self._clock = clock
        self._client_id = client_id

    async def token_for_header(
        self, header: str, audience: str, *, client_id: str | None
    ) -> IssuedToken:
        """Return a token for *audience* to whoever knows the identity's header secret.

        Raises `Problem(UNAUTHENTICATED)` for another header; as `token` otherwise.
        """
        application = await self._identity(client_id)
        if not holds_secret(application, header, now=self._clock.now()):
            raise Problem(Kind.UNAUTHENTICATED, "the identity header is not the one expected")
        return self._issuer.mint(application, audience, by_certificate=False)

    async def token(self, audience: str, *, client_id: str | None) -> IssuedToken:
        """Return a token for *audience*, asking for no secret at all.

        Raises `Problem(NOT_FOUND)` when *client_id* names another identity, or it is disabled.
        """
        application = await self._identity(client_id)
        return self._issuer.mint(application, audience, by_certificate=False)

    async def _identity(self, client_id: str | None) -> Application:
        application = await self._applications.find_application(self._client_id)
        if application is None or not application.enabled:
            raise Problem(Kind.NOT_FOUND, "this machine has no managed identity")
        if client_id is not None and client_id.lower() != application.client_id:
            raise Problem(Kind.NOT_FOUND, "this machine has no managed identity of that client id")
        return application


def _not_proved(proof: ClientProof) -> Problem:
    what = "secret" if proof.secret is not None else "assertion"
    return Problem(Kind.UNAUTHENTICATED, f"the client id or the client {what} is not valid")
