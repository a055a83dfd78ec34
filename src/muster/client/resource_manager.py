"""Azure Resource Manager: hubs, provisioning services, their certificates, keys and links.

Works against Azure and against Muster. Creating a hub in Azure takes minutes; the exchanges
here wait for it, within a limit, by reading the resource until its state is final.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from muster.client.errors import ServiceError
from muster.client.exchange import (
    Bearer,
    Exchange,
    Request,
    Wait,
    ask,
    ask_if_there,
    base_url,
    decode,
    json_request,
    segment,
)
from muster.client.shared_access import ConnectionString, SharedAccessKey
from muster.client.tokens import RESOURCE_MANAGER_SCOPE
from muster.errors import Kind

PUBLIC_URL = "https://management.azure.com"

# Released versions that Azure serves and that know `isVerified` on upload.
_API_VERSION = {"IotHubs": "2023-06-30", "provisioningServices": "2022-12-12"}

# The smallest that can do all of the tutorial.
_SKU = {"name": "S1", "capacity": 1}

# Azure makes a hub in two to five minutes. Ours answers at once and is never waited for.
_POLL_SECONDS = 5.0
_POLLS = 180
# A subscription holds at most 50 hubs; a list that never ends is a fault.
_MAX_PAGES = 100


class ResourceType(Enum):
    """The two kinds of resource, by their name in a path."""

    HUB = "IotHubs"
    PROVISIONING = "provisioningServices"

    @property
    def word(self) -> str:
        """What people call one."""
        return "hub" if self is ResourceType.HUB else "provisioning service"


class Resource(msgspec.Struct, frozen=True):
    """A hub or a provisioning service as the resource manager shows it."""

    name: str
    id: str = ""
    location: str = ""
    etag: str | None = None
    tags: dict[str, str] | None = None
    sku: dict[str, Any] | None = None
    properties: dict[str, Any] = {}

    @property
    def state(self) -> str:
        """The provisioning state; "Succeeded" when the service does not say."""
        return str(self.properties.get("provisioningState") or "Succeeded")

    def text(self, name: str) -> str:
        """Return the property *name* as text, or "" when it is not there."""
        return str(self.properties.get(name) or "")


class UploadedCertificate(msgspec.Struct, frozen=True):
    """A CA certificate that a hub or a provisioning service knows."""

    name: str
    etag: str | None = None
    properties: dict[str, Any] = {}

    @property
    def is_verified(self) -> bool:
        """Whether devices may be authenticated with it."""
        return self.properties.get("isVerified") is True

    @property
    def thumbprint(self) -> str:
        """The SHA-1 digest in hexadecimal, upper case, or "" when the service does not say."""
        return str(self.properties.get("thumbprint") or "").upper()


class _Key(msgspec.Struct, frozen=True, rename="camel"):
    key_name: str
    primary_key: str
    secondary_key: str = ""
    rights: str = ""


class _Page(msgspec.Struct, frozen=True, rename="camel"):
    value: list[msgspec.Raw]
    next_link: str | None = None


class ResourceManager:
    """One resource group of one subscription at *url*."""

    def __init__(
        self,
        subscription_id: str,
        resource_group: str,
        *,
        url: str = PUBLIC_URL,
        scope: str = RESOURCE_MANAGER_SCOPE,
    ) -> None:
        self.url = base_url(url)
        self._authorization = Bearer(scope)
        self._prefix = (
            f"{self.url}/subscriptions/{segment(subscription_id)}"
            f"/resourceGroups/{segment(resource_group)}/providers/Microsoft.Devices"
        )

    def find(self, kind: ResourceType, name: str) -> Exchange[Resource | None]:
        """Return the resource *name*, or None when there is none."""
        purpose = f"read the {kind.word} {name!r}"
        answer = yield from ask_if_there(self._request("GET", kind, segment(name), None, purpose))
        return None if answer is None else decode(answer, Resource, purpose)

    def get(self, kind: ResourceType, name: str) -> Exchange[Resource]:
        """Return the resource *name*; raises `ServiceError(NOT_FOUND)`."""
        purpose = f"read the {kind.word} {name!r}"
        answer = yield from ask(self._request("GET", kind, segment(name), None, purpose))
        return decode(answer, Resource, purpose)

    def list_resources(self, kind: ResourceType) -> Exchange[list[Resource]]:
        """Return every resource of *kind* in the group."""
        purpose = f"list the {kind.word}s"
        raw = yield from self._pages(self._request("GET", kind, "", None, purpose), purpose)
        return [_convert(entry, Resource, purpose) for entry in raw]

    def ensure(
        self,
        kind: ResourceType,
        name: str,
        *,
        location: str,
        tags: Mapping[str, str] | None = None,
    ) -> Exchange[Resource]:
        """Have the resource *name*, and wait until it works; one that exists is left as it is."""
        present = yield from self.find(kind, name)
        if present is None:
            purpose = f"create the {kind.word} {name!r}"
            body = {
                "location": location,
                "tags": dict(tags or {}),
                "sku": _SKU,
                "properties": {},
            }
            yield from ask(self._request("PUT", kind, segment(name), body, purpose))
        return (yield from self._settled(kind, name))

    def delete(self, kind: ResourceType, name: str) -> Exchange[None]:
        """Delete the resource *name*; harmless when there is none."""
        purpose = f"delete the {kind.word} {name!r}"
        yield from ask_if_there(self._request("DELETE", kind, segment(name), None, purpose))

    def key(self, kind: ResourceType, name: str, key_name: str) -> Exchange[SharedAccessKey]:
        """Return the primary key of the shared access policy *key_name*. It is a secret."""
        purpose = f"read the key {key_name!r} of the {kind.word} {name!r}"
        folder = "IotHubKeys" if kind is ResourceType.HUB else "keys"
        path = f"{segment(name)}/{folder}/{segment(key_name)}/listkeys"
        answer = yield from ask(self._request("POST", kind, path, None, purpose))
        found = decode(answer, _Key, purpose)
        return SharedAccessKey(found.key_name, found.primary_key)

    def link_hub(
        self, service: str, connection: ConnectionString, *, location: str
    ) -> Exchange[Resource]:
        """Let the provisioning service *service* assign devices to the hub of *connection*.

        A link to the same host that is there already is given this key. Other links are sent
        back as they were read, keys masked, which means "keep".
        """
        kind = ResourceType.PROVISIONING
        purpose = f"link the hub {connection.hostname!r} to {service!r}"
        present = yield from self.get(kind, service)
        links = [
            link
            for link in present.properties.get("iotHubs") or []
            if _host_of(link).lower() != connection.hostname.lower()
        ]
        links.append({"connectionString": connection.render(), "location": location})
        body = {
            "location": present.location or location,
            "tags": present.tags or {},
            "sku": present.sku or _SKU,
            "properties": {**present.properties, "iotHubs": links},
        }
        yield from ask(self._request("PUT", kind, segment(service), body, purpose))
        return (yield from self._settled(kind, service))

    def list_certificates(
        self, kind: ResourceType, resource: str
    ) -> Exchange[list[UploadedCertificate]]:
        """Return the CA certificates that *resource* knows."""
        purpose = f"list the certificates of the {kind.word} {resource!r}"
        path = f"{segment(resource)}/certificates"
        raw = yield from self._pages(self._request("GET", kind, path, None, purpose), purpose)
        return [_convert(entry, UploadedCertificate, purpose) for entry in raw]

    def trust(
        self, kind: ResourceType, resource: str, name: str, certificate: x509.Certificate
    ) -> Exchange[UploadedCertificate]:
        """Have *certificate* at *resource* under *name*, its status verified; safe to repeat.

        Whoever calls this attests that the CA is theirs ("set certificate status to verified on
        upload"): no proof of possession is asked for. Another certificate of that name is
        replaced, which is refused when it changed meanwhile.
        """
        purpose = f"upload the CA certificate {name!r} to the {kind.word} {resource!r}"
        path = f"{segment(resource)}/certificates/{segment(name)}"
        found = yield from ask_if_there(self._request("GET", kind, path, None, purpose))
        headers = {}
        if found is not None:
            present = decode(found, UploadedCertificate, purpose)
            if present.is_verified and present.thumbprint == _thumbprint(certificate):
                return present
            headers = {"if-match": present.etag or "*"}
        der = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")
        body = {"properties": {"certificate": der, "isVerified": True}}
        request = self._request("PUT", kind, path, body, purpose, headers=headers)
        uploaded = decode((yield from ask(request)), UploadedCertificate, purpose)
        if not uploaded.is_verified:
            raise ServiceError(Kind.CONFLICT, f"could not {purpose}: it is there but not verified")
        return uploaded

    def _settled(self, kind: ResourceType, name: str) -> Exchange[Resource]:
        for _ in range(_POLLS):
            resource = yield from self.get(kind, name)
            state = resource.state.lower()
            if state == "succeeded":
                return resource
            if state in {"failed", "canceled"}:
                raise ServiceError(Kind.CONFLICT, f"the {kind.word} {name!r} is {resource.state}")
            yield Wait(_POLL_SECONDS)
        raise ServiceError(
            Kind.UNAVAILABLE,
            f"the {kind.word} {name!r} was not ready after {int(_POLLS * _POLL_SECONDS)} s",
        )

    def _pages(self, request: Request, purpose: str) -> Exchange[list[msgspec.Raw]]:
        entries: list[msgspec.Raw] = []
        for _ in range(_MAX_PAGES):
            page = decode((yield from ask(request)), _Page, purpose)
            entries.extend(page.value)
            if not page.next_link:
                return entries
            if not page.next_link.startswith(f"{self.url}/"):
                raise ServiceError(
                    Kind.UNAVAILABLE, f"could not {purpose}: the next page is on another host"
                )
            request = replace(request, url=page.next_link, params={})
        raise ServiceError(Kind.UNAVAILABLE, f"could not {purpose}: the list does not end")

    def _request(
        self,
        method: str,
        kind: ResourceType,
        path: str,
        body: Any,
        purpose: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        url = f"{self._prefix}/{kind.value}"
        return json_request(
            method,
            f"{url}/{path}" if path else url,
            body,
            purpose=purpose,
            # PUT replaces, DELETE forgives, and the only POSTs here read keys.
            repeatable=True,
            authorization=self._authorization,
            params={"api-version": _API_VERSION[kind.value]},
            headers=dict(headers or {}),
        )


def _convert(raw: msgspec.Raw, kind: type[Any], purpose: str) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise ServiceError(
            Kind.UNAVAILABLE,
            f"could not {purpose}: the answer is not what this API promises ({error})",
        ) from error


def _host_of(link: Mapping[str, Any]) -> str:
    # Azure names a link by its host; the connection string comes back with the key masked.
    for part in str(link.get("connectionString") or "").split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "hostname":
            return value.strip()
    return str(link.get("hostName") or link.get("name") or "")


def _thumbprint(certificate: x509.Certificate) -> str:
    # SHA-1 is how the resource manager names a certificate; nothing is trusted because of it.
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - see above
