"""What the token service needs of storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from muster.ids import ETag
from muster.model.audit import AuditEntry
from muster.model.principal import Application, Principal, Tenant


class PrincipalReader(Protocol):
    """Look a caller up by what its token says."""

    async def find_principal(self, tenant_id: str, object_id: str) -> Principal | None:
        """Return that caller with the roles it has now; None when unknown or disabled."""
        ...


class ApplicationReader(Protocol):
    """Look applications up."""

    async def find_application(self, client_id: str) -> Application | None:
        """Return the application of that client id, compared without case, disabled or not."""
        ...

    async def list_applications(self, *, after: str, limit: int) -> list[Application]:
        """Return up to *limit* applications whose client id sorts after *after*, by client id."""
        ...

    async def count_applications(self) -> int:
        """Return how many there are."""
        ...


class ApplicationStore(ApplicationReader, Protocol):
    """Look applications up and change them. A change and its audit line are one transaction."""

    async def insert_application(self, application: Application, audit: AuditEntry) -> bool:
        """Store a new one; False, and nothing changed, when its client or object id is taken."""
        ...

    async def replace_application(
        self, application: Application, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Store *application* over version *expected*; False when that is not the stored one."""
        ...

    async def delete_application(self, client_id: str, audit: AuditEntry) -> bool:
        """Forget it, its secrets and its certificates; False when there was none."""
        ...


class TenantStore(Protocol):
    """The one tenant of this installation."""

    async def ensure_tenant(self, tenant: Tenant, audit: AuditEntry) -> Tenant:
        """Make *tenant* the tenant unless there is one already; return the one there is."""
        ...


@dataclass(frozen=True, slots=True)
class SigningKeyRecord:
    """A token-signing key as it is stored: PKCS #8, DER. The newest signs."""

    created: datetime
    private_key: bytes = field(repr=False)


class SigningKeyStore(Protocol):
    """Where the private keys that sign tokens are kept. Whoever reads them is the issuer."""

    async def load_keys(self) -> list[SigningKeyRecord]:
        """Return every key, oldest first."""
        ...

    async def add_key(self, record: SigningKeyRecord) -> None:
        """Keep *record*; it survives `kill -9` once this returns."""
        ...

    async def delete_key(self, record: SigningKeyRecord) -> None:
        """Forget *record*. Harmless when it is not kept."""
        ...
