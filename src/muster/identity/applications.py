"""Applications: who may ask for tokens, and with what.

A secret is made here, from 256 random bits, shown once and stored as its SHA-256 digest. A slow
password hash would add nothing: it makes guessing dear, and 256 random bits cannot be guessed;
what it would add is a way to keep the server busy. Secrets chosen by people are not taken.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.ids import new_etag, new_uuid
from muster.model.audit import AuditEntry
from muster.model.contention import ATTEMPTS, contended
from muster.model.principal import (
    Application,
    ClientCertificate,
    ClientSecret,
    PrincipalKind,
    Role,
)
from muster.ports.identity import ApplicationStore

# Two of each are enough to rotate; ten leave room for one per site. Each adds a comparison
# or a digest to a sign-in.
MAX_SECRETS = 10
MAX_CERTIFICATES = 10
# A directory of people and plants, not of devices: these have no application.
MAX_APPLICATIONS = 10_000
# A quarter of what a line of audit should ever hold.
_MAX_NAME = 120
_MAX_CERTIFICATE_BYTES = 16_384
_SECRET_BYTES = 32
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+\Z")


def new_secret() -> str:
    """Return a secret of 256 random bits, in characters that need no quoting anywhere."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def digest_secret(secret: str) -> bytes:
    """Return what is stored of *secret*."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def holds_secret(application: Application, secret: str, *, now: datetime) -> bool:
    """Whether *secret* is one of the application's that has not expired. Constant time."""
    digest = digest_secret(secret)
    found = False
    for entry in application.secrets:
        matches = hmac.compare_digest(entry.digest, digest)
        found |= matches and (entry.expires is None or now < entry.expires)
    return found


