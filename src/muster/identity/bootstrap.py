"""The first start: a tenant, an administrator and this machine's managed identity.

Rules:

1. There is no default password: every secret is made here and shown once.
2. The database holds digests only, so on later starts the caller brings the secrets it kept
   (in the ready file, mode 0600). One that is lost or wrong is replaced, and the old one stops
   counting.
3. Whoever starts the program on its data directory is its administrator: one that was deleted
   is made again, one that was disabled stays so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from muster.clock import Clock
from muster.identity.applications import Applications, holds_secret
from muster.ids import new_uuid
from muster.model.audit import AuditEntry
from muster.model.principal import Application, PrincipalKind, Role, Tenant
from muster.ports.identity import ApplicationStore, TenantStore

ADMINISTRATOR = "Muster administrator"
LOCAL_IDENTITY = "Muster local machine"
_LABEL = "bootstrap"
_ACTOR = "system:bootstrap"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Who may use this installation from its first second on."""

    tenant_id: str
    administrator_client_id: str
    administrator_client_secret: str = field(repr=False)
    administrator_object_id: str
    identity_client_id: str
    identity_header: str = field(repr=False)


async def bootstrap(
    tenants: TenantStore,
    applications: ApplicationStore,
    clock: Clock,
    *,
    known_secret: str | None = None,
    known_header: str | None = None,
) -> Bootstrap:
    """Make what is missing and return how to use it. Safe to repeat.

    *known_secret* and *known_header* are what an earlier call returned; they are returned again
    when they still count.
    """
    fresh = Tenant(new_uuid(), new_uuid(), new_uuid())
    audit = AuditEntry(clock.now(), _ACTOR, "tenant.create", "tenant")
    tenant = await tenants.ensure_tenant(fresh, audit)
    service = Applications(applications, clock, tenant_id=tenant.id)

    async def ensure(client_id: str, name: str, kind: PrincipalKind) -> Application:
        found = await applications.find_application(client_id)
        roles = frozenset({Role.OWNER})
        return found or await service.create(
            name, by=_ACTOR, roles=roles, kind=kind, client_id=client_id
        )

    administrator = await ensure(
        tenant.administrator_client_id, ADMINISTRATOR, PrincipalKind.APPLICATION
    )
    identity = await ensure(
        tenant.identity_client_id, LOCAL_IDENTITY, PrincipalKind.MANAGED_IDENTITY
    )
    return Bootstrap(
        tenant_id=tenant.id,
        administrator_client_id=administrator.client_id,
        administrator_client_secret=await _secret(service, administrator, known_secret, clock),
        administrator_object_id=administrator.object_id,
        identity_client_id=identity.client_id,
        identity_header=await _secret(service, identity, known_header, clock),
    )


async def _secret(
    service: Applications, application: Application, known: str | None, clock: Clock
) -> str:
    if known is not None and holds_secret(application, known, now=clock.now()):
        return known
    await service.remove_secrets(application.client_id, by=_ACTOR, label=_LABEL)
    return await service.add_secret(application.client_id, by=_ACTOR, label=_LABEL)
