"""How the hub writes down where a message comes from, and how it is read back.

Pure. The event stream keeps, beside what the device sent, an envelope of the hub's own:

    version, source          one byte each
    device id, module id,    each: length as two bytes, big-endian, then UTF-8;
    generation, auth method  no module is an empty one
    flags                    one byte
    property bag             the rest: as received, UTF-8

Everything up to the flags is the same for all messages of a session, so it is made once; the bag
was checked when it was received and is kept as it came, because most messages are written
more often than they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, IntFlag

from muster.model.message import Event
from muster.ports.events import StoredEvent
from muster.protocols.property_bag import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CORRELATION_ID,
    EXPIRY,
    INTERFACE_ID,
    MESSAGE_ID,
    SUBJECT,
    TO,
    USER_ID,
    parse_property_bag,
)

_VERSION = 1


class Source(IntEnum):
    """What made an event; stored, so numbers are never reused."""

    TELEMETRY = 0


class Flag(IntFlag):
    """What else is to be known of a message; stored."""

    RETAIN = 1
    WILL = 2


_SOURCE_NAMES = {Source.TELEMETRY: "Telemetry"}

# IoT Hub's short names for AMQP's properties (facts/hub.md 1.6) and what Event Hubs calls them.
_SYSTEM_PROPERTIES = {
    MESSAGE_ID: "message-id",
    CORRELATION_ID: "correlation-id",
    USER_ID: "user-id",
    TO: "to",
    CONTENT_TYPE: "content-type",
    CONTENT_ENCODING: "content-encoding",
    EXPIRY: "absolute-expiry-time",
}
# These two are the hub's annotations, though the device sends them.
_DEVICE_ANNOTATIONS = {INTERFACE_ID: "iothub-interface-id", SUBJECT: "dt-subject"}


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom the hub admitted, as every message of the session names it."""

    device_id: str
    module_id: str | None
    generation_id: str
    auth_method: str


def envelope_prefix(sender: Sender, source: Source = Source.TELEMETRY) -> bytes:
    """Return the part of an envelope that does not change within a session."""
    fields = (sender.device_id, sender.module_id or "", sender.generation_id, sender.auth_method)
    parts = [bytes((_VERSION, source))]
    for text in fields:
        raw = text.encode()
        parts += [len(raw).to_bytes(2, "big"), raw]
    return b"".join(parts)


def seal(prefix: bytes, bag: str, flags: Flag = Flag(0)) -> bytes:  # noqa: B008 - immutable
    """Return the envelope of one message. *bag* was checked by the caller."""
    return b"%b%c%b" % (prefix, flags, bag.encode())


def open_envelope(partition: int, stored: StoredEvent) -> Event:
    """Return *stored* as a reader of the stream sees it.

    Raises `ValueError` for an envelope that this version did not write: a damaged stream or a
    newer program's, and in both cases nothing to guess at.
    """
    sender, source, flags, bag = _decode(stored.envelope)
    system: dict[str, str] = {}
    properties: dict[str, str | None] = {}
    annotations: dict[str, str | int | datetime] = {
        "iothub-connection-device-id": sender.device_id,
        "iothub-connection-auth-method": sender.auth_method,
        "iothub-connection-auth-generation-id": sender.generation_id,
        "iothub-enqueuedtime": stored.enqueued,
        "iothub-message-source": _SOURCE_NAMES[source],
        "x-opt-sequence-number": stored.sequence_number,
        "x-opt-offset": str(stored.offset),
        "x-opt-enqueued-time": stored.enqueued,
    }
    if sender.module_id is not None:
        annotations["iothub-connection-module-id"] = sender.module_id
    for key, value in parse_property_bag(bag).items():
        if key in _SYSTEM_PROPERTIES:
            system[_SYSTEM_PROPERTIES[key]] = value or ""
        elif key in _DEVICE_ANNOTATIONS:
            annotations[_DEVICE_ANNOTATIONS[key]] = value or ""
        else:
            properties[key] = value
    # Last, so that a device cannot claim or hide them.
    if Flag.RETAIN in flags:
        properties["mqtt-retain"] = "true"
    if Flag.WILL in flags:
        properties["iothub-MessageType"] = "Will"
    return Event(
        partition=partition,
        sequence_number=stored.sequence_number,
        offset=stored.offset,
        enqueued=stored.enqueued,
        body=stored.payload,
        system_properties=system,
        properties=properties,
        annotations=annotations,
    )


def _decode(envelope: bytes) -> tuple[Sender, Source, Flag, str]:
    if len(envelope) < 2 or envelope[0] != _VERSION:
        raise ValueError("an event envelope of an unknown version")
    source = Source(envelope[1])
    fields: list[str] = []
    at = 2
    for _ in range(4):
        end = at + 2 + int.from_bytes(envelope[at : at + 2], "big")
        if end >= len(envelope):
            raise ValueError("an event envelope that is cut short")
        fields.append(envelope[at + 2 : end].decode())
        at = end
    device_id, module_id, generation_id, auth_method = fields
    sender = Sender(device_id, module_id or None, generation_id, auth_method)
    return sender, source, Flag(envelope[at]), envelope[at + 1 :].decode()
