"""A control plane on an empty database, and certificate authorities to upload."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from muster.control.hubs import Hubs, HubSpecification
from muster.control.services import ProvisioningServices, ServiceSpecification
from muster.control.subscriptions import Subscriptions
from muster.model.resource import ResourceAddress
from muster.store.database import Database
from muster.store.resources import SqlResourceStore
from muster.store.schema import metadata

DOCUMENT = {"location": "local", "sku": {"name": "S1", "capacity": 1}}


class TurnableClock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the moment it was turned to."""
        return self.moment

    def monotonic(self) -> float:
        """Return the same in seconds."""
        return self.moment.timestamp()

    def turn(self, **by: float) -> None:
        """Go on by a `timedelta`."""
        self.moment += timedelta(**by)


class Devices:
    """A registry that counts."""

    async def count_devices(self, hub_id: str) -> tuple[int, int]:
        """Return three devices, one of them disabled."""
        return 3, 2


class Authority:
    """A certificate authority that signs what a test asks for."""

    def __init__(self, name: str = "Plant CA", *, ca: bool | None = True, days: int = 30) -> None:
        self.begins = TurnableClock().now() - timedelta(days=1)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), ca=ca, days=days)

    @property
    def der(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    def prove(self, *codes: str, days: int = 30) -> bytes:
        """Return a certificate whose common names are *codes*."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, code) for code in codes])
        key = ec.generate_private_key(ec.SECP256R1())
        return self._sign(subject, key.public_key(), ca=None, days=days).public_bytes(Encoding.DER)

    def _sign(self, subject: x509.Name, key: Any, *, ca: bool | None, days: int) -> Any:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.begins)
            .not_valid_after(self.begins + timedelta(days=days))
        )
        if ca is not None:
            constraints = x509.BasicConstraints(ca=ca, path_length=None)
            builder = builder.add_extension(constraints, critical=True)
        return builder.sign(self.key, hashes.SHA256())


@dataclass
class ControlPlane:
    """Everything a test of the control plane turns."""

    clock: TurnableClock
    database: Database
    store: SqlResourceStore
    subscriptions: Subscriptions
    hubs: Hubs
    services: ProvisioningServices
    subscription_id: str

    def at(self, name: str, group: str = "muster") -> ResourceAddress:
        """Return a place in the bootstrap group."""
        return ResourceAddress(self.subscription_id, group, name)

    def hub(self, **changes: Any) -> HubSpecification:
        """Return a good hub's specification, but for *changes*."""
        return HubSpecification(**({"document": DOCUMENT} | changes))

    def service(self, **changes: Any) -> ServiceSpecification:
        """Return a good provisioning service's specification, but for *changes*."""
        return ServiceSpecification(**({"document": DOCUMENT} | changes))


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """A control plane on the domain `localhost`."""
    clock = TurnableClock()
    database = Database(tmp_path / "muster.db")
    metadata.create_all(database.engine)
    store = SqlResourceStore(database, own_names=["localhost", "127.0.0.1", "::1"])
    subscriptions = Subscriptions(store, clock)
    subscription, _group = await subscriptions.bootstrap("tenant")
    yield ControlPlane(
        clock=clock,
        database=database,
        store=store,
        subscriptions=subscriptions,
        hubs=Hubs(store, subscriptions, Devices(), clock, domain="localhost"),
        services=ProvisioningServices(store, store, subscriptions, clock, domain="localhost"),
        subscription_id=subscription.id,
    )
    await database.close()


@pytest.fixture
def make_authority() -> type[Authority]:
    """How to make a certificate authority."""
    return Authority
