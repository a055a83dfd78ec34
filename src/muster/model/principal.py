"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from muster.ids import ETag


class PrincipalKind(Enum):
    """What sort of caller it is."""

    USER = "user"
    APPLICATION = "application"
    MANAGED_IDENTITY = "managed identity"


class Role(Enum):
    """What a principal may do, under Azure's own names where Azure has one."""

    OWNER = "Owner"
    READER = "Reader"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose token was verified.

    Authorise on (`tenant_id`, `object_id`) and `roles`, never on `name`.
    """

    tenant_id: str
    object_id: str
    kind: PrincipalKind
    name: str
    application_id: str | None = None
    roles: frozenset[Role] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Tenant:
    """The one tenant of an installation, and the two applications it was born with."""

    id: str
    administrator_client_id: str
    identity_client_id: str


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """One secret of an application: never the secret, only its SHA-256 digest.

    `expires` is None for one that lasts until it is removed.
    """

    id: str
    label: str
    digest: bytes = field(repr=False)
    created: datetime
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate whose key may sign an application's assertions: the whole of it, DER."""

    der: bytes = field(repr=False)
    created: datetime


@dataclass(frozen=True, slots=True)
class Application:
    """A program that may ask for tokens in its own name, and how it proves to be itself.

    `client_id` is what it is called on the wire, `object_id` what it is in tokens and audit.
    A managed identity is one too: its secret is the header that the local endpoint asks for.
    """

    tenant_id: str
    object_id: str
    client_id: str
    kind: PrincipalKind
    name: str
    etag: ETag
    created: datetime
    enabled: bool = True
    roles: frozenset[Role] = field(default_factory=frozenset)
    secrets: tuple[ClientSecret, ...] = ()
    certificates: tuple[ClientCertificate, ...] = ()

    @property
    def principal(self) -> Principal:
        """The caller that this application's tokens speak of."""
        return Principal(
            tenant_id=self.tenant_id,
            object_id=self.object_id,
            kind=self.kind,
            name=self.name,
            application_id=self.client_id,
            roles=self.roles,
        )
