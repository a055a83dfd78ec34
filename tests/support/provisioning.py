"""A provisioning service on a real database, with hubs that can be told to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select
from tests.support.pki import Credential, TestAuthority

from muster.errors import Problem
from muster.ids import RegistrationId, new_etag
from muster.model.device import ProvisionedDevice
from muster.model.enrollment import CaReferences, EnrollmentGroup
from muster.model.peer import Peer
from muster.model.resource import (
    AccessPolicy,
    AllocationPolicy,
    CaCertificate,
    LinkedHub,
    ProvisioningService,
    ResourceAddress,
    Right,
)
from muster.provisioning.enrollments import Enrollments, GroupSettings
from muster.provisioning.records import RegistrationRecords
from muster.provisioning.registration import Admission, Registrar, RegistrarSettings
from muster.store.audit import audit
from muster.store.database import Database
from muster.store.enrollments import SqlEnrollmentStore
from muster.store.outbox import outbox
from muster.store.registrations import SqlRegistrationStore
from muster.store.schema import metadata

ID_SCOPE = "0ne004A9EDB"
SERVICE_HOST = "dps.example"
OWNER = AccessPolicy(
    "provisioningserviceowner",
    "a2V5LW9uZS1hMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
    "a2V5LXR3by1hMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
    frozenset(
        {
            Right.SERVICE_CONFIG,
            Right.ENROLLMENT_READ,
            Right.ENROLLMENT_WRITE,
            Right.REGISTRATION_STATUS_READ,
            Right.REGISTRATION_STATUS_WRITE,
            Right.DEVICE_CONNECT,
        }
    ),
)
READER = AccessPolicy(
    "reader",
    "a2V5LXRocmVlMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
    "a2V5LWZvdXIwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
    frozenset({Right.ENROLLMENT_READ}),
)


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)
        self.seconds = 1000.0

    def now(self) -> datetime:
        """The present moment."""
        return self.moment

    def monotonic(self) -> float:
        """The same, in seconds."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.moment += timedelta(seconds=seconds)
        self.seconds += seconds


def der(certificate: x509.Certificate) -> bytes:
    """The certificate, DER."""
    return certificate.public_bytes(Encoding.DER)


def uploaded(
    name: str, authority: TestAuthority | x509.Certificate, *, verified: bool = True
) -> CaCertificate:
    """A CA certificate as the service holds it."""
    certificate = authority.certificate if isinstance(authority, TestAuthority) else authority
    now = datetime.now(UTC)
    return CaCertificate(name, der(certificate), verified, now, now, new_etag())


def linked(hostname: str, **changes: Any) -> LinkedHub:
    """A link to a hub."""
    text = f"HostName={hostname};SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5"
    return replace(LinkedHub(hostname, text, "westeurope"), **changes)


def a_service(*certificates: CaCertificate, **changes: Any) -> ProvisioningService:
    """A service with one hub that trusts *certificates*."""
    service = ProvisioningService(
        id="service-1",
        address=ResourceAddress("sub", "group", "dps"),
        hostname=SERVICE_HOST,
        id_scope=ID_SCOPE,
        etag=new_etag(),
        created=datetime.now(UTC),
        allocation_policy=AllocationPolicy.HASHED,
        linked_hubs=(linked("hub-1.example"),),
        policies=(OWNER, READER),
        certificates=certificates,
    )
    return replace(service, **changes)


def a_group(attestation: Any = None, **changes: Any) -> EnrollmentGroup:
    """A stored enrolment group."""
    now = datetime.now(UTC)
    group = EnrollmentGroup(
        service_id="service-1",
        group_id="factory",
        etag=new_etag(),
        created=now,
        updated=now,
        attestation=attestation or CaReferences("root"),
    )
    return replace(group, **changes)


def peer_of(credential: Credential, length: int = 1) -> Peer:
    """A connection that presented the first *length* certificates of the credential."""
    chain = (credential.certificate, *credential.issuers)[:length]
    return Peer("127.0.0.1", tuple(der(one) for one in chain))


