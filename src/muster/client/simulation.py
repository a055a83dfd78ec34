"""A simulated device, from nothing to its messages: the tutorial's two sample programs.

1. Choose a CA, register the device's id as a name, make a key, get a certificate (EZCA).
2. Provision over MQTT (DPS), or be registered in a hub directly.
3. Send the messages to the hub over MQTT.

Nothing here knows who answers: the addresses decide. What is said on the way are the samples'
words.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509

from muster.client import device_sdk
from muster.client.certificates import (
    KeyKind,
    PrivateKey,
    build_chain,
    build_request,
    chain_pem,
    generate_key,
    key_pem,
)
from muster.client.device_sdk import IdentityFiles, Telemetry
from muster.client.errors import ServiceError
from muster.client.ezca import Authority, CertificateRequest, Ezca, caller_of
from muster.client.registry import Registry
from muster.client.session import Session
from muster.client.tokens import RESOURCE_MANAGER_SCOPE
from muster.clock import Clock, SystemClock
from muster.errors import Kind, Problem
from muster.ids import DeviceId, RegistrationId

# A common name holds 64 characters (RFC 5280 ub-common-name) and has to carry the device id.
_MAX_DEVICE_ID = 64
_ALERT_ABOVE = 30


@dataclass(frozen=True, slots=True)
class ByProvisioning:
    """Let the provisioning service behind *global_endpoint* choose the hub."""

    global_endpoint: str
    id_scope: str


@dataclass(frozen=True, slots=True)
class ByHub:
    """Register the device in the hub *hostname* first; *registry* is that hub's registry."""

    hostname: str
    registry: Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a simulated device does."""

    ezca: Ezca
    authority: Authority
    route: ByProvisioning | ByHub
    key: KeyKind = KeyKind.RSA_4096
    validity_days: int = 10
    messages: int = 5
    interval: float = 0.0
    server_ca: Path | None = None
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """What came of it: where the device is, and what it sent."""

    device_id: str
    hub: str
    sent: Sequence[Telemetry]


def choose_authority(
    authorities: Sequence[Authority], ca: str | None, template: str | None
) -> list[Authority]:
    """Return those of *authorities* that *ca* (an id or a name) and *template* (an id) allow.

    Compared without case. Raises `Problem(NOT_FOUND)` when there is none.
    """
    if not authorities:
        raise Problem(Kind.NOT_FOUND, "Could not find any available CAs in EZCA")
    chosen = [
        authority
        for authority in authorities
        if (ca is None or ca.lower() in {authority.ca_id.lower(), authority.name.lower()})
        and (template is None or template.lower() == authority.template_id.lower())
    ]
    if not chosen:
        there = ", ".join(sorted({authority.name for authority in authorities}))
        raise Problem(Kind.NOT_FOUND, f"no available CA is called {ca or template!r}: {there}")
    return chosen


def check_device_id(text: str) -> str:
    """Return *text* as an id that a hub, provisioning and a common name all take.

    Raises `Problem(MALFORMED)`.
    """
    if len(text) > _MAX_DEVICE_ID:
        raise Problem(
            Kind.MALFORMED, f"a device id in a certificate has at most {_MAX_DEVICE_ID} characters"
        )
    DeviceId.parse(text)
    return str(RegistrationId.parse(text))


class Simulator:
    """Runs *plan* for any number of devices, also from several threads at once.

    *say* is called with each step in words. *stop* ends the waits between messages early.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        say: Callable[[str], None],
        *,
        clock: Clock | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._session = session
        self._plan = plan
        self._say = say
        self._clock = clock or SystemClock()
        self._stop = stop or threading.Event()

    def run(self, device_id: str) -> SimulatedDevice:
        """Take *device_id* (see `check_device_id`) from nothing to its last message.

        Raises `ServiceError` or `Problem` at the first step that fails; what was done before it
        stays done.
        """
        route = self._plan.route
        if isinstance(route, ByHub):
            self._session.call(route.registry.add_ca_device(device_id))
        key, leaf = self._enrol(device_id)
        if isinstance(route, ByHub):
            self._say("Authenticating In Azure..")
        chain = self._session.call(build_chain(leaf))
        with _identity_files(device_id, key, chain, self._plan.out) as files:
            if isinstance(route, ByProvisioning):
                hub = self._provision(route, device_id, files)
            else:
                hub = route.hostname
            return SimulatedDevice(device_id, hub, self._send(hub, device_id, files))

    def _enrol(self, device_id: str) -> tuple[PrivateKey, x509.Certificate]:
        plan, session = self._plan, self._session
        self._say("Registering Device in EZCA..")
        caller = caller_of(session.token(RESOURCE_MANAGER_SCOPE).token)
        said = session.call(
            plan.ezca.register_name(plan.authority, device_id, owners=[caller], requesters=[caller])
        )
        self._say(said)
        self._say("Getting Device Certificate..")
        key = generate_key(plan.key)
        wanted = CertificateRequest(
            subject_name=f"CN={device_id}",
            subject_alt_names=[device_id],
            csr=build_request(key, device_id),
            validity_in_days=plan.validity_days,
        )
        leaf = session.call(plan.ezca.request_certificate(plan.authority, wanted))
        if leaf.public_key() != key.public_key():
            raise ServiceError(
                Kind.UNAVAILABLE, f"the certificate for {device_id!r} is for another key"
            )
        return key, leaf

    def _provision(self, route: ByProvisioning, device_id: str, files: IdentityFiles) -> str:
        self._say(f"Initialized for registration Id {device_id}.")
        self._say("Registering with the device provisioning service... ")
        assigned = device_sdk.register(
            route.global_endpoint, route.id_scope, device_id, files, self._plan.server_ca
        )
        self._say(f"Registration status: {assigned.status}.")
        if assigned.status != "assigned" or not assigned.hub:
            raise ServiceError(
                Kind.FORBIDDEN, "Registration status did not assign a hub, so exiting this sample."
            )
        self._say(f"Device {assigned.device_id} registered to {assigned.hub}.")
        return assigned.hub

    def _send(self, hub: str, device_id: str, files: IdentityFiles) -> list[Telemetry]:
        plan = self._plan
        with device_sdk.connection(hub, device_id, files, plan.server_ca) as send:
            self._say("Successfully created DeviceClient!")
            self._say(f"Device sending {plan.messages} messages to IoTHub...\n")
            sent: list[Telemetry] = []
            for number in range(plan.messages):
                if number and plan.interval and self._stop.wait(plan.interval):
                    break
                telemetry = make_telemetry(device_id, number)
                moment = self._clock.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
                self._say(f"\t{moment}> Sending message: {number}, Data: [{telemetry.body}]")
                send(telemetry)
                sent.append(telemetry)
            return sent


