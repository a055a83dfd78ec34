"""A token service in memory: a clock to turn, stores without a disk, a registered application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from muster.identity.applications import Applications
from muster.identity.issuance import ClientCredentials, TokenIssuer
from muster.identity.signing_keys import SigningKeys
from muster.identity.tokens import TokenValidator
from muster.model.principal import Application, Role
from muster.ports.identity import SigningKeyRecord
from muster.store.database import Database
from muster.store.principals import SqlApplicationStore
from muster.store.schema import metadata

TENANT = "11111111-2222-3333-4444-555555555555"
PUBLIC_URL = "https://localhost:8443"


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


class KeysInMemory:
    """A signing key store without a disk."""

    def __init__(self) -> None:
        self.records: list[SigningKeyRecord] = []

    async def load_keys(self) -> list[SigningKeyRecord]:
        """Return every key."""
        return list(self.records)

    async def add_key(self, record: SigningKeyRecord) -> None:
        """Keep it."""
        self.records.append(record)

    async def delete_key(self, record: SigningKeyRecord) -> None:
        """Forget it."""
        self.records.remove(record)


@dataclass
class Service:
    """Everything a test of the token service turns."""

    clock: TurnableClock
    store: SqlApplicationStore
    applications: Applications
    key_store: KeysInMemory
    keys: SigningKeys
    issuer: TokenIssuer
    credentials: ClientCredentials
    validator: TokenValidator
    owner: Application
    secret: str


@dataclass
class Identity:
    """A self-signed client certificate and its key."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.certificate.public_bytes(Encoding.DER)


def make_identity(*, days: int = 30, bits: int = 2048) -> Identity:
    """Return a client certificate that is good from the day before the clock's for *days*."""
    key = rsa.generate_private_key(65537, bits)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    begins = TurnableClock().now() - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return Identity(key, certificate)


@pytest.fixture(scope="session")
def identity() -> Identity:
    """A client certificate, made once: RSA keys take time."""
    return make_identity()


@pytest.fixture(scope="session")
def another_identity() -> Identity:
    """Somebody else's client certificate."""
    return make_identity()


@pytest.fixture(scope="session")
def signing_records() -> list[SigningKeyRecord]:
    """The server's signing key, made once."""
    import asyncio

    store = KeysInMemory()
    asyncio.run(SigningKeys.load(store, TurnableClock()))
    return store.records


@pytest.fixture
async def service(
    tmp_path: Path, signing_records: list[SigningKeyRecord]
) -> AsyncIterator[Service]:
    """A token service with one application that is an owner."""
    clock = TurnableClock()
    database = Database(tmp_path / "muster.db")
    metadata.create_all(database.engine)
    store = SqlApplicationStore(database)
    applications = Applications(store, clock, tenant_id=TENANT)
    key_store = KeysInMemory()
    key_store.records = list(signing_records)
    keys = await SigningKeys.load(key_store, clock)
    issuer = TokenIssuer(keys, clock, public_url=PUBLIC_URL, tenant_id=TENANT)
    owner = await applications.create("Quality lab", by="test", roles=frozenset({Role.OWNER}))
    secret = await applications.add_secret(owner.client_id, by="test")
    yield Service(
        clock=clock,
        store=store,
        applications=applications,
        key_store=key_store,
        keys=keys,
        issuer=issuer,
        credentials=ClientCredentials(store, issuer, clock),
        validator=TokenValidator(keys, store, clock, issuer=issuer.issuer, tenant_id=TENANT),
        owner=await applications.get(owner.client_id),
        secret=secret,
    )
    await database.close()