class Applications:
    """Makes and changes applications. The caller has authorised *by* already."""

    def __init__(self, store: ApplicationStore, clock: Clock, *, tenant_id: str) -> None:
        self._store = store
        self._clock = clock
        self._tenant_id = tenant_id

    async def create(
        self,
        name: str,
        *,
        by: str,
        roles: frozenset[Role] = frozenset(),
        kind: PrincipalKind = PrincipalKind.APPLICATION,
        client_id: str | None = None,
    ) -> Application:
        """Return a new application without any credential, *client_id* made up unless given.

        Raises `Problem(MALFORMED)` for the name, `Problem(CONFLICT)` when there are too many.
        """
        _check_label(name)
        if await self._store.count_applications() >= MAX_APPLICATIONS:
            raise Problem(Kind.CONFLICT, f"there are {MAX_APPLICATIONS} applications already")
        now = self._clock.now()
        application = Application(
            tenant_id=self._tenant_id,
            object_id=new_uuid(),
            client_id=client_id or new_uuid(),
            kind=kind,
            name=name,
            etag=new_etag(),
            created=now,
            roles=roles,
        )
        audit = self._audit(by, "application.create", application, name=name)
        if not await self._store.insert_application(application, audit):
            raise Problem(Kind.CONFLICT, "the application's id is taken")
        return application

    async def get(self, client_id: str) -> Application:
        """Return the application; raises `Problem(NOT_FOUND)`."""
        application = await self._store.find_application(client_id)
        if application is None:
            raise Problem(Kind.NOT_FOUND, "there is no application of that client id")
        return application

    async def delete(self, client_id: str, *, by: str) -> None:
        """Forget the application: its tokens stop counting at once."""
        application = await self.get(client_id)
        audit = self._audit(by, "application.delete", application)
        if not await self._store.delete_application(client_id, audit):
            raise Problem(Kind.NOT_FOUND, "there is no application of that client id")

    async def add_secret(
        self, client_id: str, *, by: str, label: str = "", lifetime: timedelta | None = None
    ) -> str:
        """Return a new secret of the application: the only time that it can be read.

        Raises `Problem(CONFLICT)` when it has `MAX_SECRETS` that have not expired.
        """
        if label:
            _check_label(label)
        now = self._clock.now()
        secret = new_secret()
        entry = ClientSecret(
            id=new_uuid(),
            label=label,
            digest=digest_secret(secret),
            created=now,
            expires=None if lifetime is None else now + lifetime,
        )

        def change(application: Application) -> Application:
            live = tuple(s for s in application.secrets if s.expires is None or now < s.expires)
            if len(live) >= MAX_SECRETS:
                raise Problem(Kind.CONFLICT, f"an application has at most {MAX_SECRETS} secrets")
            return replace(application, secrets=(*live, entry))

        await self._change(client_id, change, by, "application.add-secret", secret=entry.id)
        return secret

    async def remove_secrets(self, client_id: str, *, by: str, label: str) -> None:
        """Forget every secret of the application that carries *label*."""

        def change(application: Application) -> Application:
            kept = tuple(entry for entry in application.secrets if entry.label != label)
            return replace(application, secrets=kept)

        await self._change(client_id, change, by, "application.remove-secrets", label=label)

    async def add_certificate(self, client_id: str, der: bytes, *, by: str) -> None:
        """Let the key of the DER certificate sign the application's assertions.

        Does not check who issued it: registering it is what makes it count.

        Raises `Problem(MALFORMED)` unless it is one with an RSA key of at least 2048 bits;
        `Problem(CONFLICT)` when it is registered, or `MAX_CERTIFICATES` are.
        """
        _check_certificate(der)
        entry = ClientCertificate(der=der, created=self._clock.now())

        def change(application: Application) -> Application:
            if any(known.der == der for known in application.certificates):
                raise Problem(Kind.CONFLICT, "the certificate is registered already")
            if len(application.certificates) >= MAX_CERTIFICATES:
                raise Problem(
                    Kind.CONFLICT, f"an application has at most {MAX_CERTIFICATES} certificates"
                )
            return replace(application, certificates=(*application.certificates, entry))

        thumbprint = hashlib.sha256(der).hexdigest().upper()
        await self._change(
            client_id, change, by, "application.add-certificate", thumbprint=thumbprint
        )

    async def remove_certificate(self, client_id: str, der: bytes, *, by: str) -> None:
        """Forget the certificate. Harmless when it is not registered."""

        def change(application: Application) -> Application:
            kept = tuple(entry for entry in application.certificates if entry.der != der)
            return replace(application, certificates=kept)

        await self._change(client_id, change, by, "application.remove-certificate")

    async def set_enabled(self, client_id: str, *, enabled: bool, by: str) -> None:
        """Let the application ask for tokens and use them, or stop both at once."""
        await self._change(
            client_id,
            lambda application: replace(application, enabled=enabled),
            by,
            "application.enable" if enabled else "application.disable",
        )

    async def set_roles(self, client_id: str, roles: frozenset[Role], *, by: str) -> None:
        """Give the application exactly *roles*, from its next call on."""
        names = ",".join(sorted(role.value for role in roles))
        await self._change(
            client_id,
            lambda application: replace(application, roles=roles),
            by,
            "application.set-roles",
            roles=names,
        )

    async def _change(
        self,
        client_id: str,
        change: Callable[[Application], Application],
        by: str,
        action: str,
        **detail: str,
    ) -> None:
        for _ in range(ATTEMPTS):
            stored = await self.get(client_id)
            changed = replace(change(stored), etag=new_etag())
            audit = self._audit(by, action, stored, **detail)
            if await self._store.replace_application(changed, stored.etag, audit):
                return
        raise contended("this application")

    def _audit(self, by: str, action: str, application: Application, **detail: str) -> AuditEntry:
        subject = f"application:{application.client_id}"
        return AuditEntry(self._clock.now(), by, action, subject, detail=detail)


def _check_label(text: str) -> None:
    if len(text) > _MAX_NAME or _PRINTABLE.match(text) is None:
        raise Problem(Kind.MALFORMED, f"a name has 1 to {_MAX_NAME} printable characters")


def _check_certificate(der: bytes) -> None:
    if len(der) > _MAX_CERTIFICATE_BYTES:
        raise Problem(Kind.MALFORMED, f"a certificate has at most {_MAX_CERTIFICATE_BYTES} bytes")
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, TypeError) as error:
        raise Problem(Kind.MALFORMED, "that is not a DER certificate") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 2048:
        raise Problem(Kind.MALFORMED, "the certificate's key must be RSA of at least 2048 bits")
