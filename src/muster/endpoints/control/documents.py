"""Resources in the resource manager's JSON: what is taken from it, and what is shown.

Rules:

1. What a client may not set is ignored: it comes back from a GET that it repeats.
2. What is not understood is kept and given back, but for secrets, which are masked on the way in.
3. A property that would *restrict* access and that nothing here enforces is refused: giving it
   back would say that it holds.
4. Keys are never in a resource. `key_document` is for the calls that exist to show them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any, TypeVar

import msgspec
from cryptography import x509

from muster.certs.identity import sha1_thumbprint
from muster.control.hubs import HubSpecification
from muster.control.links import LinkSpecification
from muster.control.policies import PolicySpecification, format_rights
from muster.control.services import ServiceSpecification
from muster.errors import Kind, Problem
from muster.model.resource import (
    AccessPolicy,
    CaCertificate,
    Hub,
    LinkedHub,
    ProvisioningService,
    ResourceAddress,
    ResourceGroup,
    Subscription,
)
from muster.protocols.connection_string import MASK, mask_connection_string

HUB_TYPE = "Microsoft.Devices/IotHubs"
SERVICE_TYPE = "Microsoft.Devices/provisioningServices"

T = TypeVar("T")

# Real documents nest five deep. The bound keeps whoever reads them from running out of stack.
_MAX_DEPTH = 16
_READ_ONLY = {"id", "name", "type", "etag", "systemData", "resourcegroup", "subscriptionid"}
_HUB_READ_ONLY = {"provisioningState", "state", "hostName", "locations"}
_SERVICE_READ_ONLY = {
    "provisioningState",
    "state",
    "serviceOperationsHostName",
    "deviceProvisioningHostName",
    "idScope",
}
# Property: what it may be here. Anything else would promise a restriction.
_UNRESTRICTED: dict[str, tuple[Any, ...]] = {
    "publicNetworkAccess": (None, "Enabled"),
    "disableLocalAuth": (None, False),
    "disableDeviceSAS": (None, False),
    "disableModuleSAS": (None, False),
    "restrictOutboundNetworkAccess": (None, False),
    "ipFilterRules": (None, []),
    "networkRuleSets": (None, {}),
    "minTlsVersion": (None, "", "1.0", "1.2"),
}
_SECRET_NAMES = {"primarykey", "secondarykey", "accesskey", "sharedaccesskey", "password", "secret"}
_SECRET_FIELDS = re.compile(
    r"((?:SharedAccessKey|SharedAccessSignature|AccountKey|sig)\s*=\s*)[^;&\s]*", re.IGNORECASE
)


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in *body*; nothing at all is an empty one. `Problem(MALFORMED)`."""
    if not body.strip():
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(Kind.MALFORMED, "the body is not JSON, or nested too deeply") from error
    return _of(dict, value, "the body")


def hub_specification(body: Mapping[str, Any]) -> HubSpecification:
    """Return the hub that *body* asks for; raises `Problem(MALFORMED)`, `Problem(UNSUPPORTED)`."""
    properties = dict(_optional(dict, body.get("properties"), "properties") or {})
    _refuse_restrictions(properties)
    policies = _policies(properties.pop("authorizationPolicies", None))
    endpoints = _optional(dict, properties.pop("eventHubEndpoints", None), "eventHubEndpoints")
    events = _optional(dict, (endpoints or {}).get("events"), "eventHubEndpoints.events") or {}
    return HubSpecification(
        policies=policies,
        partition_count=_number(events.get("partitionCount"), "partitionCount"),
        retention_days=_number(events.get("retentionTimeInDays"), "retentionTimeInDays"),
        document=_kept(body, properties, _HUB_READ_ONLY),
    )


def service_specification(body: Mapping[str, Any]) -> ServiceSpecification:
    """Return the provisioning service that *body* asks for; raises as `hub_specification`."""
    properties = dict(_optional(dict, body.get("properties"), "properties") or {})
    _refuse_restrictions(properties)
    policies = _policies(properties.pop("authorizationPolicies", None))
    links = _optional(list, properties.pop("iotHubs", None), "iotHubs")
    allocation = _optional(str, properties.pop("allocationPolicy", None), "allocationPolicy")
    return ServiceSpecification(
        policies=policies,
        links=None if links is None else tuple(_link(entry) for entry in links),
        allocation_policy=allocation,
        document=_kept(body, properties, _SERVICE_READ_ONLY),
    )