def make_telemetry(device_id: str, number: int) -> Telemetry:
    """Return the sample's message *number*: random weather, and an alert above 30 degrees."""
    temperature = random.randint(20, 34)  # noqa: S311 - weather, not a secret
    humidity = random.randint(60, 79)  # noqa: S311 - weather, not a secret
    body = {
        "deviceId": device_id,
        "messageId": number,
        "temperature": temperature,
        "humidity": humidity,
    }
    alert = "true" if temperature > _ALERT_ABOVE else "false"
    return Telemetry(msgspec.json.encode(body).decode(), {"temperatureAlert": alert})


@contextmanager
def _identity_files(
    device_id: str, key: PrivateKey, chain: list[x509.Certificate], out: Path | None
) -> Iterator[IdentityFiles]:
    """Write key and chain where the SDK can read them; forget them after, unless *out* is given."""
    if out is not None:
        try:
            out.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = _write_identity(out, device_id, key, chain)
        except OSError as error:
            raise Problem(Kind.MALFORMED, f"{error.filename}: {error.strerror}") from None
        yield files
        return
    with tempfile.TemporaryDirectory(prefix="muster-device-") as directory:
        yield _write_identity(Path(directory), device_id, key, chain)


def _write_identity(
    directory: Path, device_id: str, key: PrivateKey, chain: list[x509.Certificate]
) -> IdentityFiles:
    files = IdentityFiles(directory / f"{device_id}.key.pem", directory / f"{device_id}.cert.pem")
    descriptor = os.open(files.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key_pem(key))
    files.chain.write_bytes(chain_pem(chain))
    return files
