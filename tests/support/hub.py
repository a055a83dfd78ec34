"""A hub to try things on: stores in memory, a clock and a stream that are moved by hand."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.pki import Credential, TestAuthority

from muster.errors import Problem
from muster.hub.access import Attempt
from muster.ids import DeviceId, ETag, new_etag
from muster.model.audit import AuditEntry
from muster.model.device import AuthenticationType, Device, DeviceAuthentication, DeviceStatus
from muster.model.notice import Notice
from muster.model.resource import AccessPolicy, CaCertificate, Hub, ResourceAddress, Right
from muster.ports.events import PartitionInfo, StoredEvent
from muster.ports.notices import NoticeHandler
from muster.protocols.sas import build_token

HOST = "hub1.example"
PRIMARY, SECONDARY, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
POLICY_KEY, POLICY_KEY_2 = (base64.b64encode(bytes([n]) * 32).decode() for n in (4, 5))
NOW = datetime.now(UTC).replace(microsecond=0)


def policy(name: str, *rights: Right, primary: str = POLICY_KEY) -> AccessPolicy:
    """Return a shared access policy."""
    return AccessPolicy(name, primary, POLICY_KEY_2, frozenset(rights))


def a_hub(*authorities: TestAuthority, hub_id: str = "hub-1", **changes: Any) -> Hub:
    """Return a hub that has verified *authorities*."""
    hub = Hub(
        id=hub_id,
        address=ResourceAddress("00000000-0000-0000-0000-000000000001", "group", "hub1"),
        hostname=HOST,
        etag=new_etag(),
        created=NOW,
        partition_count=4,
        retention_days=1,
        policies=(
            policy("iothubowner", *Right),
            policy("device", Right.DEVICE_CONNECT),
            policy("service", Right.SERVICE_CONNECT),
            policy("registryRead", Right.REGISTRY_READ),
        ),
        certificates=tuple(a_ca(one) for one in authorities),
    )
    return replace(hub, **changes)


def a_ca(authority: TestAuthority, *, verified: bool = True) -> CaCertificate:
    """Return *authority* as it is uploaded to a hub."""
    der = authority.certificate.public_bytes(Encoding.DER)
    return CaCertificate("ca", der, verified, NOW, NOW, new_etag())


def a_device(device_id: str = "dev1", hub_id: str = "hub-1", **changes: Any) -> Device:
    """Return an enabled device with two keys, but for *changes*."""
    device = Device(
        hub_id=hub_id,
        device_id=DeviceId(device_id),
        generation_id="generation-1",
        etag=new_etag(),
        status=DeviceStatus.ENABLED,
        status_reason=None,
        status_updated=NOW,
        authentication=DeviceAuthentication(
            AuthenticationType.SAS, primary_key=PRIMARY, secondary_key=SECONDARY
        ),
        created=NOW,
    )
    return replace(device, **changes)


def by_ca(device_id: str = "dev1", **changes: Any) -> Device:
    """Return a device that is known by its CA."""
    proof = DeviceAuthentication(AuthenticationType.CERTIFICATE_AUTHORITY)
    return a_device(device_id, authentication=proof, **changes)


def chain(credential: Credential, length: int = 1) -> tuple[bytes, ...]:
    """Return the first *length* certificates as a handshake brings them."""
    sent = (credential.certificate, *credential.issuers)[:length]
    return tuple(one.public_bytes(Encoding.DER) for one in sent)


def token(
    resource: str = f"{HOST}/devices/dev1",
    key: str = PRIMARY,
    *,
    expires: datetime = NOW + timedelta(hours=1),
    name: str | None = None,
) -> bytes:
    """Return a SAS token as a password."""
    return build_token(resource, key, int(expires.timestamp()), name).encode()


def an_attempt(device_id: str = "dev1", **changes: Any) -> Attempt:
    """Return a good attempt by token, but for *changes*."""
    attempt = Attempt(
        host=HOST,
        device_id=DeviceId(device_id),
        module_id=None,
        client_id=device_id,
        password=token(f"{HOST}/devices/{device_id}"),
    )
    return replace(attempt, **changes)


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.moment = NOW
        self.seconds = 1000.0

    def now(self) -> datetime:
        """The present moment."""
        return self.moment

    def monotonic(self) -> float:
        """The same, in seconds."""
        return self.seconds

    def pass_(self, **by: float) -> None:
        """Let time pass."""
        step = timedelta(**by)
        self.moment += step
        self.seconds += step.total_seconds()


class MemoryHubs:
    """A `HubDirectory` of what it is given."""

    def __init__(self, *hubs: Hub) -> None:
        self.hubs = list(hubs)

    async def find_hub(self, hostname: str) -> Hub | None:
        """Find by host name."""
        folded = hostname.lower().partition(":")[0]
        return next((hub for hub in self.hubs if hub.hostname == folded), None)

    async def list_hubs(self) -> list[Hub]:
        """Return all."""
        return list(self.hubs)


@dataclass
class MemoryDevices:
    """A `DeviceStore` that remembers what was asked of it. `before_read` may change things."""

    devices: dict[tuple[str, str], Device] = field(default_factory=dict)
    audits: list[AuditEntry] = field(default_factory=list)
    after_read: Callable[[], None] | None = None
    failing: Problem | None = None

    def put(self, device: Device) -> Device:
        """Store without asking."""
        self.devices[device.hub_id, device.device_id] = device
        return device

    async def get_device(self, hub_id: str, device_id: DeviceId) -> Device | None:
        """Look up; then a test's surprise happens, once."""
        if self.failing is not None:
            raise self.failing
        found = self.devices.get((hub_id, device_id))
        if self.after_read is not None:
            surprise, self.after_read = self.after_read, None
            surprise()
        return found

    async def list_devices(self, hub_id: str, *, after: str, limit: int) -> list[Device]:
        """List by id."""
        found = sorted(
            (d for (h, i), d in self.devices.items() if h == hub_id and i > after),
            key=lambda device: device.device_id,
        )
        return found[:limit]

    async def device_versions(
        self, hub_id: str, device_ids: Sequence[DeviceId]
    ) -> dict[DeviceId, ETag]:
        """Return versions."""
        keys = [(hub_id, one) for one in device_ids]
        return {DeviceId(k[1]): self.devices[k].etag for k in keys if k in self.devices}

    async def count_devices(self, hub_id: str) -> tuple[int, int]:
        """Count."""
        found = [d for (h, _), d in self.devices.items() if h == hub_id]
        return len(found), sum(d.status is DeviceStatus.ENABLED for d in found)

    async def insert_device(self, device: Device, audit: AuditEntry) -> bool:
        """Insert."""
        if (device.hub_id, device.device_id) in self.devices:
            return False
        self.put(device)
        self.audits.append(audit)
        return True

    async def replace_device(self, device: Device, expected: ETag, audit: AuditEntry) -> bool:
        """Replace."""
        stored = self.devices.get((device.hub_id, device.device_id))
        if stored is None or stored.etag != expected:
            return False
        self.put(device)
        self.audits.append(audit)
        return True

    async def delete_device(
        self, hub_id: str, device_id: DeviceId, expected: ETag | None, audit: AuditEntry
    ) -> bool:
        """Delete."""
        stored = self.devices.get((hub_id, device_id))
        if stored is None or expected not in {None, stored.etag}:
            return False
        del self.devices[hub_id, device_id]
        self.audits.append(audit)
        return True

    async def forget_hub(self, hub_id: str, *, limit: int) -> int:
        """Delete some."""
        keys = [key for key in self.devices if key[0] == hub_id][:limit]
        for key in keys:
            del self.devices[key]
        return len(keys)


