"""The user name of an MQTT CONNECT: who wants what, and of which service.

    hub            {host}/{device}[/{module}][/?api-version=...&model-id=...&DeviceClientType=...]
    provisioning   {id scope}/registrations/{registration id}/api-version=...&ClientVersion=...

Rules:

1. Three segments whose second is `registrations` are provisioning's, unless a query that begins
   with `?` follows: then a device called `registrations` speaks to a hub.
2. Ids stand as they are, neither percent-encoded nor folded; they cannot hold a slash.
3. Query values are percent-encoded. Unknown names are passed over, for SDKs send many; known
   ones come at most once. What only describes the client is never a reason to refuse it.
4. The client id must agree with the user name; that check is the caller's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from muster.errors import Kind, Problem
from muster.ids import DeviceId, RegistrationId
from muster.protocols.percent import decode_percent

# Ids of 128 characters, a host of 253, and SDK descriptions of some hundreds.
MAX_USER_NAME_LENGTH = 2048
# RFC 1123 section 2.1: labels of letters, digits and hyphens. A port is dropped: it says where
# the client dialled, which the server knows better.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)(?::[0-9]{{1,5}})?\Z")
_ID_SCOPE = re.compile(r"[A-Za-z0-9]{1,32}\Z")
_HUB_VALUES = frozenset({"api-version", "model-id", "DeviceClientType"})
_PROVISIONING_VALUES = frozenset({"api-version", "ClientVersion"})


@dataclass(frozen=True, slots=True)
class HubUserName:
    """A device or module that wants its hub. `host` is in lower case and without a port."""

    host: str
    device_id: DeviceId
    module_id: DeviceId | None = None
    api_version: str | None = None
    model_id: str | None = None
    client_type: str | None = None

    @property
    def client_id(self) -> str:
        """The client id that goes with this user name: `device` or `device/module`."""
        return self.device_id if self.module_id is None else f"{self.device_id}/{self.module_id}"


@dataclass(frozen=True, slots=True)
class ProvisioningUserName:
    """A device that wants to be provisioned."""

    id_scope: str
    registration_id: RegistrationId
    api_version: str | None = None
    client_version: str | None = None


def parse_user_name(text: str) -> HubUserName | ProvisioningUserName:
    """Take a user name apart; raises `Problem(MALFORMED)` when it is neither service's.

    Does not check that the host, the scope or the device exists.
    """
    if len(text) > MAX_USER_NAME_LENGTH:
        raise _bad(f"has at most {MAX_USER_NAME_LENGTH} characters")
    first, _, rest = text.partition("/")
    second, _, rest = rest.partition("/")
    if second == "registrations":
        third, _, query = rest.partition("/")
        if third and not third.startswith("?") and not query.startswith("?"):
            return _provisioning(first, third, query)
    return _hub(first, second, rest)


def _provisioning(id_scope: str, registration_id: str, query: str) -> ProvisioningUserName:
    if _ID_SCOPE.match(id_scope) is None:
        raise _bad("begins with an id scope of letters and digits")
    values = _query(query, _PROVISIONING_VALUES)
    return ProvisioningUserName(
        id_scope,
        RegistrationId.parse(registration_id),
        _strict(values.get("api-version")),
        _lenient(values.get("ClientVersion")),
    )


def _hub(host: str, device: str, rest: str) -> HubUserName:
    named = _HOST.match(host)
    if named is None or len(named[1]) > 253:
        raise _bad("begins with a host name")
    module: DeviceId | None = None
    if rest and not rest.startswith("?"):
        name, _, rest = rest.partition("/")
        module = DeviceId.parse(name)
        if rest and not rest.startswith("?"):
            raise _bad("has no more than a host, a device and a module before its query")
    values = _query(rest[1:], _HUB_VALUES)
    return HubUserName(
        named[1].lower(),
        DeviceId.parse(device),
        module,
        _strict(values.get("api-version")),
        _strict(values.get("model-id")),
        _lenient(values.get("DeviceClientType")),
    )


def _query(text: str, known: frozenset[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in text.split("&"):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            continue
        if name in values:
            raise _bad(f"has {name} once")
        values[name] = value
    return values


def _strict(value: str | None) -> str | None:
    """Decode what somebody may act on."""
    if value is None:
        return None
    decoded = decode_percent(value)
    if not decoded.isprintable():
        raise _bad("has printable values")
    return decoded


def _lenient(value: str | None) -> str | None:
    """Decode what only describes the client, as well as it can be."""
    if value is None:
        return None
    decoded = unquote(value, errors="replace")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in decoded)


def _bad(rule: str) -> Problem:
    return Problem(Kind.MALFORMED, f"a user name {rule}")
