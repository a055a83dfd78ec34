"""Under which host name a hub and a provisioning service answer. Pure.

Rules (contract.md, "Resources and names"):

1. The tag `muster-hostname` decides, when there is one.
2. Otherwise it is NAME.DOMAIN.
3. Names under `localhost` do not resolve everywhere, and clients refuse `*.localhost`. So on that
   domain the first hub is `localhost` itself and the next ones are 127.0.0.2, 127.0.0.3, …: each
   has an address to listen on, and a name that its server certificate can carry.
4. A domain that is an IP address has no names below it: it is the first hub's, and every
   other hub needs the tag.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping

from muster.errors import Kind, Problem

HOSTNAME_TAG = "muster-hostname"
LOCALHOST = "localhost"
# 127.0.0.1 is the server's own; one octet of neighbours is more hubs than one machine runs.
_LOOPBACKS = [f"127.0.0.{number}" for number in range(2, 255)]
# RFC 1123 section 2.1.
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_MAX_HOSTNAME = 253


def hub_hostname(name: str, *, domain: str, taken: Collection[str], tags: Mapping[str, str]) -> str:
    """Return the host name, in lower case, of the new hub *name*; *taken* are other hubs' names.

    Raises `Problem(MALFORMED)` for a tag that is no host name; `Problem(CONFLICT)` when the
    name is taken, or none is left.
    """
    occupied = {hostname.lower() for hostname in taken}
    wanted = tagged_hostname(tags)
    if wanted is not None:
        candidates = [wanted]
    elif domain.lower() == LOCALHOST:
        candidates = [LOCALHOST, *_LOOPBACKS]
    elif _is_address(domain):
        candidates = [domain.lower()]
    else:
        candidates = [f"{name}.{domain}".lower()]
    for candidate in candidates:
        if candidate not in occupied:
            return candidate
    raise Problem(
        Kind.CONFLICT,
        f"the host name {candidates[0]} is another hub's: set the tag {HOSTNAME_TAG} to one "
        "that leads to this server",
    )


def service_hostname(name: str, *, domain: str) -> str:
    """Return the host name of the provisioning service *name*.

    Services may share one: they are told apart by their id scope, or by being the only one.
    """
    if domain.lower() == LOCALHOST or _is_address(domain):
        return domain.lower()
    return f"{name}.{domain}".lower()


def tagged_hostname(tags: Mapping[str, str]) -> str | None:
    """Return the host name that *tags* ask for, in lower case.

    Raises `Problem(MALFORMED)` unless it is an IPv4 address or a host name (RFC 1123).
    """
    wanted = tags.get(HOSTNAME_TAG)
    if wanted is None:
        return None
    if not is_hostname(wanted):
        raise Problem(
            Kind.MALFORMED, f"the tag {HOSTNAME_TAG} is neither a host name nor an IPv4 address"
        )
    return wanted.lower()


def is_hostname(text: str) -> bool:
    """Whether *text* is a host name (RFC 1123) or an IPv4 address, without a port."""
    labels = text.lower().split(".")
    # Digits alone at the end make it an address, or nothing (RFC 3696 section 2).
    if labels[-1].isdigit():
        return _is_address(text)
    return len(text) <= _MAX_HOSTNAME and all(_LABEL.match(label) for label in labels)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
