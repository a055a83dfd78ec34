"""Shared access policies: their rights in words, their keys, and how an update treats both.

Rules:

1. A policy that is not mentioned in an update keeps everything; so does the whole set when the
   update does not mention policies at all, as after a GET, which never shows them.
2. A mentioned policy takes the keys it brings and keeps its own where it brings none.
3. Writing includes reading: `RegistryWrite` alone is kept as `RegistryRead, RegistryWrite`.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from muster.control.names import check_key_name
from muster.errors import Kind, Problem
from muster.model.resource import AccessPolicy, Right
from muster.protocols.shared_key import format_key, parse_key

HUB_RIGHTS = (
    Right.REGISTRY_READ,
    Right.REGISTRY_WRITE,
    Right.SERVICE_CONNECT,
    Right.DEVICE_CONNECT,
)
SERVICE_RIGHTS = (
    Right.SERVICE_CONFIG,
    Right.ENROLLMENT_READ,
    Right.ENROLLMENT_WRITE,
    Right.DEVICE_CONNECT,
    Right.REGISTRATION_STATUS_READ,
    Right.REGISTRATION_STATUS_WRITE,
)
# facts/hub.md 2.3.
DEFAULT_HUB_POLICIES: dict[str, tuple[Right, ...]] = {
    "iothubowner": HUB_RIGHTS,
    "service": (Right.SERVICE_CONNECT,),
    "device": (Right.DEVICE_CONNECT,),
    "registryRead": (Right.REGISTRY_READ,),
    "registryReadWrite": (Right.REGISTRY_READ, Right.REGISTRY_WRITE),
}
DEFAULT_SERVICE_POLICIES: dict[str, tuple[Right, ...]] = {
    "provisioningserviceowner": SERVICE_RIGHTS
}
# Five come with a hub; the public service stops at 16. Each is looked through on a CONNECT.
MAX_POLICIES = 16
_IMPLIED = {
    Right.REGISTRY_WRITE: Right.REGISTRY_READ,
    Right.ENROLLMENT_WRITE: Right.ENROLLMENT_READ,
    Right.REGISTRATION_STATUS_WRITE: Right.REGISTRATION_STATUS_READ,
}
# As strong as the HMAC-SHA256 it signs with; people paste these, so no longer than that.
_NEW_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class PolicySpecification:
    """A policy as a client asks for it. Missing keys are kept, or made."""

    key_name: str
    rights: str
    primary_key: str | None = field(default=None, repr=False)
    secondary_key: str | None = field(default=None, repr=False)


def new_key() -> str:
    """Return a random key of 256 bits, in base64."""
    return format_key(secrets.token_bytes(_NEW_KEY_BYTES))


def default_policies(defaults: dict[str, tuple[Right, ...]]) -> tuple[AccessPolicy, ...]:
    """Return *defaults* with fresh keys."""
    return tuple(
        AccessPolicy(name, new_key(), new_key(), frozenset(rights))
        for name, rights in defaults.items()
    )


def merge_policies(
    wanted: Sequence[PolicySpecification],
    stored: Sequence[AccessPolicy],
    *,
    allowed: Collection[Right],
) -> tuple[AccessPolicy, ...]:
    """Return the policies that *wanted* makes of *stored*: exactly those, by rule 2.

    Raises `Problem(MALFORMED)` for names, rights or keys that cannot be, `Problem(CONFLICT)`
    for two of a name or too many.
    """
    if len(wanted) > MAX_POLICIES:
        raise Problem(Kind.CONFLICT, f"there can be at most {MAX_POLICIES} shared access policies")
    known = {policy.key_name: policy for policy in stored}
    merged: dict[str, AccessPolicy] = {}
    for entry in wanted:
        check_key_name(entry.key_name)
        if entry.key_name in merged:
            raise Problem(
                Kind.CONFLICT, f"the shared access policy {entry.key_name} is given twice"
            )
        before = known.get(entry.key_name)
        merged[entry.key_name] = AccessPolicy(
            key_name=entry.key_name,
            primary_key=_key(entry.primary_key, before.primary_key if before else None),
            secondary_key=_key(entry.secondary_key, before.secondary_key if before else None),
            rights=parse_rights(entry.rights, allowed=allowed),
        )
    return tuple(merged.values())


def parse_rights(text: str, *, allowed: Collection[Right]) -> frozenset[Right]:
    """Return the rights that *text* lists between commas; raises `Problem(MALFORMED)`."""
    by_name = {right.value.lower(): right for right in allowed}
    found: set[Right] = set()
    for word in text.split(","):
        right = by_name.get(word.strip().lower())
        if right is None:
            names = ", ".join(sorted(right.value for right in allowed))
            raise Problem(Kind.MALFORMED, f"a policy's rights are some of {names}")
        found.add(right)
        if right in _IMPLIED:
            found.add(_IMPLIED[right])
    return frozenset(found)


def format_rights(rights: Collection[Right]) -> str:
    """Return *rights* as the management API spells them, always in the same order."""
    return ", ".join(right.value for right in Right if right in rights)


def _key(given: str | None, stored: str | None) -> str:
    if not given:
        return stored or new_key()
    parse_key(given)
    return given