def certificate_request(body: Mapping[str, Any]) -> tuple[str, bool | None]:
    """Return the text of the certificate that *body* uploads and its `isVerified`."""
    # Older API versions put both beside `properties`.
    holder = _optional(dict, body.get("properties"), "properties") or body
    text = _of(str, holder.get("certificate"), "certificate")
    return text, _optional(bool, holder.get("isVerified"), "isVerified")


def requested_name(body: Mapping[str, Any]) -> str:
    """Return the `name` in *body*, alone or within `properties`."""
    holder = body if "name" in body else _optional(dict, body.get("properties"), "properties") or {}
    return _of(str, holder.get("name"), "name")


def resource_path(address: ResourceAddress, kind: str) -> str:
    """Return the resource id of the resource of type *kind* at *address*."""
    return (
        f"/subscriptions/{address.subscription_id}/resourceGroups/{address.resource_group}"
        f"/providers/{kind}/{address.name}"
    )


def hub_document(hub: Hub) -> dict[str, Any]:
    """Return *hub* as the resource it is, without a key."""
    location = hub.document["location"]
    events = {
        "retentionTimeInDays": hub.retention_days,
        "partitionCount": hub.partition_count,
        "partitionIds": [str(number) for number in range(hub.partition_count)],
        "path": hub.address.name.lower(),
        "endpoint": f"sb://{hub.hostname}/",
    }
    return {
        **hub.document,
        "id": resource_path(hub.address, HUB_TYPE),
        "name": hub.address.name,
        "type": HUB_TYPE,
        "etag": str(hub.etag),
        "properties": {
            **hub.document["properties"],
            "provisioningState": "Succeeded",
            "state": "Active",
            "hostName": hub.hostname,
            "locations": [{"location": location, "role": "primary"}],
            "eventHubEndpoints": {"events": events},
        },
    }


def service_document(service: ProvisioningService, global_hostname: str) -> dict[str, Any]:
    """Return *service* as the resource it is, without a key; devices dial *global_hostname*."""
    return {
        **service.document,
        "id": resource_path(service.address, SERVICE_TYPE),
        "name": service.address.name,
        "type": SERVICE_TYPE,
        "etag": str(service.etag),
        "resourcegroup": service.address.resource_group,
        "subscriptionid": service.address.subscription_id,
        "properties": {
            **service.document["properties"],
            "provisioningState": "Succeeded",
            "state": "Active",
            "allocationPolicy": service.allocation_policy.value,
            "iotHubs": [_link_document(link) for link in service.linked_hubs],
            "serviceOperationsHostName": service.hostname,
            "deviceProvisioningHostName": global_hostname,
            "idScope": service.id_scope,
        },
    }


def certificate_document(
    entry: CaCertificate, parent: ResourceAddress, kind: str, *, with_code: bool = False
) -> dict[str, Any]:
    """Return *entry* of the resource of type *kind*; its code only *with_code*."""
    certificate = x509.load_der_x509_certificate(entry.der)
    properties = {
        "subject": certificate.subject.rfc4514_string(),
        "expiry": http_date(certificate.not_valid_after_utc),
        "thumbprint": str(sha1_thumbprint(entry.der)),
        "isVerified": entry.is_verified,
        "created": http_date(entry.created),
        "updated": http_date(entry.updated),
        "certificate": base64.b64encode(entry.der).decode(),
    }
    if with_code:
        properties["verificationCode"] = entry.verification_code
    return {
        "id": f"{resource_path(parent, kind)}/certificates/{entry.name}",
        "name": entry.name,
        "type": f"{kind}/Certificates",
        "etag": str(entry.etag),
        "properties": properties,
    }


def key_document(policy: AccessPolicy) -> dict[str, str]:
    """Return *policy* with its keys."""
    return {
        "keyName": policy.key_name,
        "primaryKey": policy.primary_key,
        "secondaryKey": policy.secondary_key,
        "rights": format_rights(policy.rights),
    }


def consumer_group_document(hub: Hub, name: str) -> dict[str, Any]:
    """Return the consumer group *name* of *hub*."""
    path = f"{resource_path(hub.address, HUB_TYPE)}/eventHubEndpoints/events/ConsumerGroups/{name}"
    return {
        "id": path,
        "name": name,
        "type": f"{HUB_TYPE}/EventHubEndpoints/ConsumerGroups",
        "properties": {"name": name, "created": http_date(hub.created)},
    }


