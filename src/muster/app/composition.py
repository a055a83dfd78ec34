"""Every part of the program, put together.

Nothing here decides anything: a line makes a part and hands it the ports it asks for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from muster.app.directory import DataDirectory, Secrets
from muster.app.hub_names import ServedHubs
from muster.app.removal import Removal
from muster.bus.dispatcher import NoticeDispatcher
from muster.bus.local import LocalBus
from muster.ca.authority import Authorities
from muster.ca.domains import Domains
from muster.ca.issuance import Issuance
from muster.ca.issuers import PublicLocations
from muster.ca.publication import Publication
from muster.ca.requests import CertificateRequests
from muster.clock import Clock, SystemClock
from muster.config import Settings
from muster.control.hubs import Hubs
from muster.control.services import ProvisioningServices
from muster.control.subscriptions import Subscriptions
from muster.endpoints import operations_http
from muster.endpoints.authentication import bearer
from muster.endpoints.ca import http as ca_http
from muster.endpoints.ca import public_http as pki_http
from muster.endpoints.control import http as resource_manager_http
from muster.endpoints.hub import events_http as hub_events_http
from muster.endpoints.hub import http as hub_http
from muster.endpoints.hub.mqtt import HubMqtt
from muster.endpoints.mqtt import websocket as mqtt_websocket
from muster.endpoints.mqtt.front_door import MqttFrontDoor
from muster.endpoints.provisioning import http as provisioning_service_http
from muster.endpoints.provisioning.mqtt import ProvisioningMqtt
from muster.endpoints.tokens import http as token_http
from muster.events.log import EmbeddedEventLog
from muster.hub.enforced import EnforcedDevices
from muster.hub.enforcement import Enforcement
from muster.hub.linked import LinkedHubs
from muster.hub.registry import Registry
from muster.hub.removal import HubRemains
from muster.hub.sessions import Sessions
from muster.hub.subscriptions import Subscriptions as TopicSubscriptions
from muster.hub.telemetry import Telemetry
from muster.identity.audiences import HUB_DATA, PROVISIONING_DATA, Audiences
from muster.identity.bootstrap import Bootstrap, bootstrap
from muster.identity.issuance import ClientCredentials, ManagedIdentity, TokenIssuer
from muster.identity.signing_keys import SigningKeys
from muster.identity.tokens import TokenValidator
from muster.keystore.files import FileKeystore
from muster.keystore.signing_keys import SigningKeyDirectory
from muster.model.resource import ResourceGroup, Subscription
from muster.net.tasks import TaskSet
from muster.provisioning.enrollments import Enrollments
from muster.provisioning.records import RegistrationRecords
from muster.provisioning.registration import Registrar
from muster.provisioning.removal import ServiceRemains
from muster.store.authorities import SqlAuthorityStore
from muster.store.certificates import SqlCertificateLedger
from muster.store.database import Database
from muster.store.devices import SqlDeviceStore
from muster.store.domains import SqlDomainStore
from muster.store.enrollments import SqlEnrollmentStore
from muster.store.migrate import upgrade
from muster.store.outbox import DatabaseOutbox
from muster.store.principals import SqlApplicationStore, SqlTenantStore
from muster.store.registrations import SqlRegistrationStore
from muster.store.resources import SqlResourceStore
from muster.store.revocation_lists import SqlRevocationListStore


@dataclass(frozen=True, slots=True)
class PublicUrls:
    """How clients reach this server: both without a final slash."""

    https: str
    http: str


@dataclass(slots=True)
class Composition:
    """The parts that the server starts, serves and stops."""

    clock: Clock
    database: Database
    events: EmbeddedEventLog
    keystore: FileKeystore
    bus: LocalBus
    dispatcher: NoticeDispatcher
    resources: SqlResourceStore
    background: dict[str, Callable[[], Coroutine[Any, Any, None]]]
    registrar: Registrar
    publication: Publication
    front_door: MqttFrontDoor
    https: Starlette
    http: Starlette
    identities: Bootstrap
    subscription: Subscription
    group: ResourceGroup

    async def close(self) -> None:
        """Close everything that holds something, users before what they use."""
        await self.registrar.close()
        await self.dispatcher.close()
        await self.events.close()
        await self.database.close()
        self.keystore.close()


async def compose(
    settings: Settings,
    directory: DataDirectory,
    urls: PublicUrls,
    tasks: TaskSet,
    follow_hubs: Callable[[], Awaitable[None]],
) -> Composition:
    """Open *directory*'s stores, bring them up to date, and put the program together.

    *tasks* owns the connections' tasks; *follow_hubs* has every hub served at its name.
    """
    clock = SystemClock()
    database = Database(directory.database)
    upgrade(database.engine)
    bus = LocalBus()
    resources = SqlResourceStore(database, own_names=settings.own_names)
    device_store = SqlDeviceStore(database)
    events = EmbeddedEventLog(directory.events, clock=clock)

    # Identity
    applications = SqlApplicationStore(database)
    known = directory.read_secrets()
    identities = await bootstrap(
        SqlTenantStore(database),
        applications,
        clock,
        known_secret=known.client_secret,
        known_header=known.identity_header,
    )
    directory.write_secrets(
        Secrets(identities.administrator_client_secret, identities.identity_header)
    )
    keys = await SigningKeys.load(SigningKeyDirectory(directory.token_keys), clock)
    issuer = TokenIssuer(keys, clock, public_url=urls.https, tenant_id=identities.tenant_id)
    validator = TokenValidator(
        keys, applications, clock, issuer=issuer.issuer, tenant_id=identities.tenant_id
    )

    # Control plane
    subscriptions = Subscriptions(resources, clock)
    subscription, group = await subscriptions.bootstrap(identities.tenant_id)
    sessions = Sessions(resources, device_store, clock)
    enforcement = Enforcement(sessions, resources, device_store, bus)
    devices = EnforcedDevices(device_store, sessions)
    hubs = Hubs(
        ServedHubs(resources, follow_hubs, enforcement.hub_changed),
        subscriptions,
        devices,
        clock,
        domain=settings.domain,
    )
    services = ProvisioningServices(
        resources, resources, subscriptions, clock,
        domain=settings.domain, own_names=settings.own_names,
    )  # fmt: skip

    # Certificate authority
    keystore = FileKeystore(directory.keys)
    locations = PublicLocations(urls.http)
    authority_store, domain_store = SqlAuthorityStore(database), SqlDomainStore(database)
    ledger = SqlCertificateLedger(database)
    issuance = Issuance(ledger, keystore, clock)
    authorities = Authorities(authority_store, issuance, keystore, clock, locations)
    publication = Publication(
        authority_store, SqlRevocationListStore(database), keystore, clock, locations
    )
    requests = CertificateRequests(
        authorities=authorities,
        domains=domain_store,
        ledger=ledger,
        issuance=issuance,
        clock=clock,
        locations=locations,
    )

    # Hub
    registry = Registry(devices, clock)
    hub_remains = HubRemains(events, devices, resources)
    linked = LinkedHubs(registry, devices, resources, clock)

    # Provisioning
    enrollment_store, registrations = SqlEnrollmentStore(database), SqlRegistrationStore(database)
    enrollments = Enrollments(enrollment_store, clock)
    service_remains = ServiceRemains(enrollment_store, registrations, resources)
    registrar = Registrar(
        services=resources,
        enrollments=enrollments,
        registrations=registrations,
        hubs=linked,
        mover=linked,
        clock=clock,
    )

    # Wires
    front_door = MqttFrontDoor(
        hub=HubMqtt(sessions, Telemetry(events), TopicSubscriptions(), clock),
        provisioning=ProvisioningMqtt(registrar, clock),
        tasks=tasks,
    )
    to_hub = bearer(validator, HUB_DATA)
    https: list[BaseRoute] = [
        *operations_http.routes(),
        *mqtt_websocket.routes(front_door.open),
        *ca_http.routes(
            authenticate=bearer(validator),
            authorities=authorities,
            domains=Domains(domain_store, authorities, clock),
            requests=requests,
        ),
        *hub_http.routes(
            registry=registry, sessions=sessions, hubs=resources, authenticate=to_hub, clock=clock
        ),
        *hub_events_http.routes(log=events, hubs=resources, authenticate=to_hub, clock=clock),
        *provisioning_service_http.routes(
            enrollments=enrollments,
            records=RegistrationRecords(registrations, clock),
            hosts=resources,
            authenticate=bearer(validator, PROVISIONING_DATA),
            clock=clock,
        ),
        # After what devices and their back ends call: it has the longest table.
        *resource_manager_http.routes(
            authenticate=bearer(validator),
            subscriptions=subscriptions,
            hubs=hubs,
            services=services,
            clock=clock,
            authority=f"{urls.https}/{identities.tenant_id}",
            global_hostname=settings.domain,
        ),
        # Last: its first path segment is a tenant, and any word may be one.
        *token_http.routes(
            issuer=issuer,
            keys=keys,
            audiences=Audiences((urls.https,)),
            credentials=ClientCredentials(applications, issuer, clock),
            managed_identity=ManagedIdentity(
                applications, issuer, clock, client_id=identities.identity_client_id
            ),
            clock=clock,
            imds=settings.imds == "on",
        ),
    ]
    return Composition(
        clock=clock,
        database=database,
        events=events,
        keystore=keystore,
        bus=bus,
        dispatcher=NoticeDispatcher(DatabaseOutbox(database), bus),
        resources=resources,
        background={
            "enforcement": enforcement.run,
            "hub removal": Removal("hub.deleted", bus, hub_remains.clear).run,
            "service removal": Removal("service.deleted", bus, service_remains.clear).run,
        },
        registrar=registrar,
        publication=publication,
        front_door=front_door,
        https=Starlette(routes=https),
        http=Starlette(routes=pki_http.routes(publication=publication, clock=clock)),
        identities=identities,
        subscription=subscription,
        group=group,
    )
