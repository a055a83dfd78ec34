"""A whole CA in one directory, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import select

from muster.ca.authority import Authorities, Hierarchy, HierarchyPlan
from muster.ca.domains import Domains, Registration, RegistrationPolicy
from muster.ca.issuance import Issuance
from muster.ca.issuers import PublicLocations
from muster.ca.publication import Publication
from muster.ca.requests import CertificateRequest, CertificateRequests
from muster.certs.lint import lint_certificate
from muster.certs.profile import Wishes
from muster.keystore.files import FileKeystore
from muster.model.principal import Principal, PrincipalKind, Role
from muster.store.audit import audit
from muster.store.authorities import SqlAuthorityStore
from muster.store.certificates import SqlCertificateLedger, certificates
from muster.store.database import Database
from muster.store.domains import SqlDomainStore
from muster.store.revocation_lists import SqlRevocationListStore
from muster.store.schema import metadata

TENANT = "11111111-1111-4111-8111-111111111111"
OWNER = Principal(
    TENANT, "aaaaaaaa-0000-4000-8000-000000000001", PrincipalKind.USER, "owner",
    roles=frozenset({Role.OWNER}),
)  # fmt: skip
AGENT = Principal(
    TENANT, "aaaaaaaa-0000-4000-8000-000000000002", PrincipalKind.APPLICATION, "agent"
)
STRANGER = Principal(TENANT, "aaaaaaaa-0000-4000-8000-000000000003", PrincipalKind.USER, "stranger")
FOREIGNER = Principal(
    "22222222-2222-4222-8222-222222222222", OWNER.object_id, PrincipalKind.USER, "foreigner",
    roles=frozenset({Role.OWNER}),
)  # fmt: skip


@dataclass
class HandClock:
    """A clock that stands still until it is set."""

    moment: datetime = field(default=datetime(2026, 11, 23, 12, 0, 0, 500_000, tzinfo=UTC))

    def now(self) -> datetime:
        """Return the moment it was set to."""
        return self.moment

    def monotonic(self) -> float:
        """Return the same as seconds."""
        return self.moment.timestamp()

    def advance(self, **by: float) -> None:
        """Let time pass."""
        self.moment += timedelta(**by)


def csr(name: str | x509.Name, key: Any = None, *extensions: x509.ExtensionType) -> str:
    """Return a PEM signing request for *name*."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = (
        name
        if isinstance(name, x509.Name)
        else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


class World:
    """The services over one database and one keystore; collaborators can be exchanged."""

    def __init__(self, database: Database, keystore: FileKeystore, clock: HandClock) -> None:
        self.database = database
        self.clock = clock
        self.signer: Any = keystore
        self.ledger: Any = SqlCertificateLedger(database)
        self.lint: Any = lint_certificate
        self.policy = RegistrationPolicy()
        self.locations = PublicLocations("http://ca.test:8080")
        self.store = SqlAuthorityStore(database)
        self.domain_store = SqlDomainStore(database)
        self.lists = SqlRevocationListStore(database)

    @property
    def issuance(self) -> Issuance:
        """Issuance with the present collaborators."""
        return Issuance(self.ledger, self.signer, self.clock, lint=self.lint)

    @property
    def authorities(self) -> Authorities:
        """The CAs."""
        return Authorities(self.store, self.issuance, self.signer, self.clock, self.locations)

    @property
    def domains(self) -> Domains:
        """The registered names."""
        return Domains(self.domain_store, self.authorities, self.clock, self.policy)

    @property
    def publication(self) -> Publication:
        """The CRLs."""
        return Publication(self.store, self.lists, self.signer, self.clock, self.locations)

    @property
    def requests(self) -> CertificateRequests:
        """Requests for certificates."""
        return CertificateRequests(
            authorities=self.authorities,
            domains=self.domain_store,
            ledger=self.ledger,
            issuance=self.issuance,
            clock=self.clock,
            locations=self.locations,
        )

    async def hierarchy(self, name: str = "Plant", **plan: Any) -> Hierarchy:
        """Create a root and an issuing CA, as the owner."""
        return await self.authorities.create_hierarchy(OWNER, HierarchyPlan(name, **plan))

    async def register(
        self, made: Hierarchy, name: str, by: Principal = AGENT, **lists: Any
    ) -> None:
        """Register *name* with the issuing CA of *made*."""
        template = made.issuing.templates[0].id
        await self.domains.register(by, Registration(made.issuing.id, template, name, **lists))

    def asked(self, made: Hierarchy, text: str, days: int = 10, **wishes: Any) -> Any:
        """Return a request for a certificate."""
        template = made.issuing.templates[0].id
        return CertificateRequest(made.issuing.id, template, text, Wishes(days, **wishes))

    async def request(
        self, made: Hierarchy, text: str, by: Principal = AGENT, **wishes: Any
    ) -> x509.Certificate:
        """Request a certificate and return it."""
        issued = await self.requests.request(by, self.asked(made, text, **wishes))
        return x509.load_der_x509_certificate(issued.der)

    def audit_lines(self) -> list[tuple[str, str, str]]:
        """Return (actor, action, outcome) of the whole trail."""
        with self.database.engine.connect() as connection:
            rows = connection.execute(select(audit).order_by(audit.c.id))
            return [(row.actor, row.action, row.outcome) for row in rows]

    def certificate_rows(self, common_name: str) -> list[Any]:
        """Return what is stored of certificates for *common_name*."""
        with self.database.engine.connect() as connection:
            return list(
                connection.execute(
                    select(certificates).where(certificates.c.common_name == common_name)
                )
            )


@pytest.fixture(name="clock")
def clock_fixture() -> HandClock:
    """A clock set by hand."""
    return HandClock()


@pytest.fixture
def keystore(tmp_path: Path) -> Iterator[FileKeystore]:
    """An empty keystore."""
    opened = FileKeystore(tmp_path / "keys")
    yield opened
    opened.close()


@pytest.fixture
async def world(tmp_path: Path, keystore: FileKeystore, clock: HandClock) -> AsyncIterator[World]:
    """An empty CA."""
    database = Database(tmp_path / "muster.db")
    metadata.create_all(database.engine)
    yield World(database, keystore, clock)
    await database.close()


@pytest.fixture
async def plant(world: World) -> Hierarchy:
    """A root and an issuing CA, with the name dev-1 registered by and for the agent."""
    made = await world.hierarchy()
    await world.register(made, "dev-1")
    return made


@pytest.fixture(name="csr")
def csr_fixture() -> Callable[..., str]:
    """Make a signing request."""
    return csr


@pytest.fixture
def principals() -> Any:
    """Who calls: owner, agent (a requester), stranger, foreigner (another tenant's owner)."""

    @dataclass(frozen=True)
    class Principals:
        owner: Principal = OWNER
        agent: Principal = AGENT
        stranger: Principal = STRANGER
        foreigner: Principal = FOREIGNER
        replace: Callable[..., Principal] = replace

    return Principals()