def subscription_document(subscription: Subscription) -> dict[str, Any]:
    """Return *subscription* as the resource manager lists it."""
    return {
        "id": f"/subscriptions/{subscription.id}",
        "subscriptionId": subscription.id,
        "tenantId": subscription.tenant_id,
        "displayName": subscription.name,
        "state": "Enabled",
    }


def group_document(group: ResourceGroup) -> dict[str, Any]:
    """Return *group* as the resource manager lists it."""
    return {
        "id": f"/subscriptions/{group.subscription_id}/resourceGroups/{group.name}",
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "properties": {"provisioningState": "Succeeded"},
    }


def http_date(moment: datetime) -> str:
    """Return *moment* as RFC 1123 has it, the one form that both SDKs read in certificates."""
    return format_datetime(moment, usegmt=True)


def _of(kind: type[T], value: Any, what: str) -> T:
    # bool is an int, and no number.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {dict: "an object", list: "a list", str: "a text", int: "a number"}
        raise Problem(Kind.MALFORMED, f"{what} must be {words.get(kind, 'true or false')}")
    return value


def _optional(kind: type[T], value: Any, what: str) -> T | None:
    return None if value is None else _of(kind, value, what)


def _number(value: Any, what: str) -> int | None:
    return _optional(int, value, what)


def _policies(value: Any) -> tuple[PolicySpecification, ...] | None:
    entries = _optional(list, value, "authorizationPolicies")
    if entries is None:
        return None
    found: list[PolicySpecification] = []
    for entry in entries:
        policy: dict[str, Any] = _of(dict, entry, "a shared access policy")
        found.append(
            PolicySpecification(
                key_name=_of(str, policy.get("keyName"), "keyName"),
                rights=_of(str, policy.get("rights"), "rights"),
                primary_key=_optional(str, policy.get("primaryKey"), "primaryKey"),
                secondary_key=_optional(str, policy.get("secondaryKey"), "secondaryKey"),
            )
        )
    return tuple(found)


def _link(value: Any) -> LinkSpecification:
    entry: dict[str, Any] = _of(dict, value, "a linked hub")
    kind = _optional(str, entry.get("authenticationType"), "authenticationType") or "KeyBased"
    if kind.lower() != "keybased":
        raise Problem(Kind.UNSUPPORTED, "a hub is linked by its key: authenticationType KeyBased")
    return LinkSpecification(
        connection_string=_optional(str, entry.get("connectionString"), "connectionString"),
        hostname=_optional(str, entry.get("hostName") or entry.get("name"), "hostName"),
        location=_optional(str, entry.get("location"), "location"),
        apply_allocation_policy=_optional(
            bool, entry.get("applyAllocationPolicy"), "applyAllocationPolicy"
        ),
        allocation_weight=_number(entry.get("allocationWeight"), "allocationWeight"),
    )


def _link_document(link: LinkedHub) -> dict[str, Any]:
    return {
        "name": link.hostname,
        "hostName": link.hostname,
        "connectionString": mask_connection_string(link.connection_string),
        "location": link.location,
        "applyAllocationPolicy": link.apply_allocation_policy,
        "allocationWeight": link.allocation_weight,
        "authenticationType": "KeyBased",
    }


def _refuse_restrictions(properties: Mapping[str, Any]) -> None:
    for name, harmless in _UNRESTRICTED.items():
        if name in properties and properties[name] not in harmless:
            raise Problem(Kind.UNSUPPORTED, f"{name} cannot be set here: nothing would enforce it")


def _kept(
    body: Mapping[str, Any], properties: Mapping[str, Any], read_only: set[str]
) -> dict[str, Any]:
    document = {name: value for name, value in body.items() if name not in _READ_ONLY}
    document["properties"] = {
        name: value for name, value in properties.items() if name not in read_only
    }
    kept: dict[str, Any] = _without_secrets(document, _MAX_DEPTH)
    return kept


def _without_secrets(value: Any, depth: int) -> Any:
    if depth == 0:
        raise Problem(Kind.MALFORMED, f"the resource is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict):
        return {
            name: MASK
            if name.lower() in _SECRET_NAMES and isinstance(inner, str)
            else _without_secrets(inner, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(inner, depth - 1) for inner in value]
    if isinstance(value, str):
        return _SECRET_FIELDS.sub(rf"\g<1>{MASK}", value)
    return value


def values(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return *documents* as the one page of a list."""
    return {"value": list(documents)}
