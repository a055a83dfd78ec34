"""Create certificate authorities, and tell callers which there are.

A caller sees the CAs of its own tenant and no others: what belongs to another tenant is not found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from muster.ca.issuance import Issuance, Order
from muster.ca.issuers import (
    PublicLocations,
    load_public_key,
    parsed_certificate,
    root_to_be,
    signing_authority,
)
from muster.ca.publication import make_list
from muster.certs.names import MAX_COMMON_NAME, parse_title, title_size
from muster.certs.profile import authority_profile
from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.ids import new_uuid
from muster.model.audit import AuditEntry
from muster.model.authority import Authority, Hashing, KeyType, Template, TemplateType, Tier
from muster.model.principal import Principal, Role
from muster.ports.authorities import AuthorityStore
from muster.ports.signing import CreatedKey, Signer

# CAs of one tenant, roots included. Every one has a key and a CRL that is signed again and again;
# those who need more split their plants into tenants.
MAX_AUTHORITIES = 200
# CAs from a leaf's issuer up to its root. Ours are two; links are followed no further than this.
_MAX_DEPTH = 8
_ROOT_SUFFIX = " Root"


@dataclass(frozen=True, slots=True)
class HierarchyPlan:
    """A root and an issuing CA under it that somebody wants to have.

    `name` becomes the issuing CA's; the root's has " Root" after it. Lifetimes are in days.
    Without a key type or hashing, a CA that exists may have any, and a new one has P-256 and
    SHA-256, which every client here accepts.
    """

    name: str
    key_type: KeyType | None = None
    hashing: Hashing | None = None
    root_days: int = 20 * 365
    issuing_days: int = 5 * 365
    max_certificate_days: int = 398

    @property
    def new_key_type(self) -> KeyType:
        """The key type of CAs that are to be made."""
        return self.key_type or KeyType.ECDSA_P256

    @property
    def new_hashing(self) -> Hashing:
        """The hashing of CAs that are to be made."""
        return self.hashing or Hashing.SHA256


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A root and its issuing CA. `is_new` is False when both were there already."""

    root: Authority
    issuing: Authority
    is_new: bool


