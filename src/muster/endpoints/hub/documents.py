"""The registry's JSON: what clients send of a device, and what they are shown.

Keys and values are IoT Hub's (facts/hub.md 3). Unknown keys are ignored, as real clients send
back whole documents with fields that only the hub may set.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from muster.endpoints.hub.wire import timestamp
from muster.errors import Kind, Problem
from muster.hub.registry import DeviceSettings
from muster.hub.sessions import ConnectionState
from muster.ids import DeviceId, Thumbprint
from muster.model.device import AuthenticationType, Device, DeviceAuthentication, DeviceStatus

# IoT Hub's "never". Python's SDK parses it, .NET compares with it.
_NEVER = "0001-01-01T00:00:00"

Document = TypeVar("Document")


class SymmetricKey(msgspec.Struct, rename="camel"):
    """A device's two keys."""

    primary_key: str | None = None
    secondary_key: str | None = None


class X509Thumbprint(msgspec.Struct, rename="camel"):
    """A device's two thumbprints."""

    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None


class Authentication(msgspec.Struct, rename="camel"):
    """How a device authenticates."""

    type: str | None = None
    symmetric_key: SymmetricKey | None = None
    x509_thumbprint: X509Thumbprint | None = msgspec.field(name="x509Thumbprint", default=None)


class Capabilities(msgspec.Struct, rename="camel"):
    """What a device is."""

    iot_edge: bool = False


class DeviceDocument(msgspec.Struct, rename="camel"):
    """A device as a client sends it."""

    device_id: str
    status: str | None = None
    status_reason: str | None = None
    authentication: Authentication | None = None
    capabilities: Capabilities | None = None


class BulkDevice(msgspec.Struct, rename="camel"):
    """One device of a bulk call; these spell some keys in their own way."""

    id: str
    import_mode: str | None = None
    e_tag: str | None = msgspec.field(name="eTag", default=None)
    status: str | None = None
    status_reason: str | None = None
    authentication: Authentication | None = None
    capabilities: Capabilities | None = None
    tags: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    module_id: str | None = None


def parse_document(body: bytes, kind: type[Document]) -> Document:
    """Return *body* as *kind*; raises `Problem(MALFORMED)` that says where it is not."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(Kind.MALFORMED, f"the body is not as expected: {error}") from None


def device_settings(sent: DeviceDocument | BulkDevice) -> DeviceSettings:
    """Return what a client asks for. Raises `Problem(MALFORMED)`."""
    return DeviceSettings(
        device_id=DeviceId.parse(sent.id if isinstance(sent, BulkDevice) else sent.device_id),
        status=_status(sent.status),
        status_reason=sent.status_reason,
        authentication=None if sent.authentication is None else _proof(sent.authentication),
        iot_edge=sent.capabilities is not None and sent.capabilities.iot_edge,
    )


def device_document(device: Device, connection: ConnectionState) -> dict[str, Any]:
    """Return a device as clients are shown it, keys included: the caller may read them."""
    proof = device.authentication
    return {
        "deviceId": device.device_id,
        "generationId": device.generation_id,
        "etag": device.etag,
        "connectionState": "Connected" if connection.connected else "Disconnected",
        "status": device.status.value,
        "statusReason": device.status_reason,
        "connectionStateUpdatedTime": _moment(connection.changed),
        "statusUpdatedTime": timestamp(device.status_updated),
        "lastActivityTime": _moment(connection.last_activity),
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "symmetricKey": {
                "primaryKey": proof.primary_key,
                "secondaryKey": proof.secondary_key,
            },
            "x509Thumbprint": {
                "primaryThumbprint": proof.primary_thumbprint,
                "secondaryThumbprint": proof.secondary_thumbprint,
            },
            "type": proof.type.value,
        },
        "capabilities": {"iotEdge": device.iot_edge},
    }


def _status(text: str | None) -> DeviceStatus:
    if text is None:
        return DeviceStatus.ENABLED
    try:
        return DeviceStatus(text.lower())  # .NET's enumerations may come with a capital
    except ValueError:
        raise Problem(Kind.MALFORMED, "status is enabled or disabled") from None


_TYPES = {one.value.lower(): one for one in AuthenticationType}


def _proof(sent: Authentication) -> DeviceAuthentication:
    keys = sent.symmetric_key or SymmetricKey()
    prints = sent.x509_thumbprint or X509Thumbprint()
    if sent.type is None:
        # Older clients leave the type out: thumbprints speak for themselves.
        has_print = prints.primary_thumbprint or prints.secondary_thumbprint
        kind = AuthenticationType.SELF_SIGNED if has_print else AuthenticationType.SAS
    elif (known := _TYPES.get(sent.type.lower())) is not None:
        kind = known
    else:
        raise Problem(Kind.MALFORMED, f"authentication.type is one of {', '.join(_TYPES)}")
    return DeviceAuthentication(
        type=kind,
        primary_key=keys.primary_key,
        secondary_key=keys.secondary_key,
        primary_thumbprint=_thumbprint(prints.primary_thumbprint),
        secondary_thumbprint=_thumbprint(prints.secondary_thumbprint),
    )


def _thumbprint(text: str | None) -> Thumbprint | None:
    return Thumbprint.parse(text) if text else None


def _moment(moment: datetime | None) -> str:
    return _NEVER if moment is None else timestamp(moment)