@dataclass
class Hubs:
    """`ServiceDirectory`, `ServiceHosts`, `LinkedHubRegistry` and `DeviceMover` in memory."""

    services: list[ProvisioningService]
    devices: dict[tuple[str, str], ProvisionedDevice] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)  # raised one by one, then no more
    gate: asyncio.Event | None = None  # when set, calls wait for it

    async def find_service(self, id_scope: str) -> ProvisioningService | None:
        """As the port says."""
        return next((s for s in self.services if s.id_scope.lower() == id_scope.lower()), None)

    async def list_services(self) -> list[ProvisioningService]:
        """As the port says."""
        return self.services

    async def find_services_by_host(self, hostname: str) -> list[ProvisioningService]:
        """As the port says."""
        return [s for s in self.services if s.hostname == hostname.lower()]

    async def ensure_device(self, link: LinkedHub, device: ProvisionedDevice) -> None:
        """As the port says, and written down."""
        await self._called(f"ensure {link.hostname}")
        self.devices[link.hostname, device.device_id] = device

    async def move_device(
        self, origin: LinkedHub, target: LinkedHub, device: ProvisionedDevice, *, keep_data: bool
    ) -> None:
        """As the port says, and written down."""
        await self._called(f"move {origin.hostname} {target.hostname} keep={keep_data}")
        self.devices.pop((origin.hostname, device.device_id), None)
        self.devices[target.hostname, device.device_id] = device

    async def reset_device(self, link: LinkedHub, device: ProvisionedDevice) -> None:
        """As the port says, and written down."""
        await self._called(f"reset {link.hostname}")
        self.devices[link.hostname, device.device_id] = device

    async def _called(self, call: str) -> None:
        self.calls.append(call)
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)


@dataclass
class World:
    """Everything that provisioning needs, and a CA whose devices it admits."""

    root: TestAuthority
    clock: ManualClock
    database: Database
    hubs: Hubs
    enrollments: Enrollments
    registrations: SqlRegistrationStore
    records: RegistrationRecords
    settings: RegistrarSettings
    registrar: Registrar = field(init=False)

    def __post_init__(self) -> None:
        """Start the registrar."""
        self.restart()

    def restart(self) -> None:
        """Have a new registrar that knows nothing but what is stored."""
        self.registrar = Registrar(
            services=self.hubs,
            enrollments=self.enrollments,
            registrations=self.registrations,
            hubs=self.hubs,
            mover=self.hubs,
            clock=self.clock,
            settings=self.settings,
        )

    @property
    def service(self) -> ProvisioningService:
        """The one service."""
        return self.hubs.services[0]

    def change_service(self, **changes: Any) -> None:
        """Change the service as its operator would."""
        self.hubs.services[0] = replace(self.service, etag=new_etag(), **changes)

    async def put(self, settings: GroupSettings) -> EnrollmentGroup:
        """Create or replace a group."""
        try:
            stored = await self.enrollments.get_group(self.service.id, settings.group_id)
        except Problem:
            tag = None
        else:
            tag = stored.etag
        return await self.enrollments.put_group(self.service, settings, tag, actor="test")

    async def judge(self, name: str, credential: Credential | None = None) -> Admission:
        """Judge a device of that name, with a certificate from the root by default."""
        peer = peer_of(credential or self.root.leaf(name))
        return await self.registrar.judge(ID_SCOPE, RegistrationId.parse(name), peer)

    async def audit_trail(self) -> list[tuple[str, str, str]]:
        """What the audit trail holds: actor, action, outcome."""
        columns = (audit.c.actor, audit.c.action, audit.c.outcome)
        return await self.database.read(
            lambda c: [tuple(r) for r in c.execute(select(*columns).order_by(audit.c.id))]
        )

    async def audit_details(self, action: str) -> list[dict[str, str]]:
        """The details of the audit lines of that action."""
        query = select(audit.c.detail).where(audit.c.action == action).order_by(audit.c.id)
        return await self.database.read(lambda c: list(c.execute(query).scalars()))

    async def notices(self) -> list[tuple[str, str]]:
        """What the outbox holds: topic, subject."""
        columns = (outbox.c.topic, outbox.c.subject)
        return await self.database.read(
            lambda c: [tuple(r) for r in c.execute(select(*columns).order_by(outbox.c.id))]
        )


@asynccontextmanager
async def a_world(
    directory: Path, settings: RegistrarSettings | None = None
) -> AsyncIterator[World]:
    """Open a world in *directory*; it has the group `factory`, which refers to its root."""
    root = TestAuthority("Factory Root")
    database = Database(directory / "muster.db")
    metadata.create_all(database.engine)
    clock, hubs = ManualClock(), Hubs([a_service(uploaded("root", root))])
    enrollments = Enrollments(SqlEnrollmentStore(database), clock)
    registrations = SqlRegistrationStore(database)
    world = World(
        root,
        clock,
        database,
        hubs,
        enrollments,
        registrations,
        RegistrationRecords(registrations, clock),
        settings or RegistrarSettings(retry_delays=(0.0, 0.0)),
    )
    await world.put(GroupSettings("factory", CaReferences("root")))
    try:
        yield world
    finally:
        await world.registrar.close(patience=0)
        await database.close()
