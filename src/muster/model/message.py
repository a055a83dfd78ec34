"""A message from a device, as the readers of a hub's event stream see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a hub's stream, in the terms of Event Hubs.

    `system_properties` are AMQP's own (`message-id`, `correlation-id`, `user-id`, `to`,
    `content-type`, `content-encoding`, `absolute-expiry-time`), as text. `properties` are the
    device's; None is a key that came without a value. `annotations` are the hub's word on where
    the event comes from (`iothub-connection-device-id`, `iothub-message-source`, …): a device
    cannot set them. `body` is what the device sent, untouched.
    """

    partition: int
    sequence_number: int
    offset: int
    enqueued: datetime
    body: bytes = field(repr=False)
    system_properties: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str | None] = field(default_factory=dict)
    annotations: dict[str, str | int | datetime] = field(default_factory=dict)
