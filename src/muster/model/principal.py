"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


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