class MemoryBus:
    """A `NoticeBus` that delivers at once."""

    def __init__(self) -> None:
        self.handlers: dict[str, list[NoticeHandler]] = {}

    def subscribe(self, topic: str, handler: NoticeHandler) -> None:
        """Remember *handler*."""
        self.handlers.setdefault(topic, []).append(handler)

    async def publish(self, notice: Notice) -> None:
        """Deliver."""
        for handler in self.handlers.get(notice.topic, []):
            await handler(notice)


class ManualStream:
    """An `EventStream` whose batches become durable when a test says so."""

    def __init__(self, partition_count: int = 4, *, durable: bool = False) -> None:
        self.partition_count = partition_count
        self.stored: list[list[StoredEvent]] = [[] for _ in range(partition_count)]
        self.appended: list[tuple[int, bytes, bytes]] = []
        self.waiting: list[Callable[[Problem | None], None]] = []
        self.failing: Problem | None = None
        self.arrived = asyncio.Event()
        self._durable = durable
        self._settled = 0

    def append(self, partition: int, envelope: bytes, payload: bytes) -> None:
        """Take an event."""
        if self.failing is not None:
            raise self.failing
        self.appended.append((partition, envelope, payload))
        if self._durable:
            self.settle()

    def append_all(self, partition: int, envelope: bytes, payloads: Sequence[bytes]) -> None:
        """Take events."""
        for payload in payloads:
            self.append(partition, envelope, payload)

    def on_durable(self, callback: Callable[[Problem | None], None]) -> None:
        """Remember *callback* until `settle`."""
        self.waiting.append(callback)

    def settle(self, problem: Problem | None = None) -> None:
        """Make what waits durable, or fail it."""
        callbacks, self.waiting = self.waiting, []
        if problem is None:
            for partition, envelope, payload in self.appended[self._settled :]:
                number = len(self.stored[partition])
                self.stored[partition].append(
                    StoredEvent(number, number * 100, NOW, envelope, payload)
                )
        self._settled = len(self.appended)
        for callback in callbacks:
            callback(problem)
        self.arrived.set()
        self.arrived = asyncio.Event()

    async def read(self, partition: int, start: int, limit: int) -> Sequence[StoredEvent]:
        """Read what is durable."""
        return self.stored[partition][start : start + limit]

    async def wait(self, partition: int, start: int) -> None:
        """Wait for what is not there yet."""
        while len(self.stored[partition]) <= start:
            await self.arrived.wait()

    async def partition_info(self, partition: int) -> PartitionInfo:
        """Return the ends."""
        last = len(self.stored[partition]) - 1
        return PartitionInfo(partition, 0, last, last * 100, NOW if last >= 0 else None)

    async def sequence_number_at(self, partition: int, moment: datetime) -> int:
        """Return the first at or after *moment*."""
        return sum(event.enqueued < moment for event in self.stored[partition])


class MemoryLog:
    """An `EventLog` of manual streams."""

    def __init__(self, *, durable: bool = False) -> None:
        self.streams: dict[str, ManualStream] = {}
        self.deleted = asyncio.Event()
        self._durable = durable

    async def open_stream(
        self, name: str, *, partition_count: int, retention_days: int
    ) -> ManualStream:
        """Return the stream."""
        if name not in self.streams:
            self.streams[name] = ManualStream(partition_count, durable=self._durable)
        return self.streams[name]

    async def delete_stream(self, name: str) -> None:
        """Forget the stream."""
        self.streams.pop(name, None)
        self.deleted.set()

    async def close(self) -> None:
        """Nothing to do."""


class RecordingLink:
    """A `Link` that remembers what it was told."""

    def __init__(self) -> None:
        self.closed_with: str | None = None
        self.closed = asyncio.Event()
        self.flushes = 0
        self.reading = True

    def flush(self) -> None:
        """Count."""
        self.flushes += 1

    def close(self, reason: str) -> None:
        """Remember the first reason."""
        self.closed_with = self.closed_with or reason
        self.closed.set()

    def pause_reading(self) -> None:
        """Remember."""
        self.reading = False

    def resume_reading(self) -> None:
        """Remember."""
        self.reading = True