class Authorities:
    """The CAs of every tenant."""

    def __init__(
        self,
        store: AuthorityStore,
        issuance: Issuance,
        signer: Signer,
        clock: Clock,
        locations: PublicLocations,
    ) -> None:
        self._store = store
        self._issuance = issuance
        self._signer = signer
        self._clock = clock
        self._locations = locations

    async def create_hierarchy(self, caller: Principal, plan: HierarchyPlan) -> Hierarchy:
        """Create a root and an issuing CA under it, each with a key, a certificate and a CRL.

        The issuing CA has the built-in SSL template. Safe to repeat: when the tenant has an
        issuing CA of that name, and of the key type and hashing if they are given, that one is
        returned.

        Raises `Problem(FORBIDDEN)` for callers who are not owners, `Problem(MALFORMED)` for names
        and lifetimes that cannot be, `Problem(CONFLICT)` when a different CA has the name,
        `Problem(THROTTLED)` beyond `MAX_AUTHORITIES`.
        """
        if Role.OWNER not in caller.roles:
            raise Problem(Kind.FORBIDDEN, "only an owner may create a CA")
        _check_plan(plan)
        existing = await self._existing(caller.tenant_id, plan)
        if existing is not None:
            return existing
        # One moment for all: the issuing CA may live exactly as long as its root.
        now = self._clock.now()
        root = await self._create_root(caller, plan, now)
        issuing = await self._create_issuing(caller, plan, root, now)
        both = (root, issuing)
        lists = [
            await make_list(
                signing_authority(one, self._locations), (), self._signer, previous=None, now=now
            )
            for one in both
        ]
        audit = [
            AuditEntry(now, caller.object_id, "authority.create", one.id, detail={"name": one.name})
            for one in both
        ]
        if not await self._store.insert_authorities(both, lists, audit, limit=MAX_AUTHORITIES):
            # Somebody else created it meanwhile: theirs counts, our keys will never be used.
            existing = await self._existing(caller.tenant_id, plan)
            if existing is None:
                raise Problem(Kind.CONFLICT, f"the tenant has a CA named {plan.name}{_ROOT_SUFFIX}")
            return existing
        return Hierarchy(root, issuing, is_new=True)

    async def list_all(self, caller: Principal) -> list[Authority]:
        """Return the CAs of the caller's tenant, by name."""
        return await self._store.list_authorities(caller.tenant_id)

    async def list_available(self, caller: Principal) -> list[Authority]:
        """Return the CAs that the caller may ask for certificates: they issue, and are valid."""
        now = self._clock.now()
        return [
            one
            for one in await self._store.list_authorities(caller.tenant_id)
            if one.is_enabled and one.templates and _is_valid(one, now)
        ]

    async def get(self, caller: Principal, authority_id: str) -> Authority:
        """Return that CA; raises `Problem(NOT_FOUND)` for another tenant's as for none."""
        authority = await self._store.get_authority(authority_id.lower())
        if authority is None or authority.tenant_id != caller.tenant_id:
            raise Problem(Kind.NOT_FOUND, "there is no such CA")
        return authority

    async def chain(self, authority: Authority) -> tuple[Authority, ...]:
        """Return *authority* and the CAs above it, its root last."""
        chain = [authority]
        while chain[-1].parent_id is not None and len(chain) < _MAX_DEPTH:
            above = await self._store.get_authority(chain[-1].parent_id)
            if above is None:
                break
            chain.append(above)
        return tuple(chain)

    async def _existing(self, tenant_id: str, plan: HierarchyPlan) -> Hierarchy | None:
        issuing = await self._store.find_authority(tenant_id, plan.name)
        if issuing is None:
            return None
        root = None
        if issuing.parent_id is not None:
            root = await self._store.get_authority(issuing.parent_id)
        is_other = plan.key_type not in (None, issuing.key_type) or plan.hashing not in (
            None,
            issuing.hashing,
        )
        if root is None or is_other:
            raise Problem(Kind.CONFLICT, f"the tenant has a different CA named {plan.name}")
        return Hierarchy(root, issuing, is_new=False)

    async def _create_root(
        self, caller: Principal, plan: HierarchyPlan, now: datetime
    ) -> Authority:
        key = await self._signer.create_key(plan.new_key_type)
        name = plan.name + _ROOT_SUFFIX
        profile = authority_profile(
            name,
            load_public_key(key.public_key),
            days=plan.root_days,
            path_length=1,
            issuer=None,
            now=now,
        )
        authority_id = new_uuid()
        itself = root_to_be(
            profile,
            authority_id=authority_id,
            tenant_id=caller.tenant_id,
            key_id=key.key_id,
            hashing=plan.new_hashing,
        )
        order = Order(profile, itself, caller.object_id, name, _digest(key))
        return Authority(
            id=authority_id,
            tenant_id=caller.tenant_id,
            name=name,
            tier=Tier.ROOT,
            key_id=key.key_id,
            key_type=plan.new_key_type,
            hashing=plan.new_hashing,
            certificate=await self._issuance.issue(order),
            created=now,
        )

    async def _create_issuing(
        self, caller: Principal, plan: HierarchyPlan, root: Authority, now: datetime
    ) -> Authority:
        key = await self._signer.create_key(plan.new_key_type)
        above = signing_authority(root, self._locations)
        profile = authority_profile(
            plan.name,
            load_public_key(key.public_key),
            days=plan.issuing_days,
            path_length=0,
            issuer=above.certificate,
            now=now,
        )
        order = Order(profile, above, caller.object_id, plan.name, _digest(key))
        return Authority(
            id=new_uuid(),
            tenant_id=caller.tenant_id,
            name=plan.name,
            tier=Tier.SUBORDINATE,
            key_id=key.key_id,
            key_type=plan.new_key_type,
            hashing=plan.new_hashing,
            certificate=await self._issuance.issue(order),
            created=now,
            parent_id=root.id,
            templates=(Template(new_uuid(), TemplateType.SSL, plan.max_certificate_days),),
        )


def _check_plan(plan: HierarchyPlan) -> None:
    parse_title(plan.name)
    longest = MAX_COMMON_NAME - title_size(_ROOT_SUFFIX)
    if title_size(plan.name) > longest:
        raise Problem(
            Kind.MALFORMED,
            f"the name of a root and issuing CA has at most {longest} bytes of UTF-8",
        )
    if plan.issuing_days > plan.root_days:
        raise Problem(Kind.MALFORMED, "the issuing CA cannot outlive its root")
    if not 1 <= plan.max_certificate_days <= plan.issuing_days:
        raise Problem(
            Kind.MALFORMED,
            "certificates are valid for at least 1 day and at most as long as their CA",
        )


def _digest(key: CreatedKey) -> bytes:
    # A fresh key makes a request of its own: nothing can be a repetition of it.
    return hashlib.sha256(key.public_key).digest()


def _is_valid(authority: Authority, now: datetime) -> bool:
    certificate = parsed_certificate(authority.certificate)
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
