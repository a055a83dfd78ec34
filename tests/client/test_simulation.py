"""The simulated device: the samples' steps, words and messages."""

from __future__ import annotations

import json
import stat
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx2
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from muster.client import device_sdk
from muster.client.certificates import KeyKind
from muster.client.device_sdk import Assignment
from muster.client.errors import ServiceError
from muster.client.ezca import Authority, Ezca
from muster.client.registry import Registry
from muster.client.session import Session
from muster.client.simulation import (
    ByHub,
    ByProvisioning,
    Plan,
    Simulator,
    check_device_id,
    choose_authority,
    make_telemetry,
)
from muster.client.tokens import AccessToken
from muster.errors import Kind, Problem

A = Authority("CA-1", "T-1", "Devices")
B = Authority("CA-2", "T-2", "Machines")
B2 = Authority("CA-2", "T-3", "Machines")
CA_KEY = ec.generate_private_key(ec.SECP256R1())


class Token:
    """A credential whose token says who it is."""

    def get_token(self, *_: str) -> AccessToken:
        """Return a token with an object id."""
        return AccessToken(jwt.encode({"oid": "me"}, "k" * 32, algorithm="HS256"), 4e9)


class World:
    """EZCA, a hub's registry and the SDK, in one place that writes down what happened."""

    def __init__(self, status: str = "assigned") -> None:
        self.status = status
        self.log: list = []
        self.key_of_certificate = None

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        """Answer HTTP."""
        body = json.loads(request.content) if request.content else None
        self.log.append((request.method, request.url.path, body))
        if request.url.path.endswith("RegisterNewDomain"):
            return httpx2.Response(200, json={"Success": True, "Message": "It is registered"})
        if request.url.path.startswith("/devices/"):
            return httpx2.Response(200, json={"deviceId": request.url.path.rpartition("/")[2]})
        return httpx2.Response(200, json={"Success": True, "Message": self.certificate(body)})

    def certificate(self, body: dict) -> str:
        """Issue what was asked for, or for another key."""
        request = x509.load_pem_x509_csr(body["CSR"].encode())
        made = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Devices")]))
            .public_key(self.key_of_certificate or request.public_key())
            .serial_number(7)
            .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=10))
            .sign(CA_KEY, hashes.SHA256())
        )
        return made.public_bytes(Encoding.PEM).decode()

    def register(self, endpoint, scope, name, files, server_ca):
        """Stand for the SDK's provisioning."""
        self.log.append(("provision", endpoint, scope, name, server_ca))
        assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
        key = load_pem_private_key(files.key.read_bytes(), None)
        leaf = x509.load_pem_x509_certificates(files.chain.read_bytes())[0]
        assert leaf.public_key() == key.public_key()
        self.files = files
        return Assignment(self.status, "hub.test", name)

    @contextmanager
    def connection(self, hub, device_id, files, server_ca):
        """Stand for the SDK's connection."""
        self.log.append(("connect", hub, device_id))
        yield lambda telemetry: self.log.append(("send", telemetry))
        self.log.append(("disconnect",))


@pytest.fixture
def world(monkeypatch) -> World:
    """A world in which everything works."""
    made = World()
    monkeypatch.setattr(device_sdk, "register", made.register)
    monkeypatch.setattr(device_sdk, "connection", made.connection)
    return made


def plan(**changes) -> Plan:
    """Return a plan to be varied."""
    return Plan(
        **{
            "ezca": Ezca("https://ezca.test"),
            "authority": A,
            "route": ByProvisioning("dps.test", "0ne1"),
            "key": KeyKind.P_256,
            **changes,
        }
    )


def run(world: World, wanted: Plan, device_id: str = "d-1"):
    """Run one device; return what came of it and what was said."""
    said: list[str] = []
    transport = httpx2.MockTransport(world.handle)
    with Session(Token(), transport=transport) as session:
        return Simulator(session, wanted, said.append).run(device_id), said


def test_the_tutorials_steps_in_the_tutorials_words(world):
    """Register the name, get the certificate, provision, connect, send five messages."""
    device, said = run(world, plan())
    kinds = [entry[0] if entry[0] not in {"POST", "PUT"} else entry[1] for entry in world.log]
    assert kinds == [
        "/api/CA/RegisterNewDomain",
        "/api/CA/RequestSSLCertificate",
        "provision",
        "connect",
        *["send"] * 5,
        "disconnect",
    ]
    assert said[:9] == [
        "Registering Device in EZCA..",
        "It is registered",
        "Getting Device Certificate..",
        "Initialized for registration Id d-1.",
        "Registering with the device provisioning service... ",
        "Registration status: assigned.",
        "Device d-1 registered to hub.test.",
        "Successfully created DeviceClient!",
        "Device sending 5 messages to IoTHub...\n",
    ]
    assert "> Sending message: 0, Data: [{" in said[9]
    assert (device.device_id, device.hub, len(device.sent)) == ("d-1", "hub.test", 5)


