"""Certificate authorities, their templates and their revocation lists."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class KeyType(Enum):
    """The key of a CA, named as the CA list names it."""

    RSA_2048 = "RSA 2048"
    RSA_3072 = "RSA 3072"
    RSA_4096 = "RSA 4096"
    ECDSA_P256 = "ECDSA P-256"
    ECDSA_P384 = "ECDSA P-384"


class Hashing(Enum):
    """The digest under a CA's signatures, named as the CA list names it."""

    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"


class Tier(Enum):
    """Where a CA stands, in the wire's words."""

    ROOT = "RootCA"
    SUBORDINATE = "SubordinateCA"


class TemplateType(Enum):
    """What a template issues, in the wire's words."""

    SSL = "SSL Template"


@dataclass(frozen=True, slots=True)
class Template:
    """What one CA issues to those who ask: the kind of certificate, and for how long at most."""

    id: str
    type: TemplateType
    max_days: int


@dataclass(frozen=True, slots=True)
class Authority:
    """One CA: its certificate, and the name of its key in the keystore.

    `name` is the friendly one, unique in the tenant without regard to case. `parent_id` is None
    for a root, and also for a CA whose root is kept elsewhere.
    """

    id: str
    tenant_id: str
    name: str
    tier: Tier
    key_id: str
    key_type: KeyType
    hashing: Hashing
    certificate: bytes
    created: datetime
    parent_id: str | None = None
    is_enabled: bool = True
    templates: tuple[Template, ...] = ()

    def template(self, template_id: str) -> Template | None:
        """Return the template of that id."""
        return next((one for one in self.templates if one.id == template_id), None)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """The CRL of one CA as it was last published."""

    authority_id: str
    number: int
    der: bytes
    this_update: datetime
    next_update: datetime
