"""The hubs that a provisioning service assigns devices to, as its resource document lists them.

Rules:

1. A link is a connection string: a host name, a policy's name and its key. Its name is the host.
2. Keys are shown masked, so a masked one that comes back means: keep the one there is.
3. A host of ours must be a hub, and the key one of its policies' that may write to the registry.
   Any other host may be a hub elsewhere, which is not asked: the first registration will tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from muster.control.hostnames import is_hostname
from muster.errors import Kind, Problem
from muster.model.resource import Hub, LinkedHub, Right
from muster.protocols.connection_string import ConnectionString, parse_connection_string

# The public service's limit. Each allocation weighs all of them.
MAX_LINKED_HUBS = 50
_MAX_LOCATION = 64
MAX_WEIGHT = 1_000
_PORT = re.compile(r":[0-9]{1,5}\Z")


@dataclass(frozen=True, slots=True)
class LinkSpecification:
    """A link as a client asks for it."""

    connection_string: str | None = field(default=None, repr=False)
    hostname: str | None = None
    location: str | None = None
    apply_allocation_policy: bool | None = None
    allocation_weight: int | None = None


def parse_link(text: str) -> ConnectionString:
    """Take a hub's connection string apart; its host in lower case and without a port.

    Raises `Problem(MALFORMED)`, also for fields that a hub's connection string does not have.
    """
    parsed = parse_connection_string(text)
    if parsed.others:
        raise Problem(
            Kind.MALFORMED,
            "a hub's connection string is HostName=…;SharedAccessKeyName=…;SharedAccessKey=…, "
            "and nothing else",
        )
    return replace(parsed, hostname=_hostname(parsed.hostname))


def merge_links(
    wanted: Sequence[LinkSpecification], stored: Sequence[LinkedHub]
) -> tuple[LinkedHub, ...]:
    """Return the links that *wanted* makes of *stored*: exactly those, keys kept by rule 2.

    Does not check that there are such hubs: see `check_link`.

    Raises `Problem(MALFORMED)`, `Problem(CONFLICT)` for two of a host or too many.
    """
    if len(wanted) > MAX_LINKED_HUBS:
        raise Problem(Kind.CONFLICT, f"there can be at most {MAX_LINKED_HUBS} linked hubs")
    known = {link.hostname: link for link in stored}
    merged: dict[str, LinkedHub] = {}
    for entry in wanted:
        link = _merge(entry, known)
        if link.hostname in merged:
            raise Problem(Kind.CONFLICT, f"the hub {link.hostname} is linked twice")
        merged[link.hostname] = link
    return tuple(merged.values())


def check_link(link: LinkedHub, hub: Hub | None, *, ours: bool) -> None:
    """Check *link* against *hub*, the one of that host name; *ours*: it could be nobody else's.

    Raises `Problem(MALFORMED)` by rule 3.
    """
    if hub is None:
        if ours:
            raise Problem(Kind.MALFORMED, f"there is no hub {link.hostname}")
        return
    parsed = parse_link(link.connection_string)
    policy = hub.policy(parsed.key_name)
    if policy is None or not policy.holds(parsed.key):
        raise Problem(
            Kind.MALFORMED,
            f"the connection string's policy or key is not one of the hub {link.hostname}",
        )
    if Right.REGISTRY_WRITE not in policy.rights:
        raise Problem(
            Kind.MALFORMED,
            f"the policy {parsed.key_name} of the hub {link.hostname} may not write its registry",
        )


def _merge(entry: LinkSpecification, known: dict[str, LinkedHub]) -> LinkedHub:
    hostname = None if entry.hostname is None else _hostname(entry.hostname)
    if entry.connection_string is not None:
        parsed = parse_link(entry.connection_string)
        if hostname is not None and hostname != parsed.hostname:
            raise Problem(
                Kind.MALFORMED, "the link's hostName is not the one in its connection string"
            )
        hostname, masked = parsed.hostname, parsed.is_masked
    else:
        masked = True
    if hostname is None:
        raise Problem(Kind.MALFORMED, "a linked hub needs a connectionString")
    before = known.get(hostname)
    connection_string = None if masked else entry.connection_string
    if connection_string is None:
        if before is None:
            raise Problem(
                Kind.MALFORMED,
                f"the hub {hostname} was not linked before, so its connectionString is needed, "
                "with its key",
            )
        connection_string = before.connection_string
    location = entry.location if entry.location is not None else before and before.location
    if not location or len(location) > _MAX_LOCATION or not location.isprintable():
        raise Problem(Kind.MALFORMED, f"the link to {hostname} needs a location")
    weight = _or(entry.allocation_weight, before.allocation_weight if before else None, 1)
    if not 0 <= weight <= MAX_WEIGHT:
        raise Problem(Kind.MALFORMED, f"an allocationWeight is between 0 and {MAX_WEIGHT}")
    applies = entry.apply_allocation_policy
    if applies is None:
        applies = before.apply_allocation_policy if before else True
    return LinkedHub(hostname, connection_string, location, applies, weight)


def _or(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _hostname(text: str) -> str:
    """Return *text* in lower case and without a port; raises `Problem(MALFORMED)`."""
    plain = _PORT.sub("", text.strip()).lower()
    if not is_hostname(plain):
        raise Problem(Kind.MALFORMED, "HostName is neither a host name nor an address")
    return plain