def test_what_is_asked_of_the_ca_is_the_samples(world):
    """The caller owns and requests; CN and one name are the device id; ten days."""
    run(world, plan())
    name, request = world.log[0][2], world.log[1][2]
    assert name["Domain"] == "d-1"
    assert name["Owners"] == name["Requesters"]
    assert (name["Owners"][0]["ObjectId"], name["Owners"][0]["FriendlyName"]) == ("me", None)
    assert (request["SubjectName"], request["SubjectAltNames"]) == ("CN=d-1", ["d-1"])
    assert (request["CAID"], request["TemplateID"]) == ("CA-1", "T-1")
    assert request["ValidityInDays"] == 10


def test_the_lighter_sample_registers_in_the_hub_first(world):
    """Before the certificate, as the sample does; then straight to the hub."""
    route = ByHub("hub.test", Registry("hub.test"))
    device, said = run(world, plan(route=route))
    assert world.log[0][:2] == ("PUT", "/devices/d-1")
    assert world.log[0][2]["authentication"] == {"type": "certificateAuthority"}
    assert "Authenticating In Azure.." in said
    assert "provision" not in [entry[0] for entry in world.log]
    assert device.hub == "hub.test"


def test_a_device_without_a_hub_stops(world):
    """In the sample's words, and nothing is sent."""
    world.status = "disabled"
    with pytest.raises(ServiceError, match="did not assign a hub"):
        run(world, plan())
    assert "connect" not in [entry[0] for entry in world.log]


def test_a_certificate_for_another_key_is_refused(world):
    """A CA that mixes requests up is found out before the device trusts in it."""
    world.key_of_certificate = CA_KEY.public_key()
    with pytest.raises(ServiceError, match="is for another key"):
        run(world, plan())


def test_keys_are_kept_only_when_asked_for(world, tmp_path):
    """0600 in a directory of 0700; without --out nothing stays behind."""
    run(world, plan())
    assert not world.files.key.exists()
    out = tmp_path / "kept"
    run(world, plan(out=out))
    assert sorted(file.name for file in out.iterdir()) == ["d-1.cert.pem", "d-1.key.pem"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    with pytest.raises(Problem, match="File exists"):
        run(world, plan(out=out))


def test_messages_are_the_samples():
    """Keys in the sample's order, integers in its ranges, an alert above 30 degrees."""
    seen = {}
    for number in range(300):
        telemetry = make_telemetry("d", number)
        body = json.loads(telemetry.body)
        assert list(body) == ["deviceId", "messageId", "temperature", "humidity"]
        assert (body["deviceId"], body["messageId"]) == ("d", number)
        assert 20 <= body["temperature"] <= 34
        assert 60 <= body["humidity"] <= 79
        seen[body["temperature"]] = telemetry.properties["temperatureAlert"]
    assert {alert for temperature, alert in seen.items() if temperature > 30} == {"true"}
    assert {alert for temperature, alert in seen.items() if temperature <= 30} == {"false"}


@pytest.mark.parametrize(
    ("ca", "template", "chosen"),
    [
        (None, None, [A, B, B2]),
        ("machines", None, [B, B2]),
        ("ca-2", "t-3", [B2]),
        (None, "T-1", [A]),
    ],
)
def test_cas_are_chosen_by_id_or_name(ca, template, chosen):
    """Without case, and the template narrows."""
    assert choose_authority([A, B, B2], ca, template) == chosen


def test_no_ca_is_an_error_that_names_those_there_are():
    """And an empty list has the sample's words."""
    with pytest.raises(Problem, match="'Other': Devices, Machines") as caught:
        choose_authority([A, B], "Other", None)
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(Problem, match="Could not find any available CAs in EZCA"):
        choose_authority([], None, None)


@pytest.mark.parametrize("text", ["", "x" * 65, "a/b", "a b", "end.", "bäd", "a\nb"])
def test_ids_must_suit_hub_provisioning_and_certificate(text):
    """The strictest of the three decides, before anything is done."""
    with pytest.raises(Problem) as caught:
        check_device_id(text)
    assert caught.value.kind is Kind.MALFORMED


def test_good_ids_are_kept_as_they_are():
    """Case included."""
    assert check_device_id("Sensor-7.a:b_c-D") == "Sensor-7.a:b_c-D"
