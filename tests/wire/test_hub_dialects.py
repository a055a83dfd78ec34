"""What each SDK sends to a hub, in its own spelling, is understood (facts/hub.md 1 and 2).

User names, flags and topics are written down as the SDKs send them; the spellings of a token's
resource differ, and each SDK signs its own.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from tests.support.hub import HOST, NOW, PRIMARY, a_device, by_ca, chain
from tests.support.hub_mqtt import Client, Server
from tests.support.pki import TestAuthority

from muster.protocols.mqtt.events import PublishAcknowledged

ROOT = TestAuthority("root")


@dataclass(frozen=True)
class Dialect:
    """One SDK's way to connect, to sign, and to write a message's topic."""

    user_name: str
    resource: str
    topic: str
    properties: dict[str, str | None]
    system: dict[str, str]
    keep_alive: int
    clean: bool = False
    order: tuple[str, ...] = ("sr", "sig", "se")
    filters: tuple[tuple[str, int], ...] = ()


UPPER = f"{HOST}%2Fdevices%2Fdev1"
LOWER = f"{HOST}%2fdevices%2fdev1"
PLAIN = f"{HOST}/devices/dev1"
OWN = "devices/dev1/messages/events/"
C2D = "devices/dev1/messages/devicebound/#"
METHODS = "$iothub/methods/POST/#"
TWIN = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"

DIALECTS = {
    "Python": Dialect(
        f"{HOST}/dev1/?api-version=2019-10-01&DeviceClientType=azure-iot-device%2F2.14.0"
        "%20%28python%203.11.7%3Blinux%20x86_64%29",
        UPPER,
        OWN + "%24.mid=m%201&%24.cid=c%2F1&%24.ct=application%2Fjson&%24.ce=utf-8"
        "&temp%20alert=tr%2Bue%26x%3D%24",
        {"temp alert": "tr+ue&x=$"},
        {"message-id": "m 1", "correlation-id": "c/1", "content-type": "application/json",
         "content-encoding": "utf-8"},
        60,
        filters=((C2D, 1), (METHODS, 1), (TWIN, 1), (DESIRED, 1)),
    ),
    "Python with a model": Dialect(
        f"{HOST}/dev1/?api-version=2020-09-30&DeviceClientType=dtmi%3Acom%3Aexample%3BThermostat"
        "&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1",
        UPPER, OWN, {}, {}, 60,
    ),
    "Node": Dialect(
        f"{HOST}/dev1/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4"
        "%20(node%20v20.20.0%3B%20Linux%3B%20x64)",
        LOWER,
        OWN + "%24.mid=1&temperatureAlert=false",
        {"temperatureAlert": "false"},
        {"message-id": "1"},
        180,
        filters=((C2D, 1), (METHODS, 0), (TWIN, 0), (DESIRED, 0)),
    ),
    "Node with a port and a model": Dialect(
        f"{HOST}:18883/dev1/?api-version=2021-04-12&model-id=dtmi:com:example:Thermostat;1"
        "&DeviceClientType=azure-iot-device%2F1.18.4",
        f"{HOST}%3a18883%2fdevices%2fdev1",
        OWN, {}, {}, 180,
    ),
    ".NET": Dialect(
        f"{HOST}/dev1/?api-version=2020-09-30&DeviceClientType=.NET%2F1.41.3%20%28.NET%206.0.1"
        "%3B%20Linux%3B%20X64%29",
        LOWER,
        OWN + "temperatureAlert=true&$.ct=application%2Fjson&$.ce=utf-8",
        {"temperatureAlert": "true"},
        {"content-type": "application/json", "content-encoding": "utf-8"},
        300,
        order=("sr", "sig", "se"),
        filters=((C2D, 1), (METHODS, 1), (TWIN, 1)),
    ),
    "Java": Dialect(
        f"{HOST}/dev1/?api-version=2020-09-30&DeviceClientType=com.microsoft.azure.sdk.iot."
        "iot-device-client%2F2.1.5+%2811.0.2%3B+Linux%3B+amd64%29",
        PLAIN,
        OWN + "$.mid=7f8a&temperatureAlert=true",
        {"temperatureAlert": "true"},
        {"message-id": "7f8a"},
        230,
        order=("sig", "se", "sr"),
        filters=((C2D, 1), (METHODS, 0)),
    ),
    "C": Dialect(
        f"{HOST}/dev1/?api-version=2020-09-30&DeviceClientType=iothubclient%2f1.14.0%20(native"
        "%3b%20Linux%3b%20x86_64)",
        LOWER,
        OWN + "%24.mid=MSG_ID&%24.cid=CORE_ID&property_key=property_value",
        {"property_key": "property_value"},
        {"message-id": "MSG_ID", "correlation-id": "CORE_ID"},
        240,
        order=("sr", "se", "sig"),
        filters=((C2D, 1), (TWIN, 0), (DESIRED, 0)),
    ),
    "embedded C": Dialect(
        f"{HOST}/dev1/?api-version=2020-09-30&DeviceClientType=c%2F1.5.0",
        UPPER, OWN, {}, {}, 240, filters=((METHODS, 1),),
    ),
    "any MQTT client": Dialect(
        f"{HOST}/dev1", PLAIN, OWN[:-1], {}, {}, 60, clean=True, filters=((C2D, 0),)
    ),
}  # fmt: skip


def signed(dialect: Dialect) -> bytes:
    """Return the token as that SDK writes it."""
    expiry = int(NOW.timestamp()) + 3600
    to_sign = f"{dialect.resource}\n{expiry}".encode()
    digest = hmac.digest(b64decode(PRIMARY), to_sign, "sha256")
    fields = {
        "sr": dialect.resource, "sig": quote(b64encode(digest), safe=""), "se": str(expiry),
    }  # fmt: skip
    return ("SharedAccessSignature " + "&".join(f"{n}={fields[n]}" for n in dialect.order)).encode()


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("by", ["key", "certificate"])
async def test_a_device_connects_and_is_heard(name: str, by: str) -> None:
    """CONNECT, subscriptions in its own QoS, one message, its PUBACK."""
    dialect = DIALECTS[name]
    server = Server(ROOT)
    server.devices.put(a_device() if by == "key" else by_ca())
    sent = () if by == "key" else chain(ROOT.leaf("dev1"))
    client = Client(server, sent)
    answer = await client.connect(
        user_name=dialect.user_name,
        password=signed(dialect) if by == "key" else b"",
        clean=dialect.clean,
        keep_alive=dialect.keep_alive,
    )
    assert answer.code == 0
    for wanted in dialect.filters:
        assert client.subscribe(wanted) == (wanted[1],)
    client.publish(dialect.topic, b'{"temperature":21.5}')
    server.stream.settle()
    client.pump()
    client.one(PublishAcknowledged)
    (event,) = server.events()
    assert event.body == b'{"temperature":21.5}'
    assert event.properties == dialect.properties
    assert event.system_properties == dialect.system


@pytest.mark.parametrize("name", DIALECTS)
async def test_a_token_for_another_device_is_refused_in_every_spelling(name: str) -> None:
    """However a resource is spelled, `dev1` is not `dev10`."""
    dialect = DIALECTS[name]
    server = Server()
    server.devices.put(a_device("dev10"))
    client = Client(server)
    answer = await client.connect(
        "dev10",
        user_name=dialect.user_name.replace("/dev1", "/dev10", 1),
        password=signed(dialect),
    )
    assert answer.code == 5


async def test_python_after_a_reconnect() -> None:
    """It relies on the server's memory of the session.

    It does not subscribe again, sends its unacknowledged message under the old identifier, and
    asks for its twin.
    """
    dialect = DIALECTS["Python"]
    server = Server()
    server.devices.put(a_device())
    first = Client(server)
    await first.connect(user_name=dialect.user_name, password=signed(dialect))
    first.subscribe((TWIN, 1))
    lost = first.publish(OWN, b"once")
    first.vanish()
    again = Client(server)
    answer = await again.connect(user_name=dialect.user_name, password=signed(dialect))
    assert answer.session_present
    again.device.publish(OWN, b"once", qos=1, duplicate=True, packet_id=lost)
    again.publish("$iothub/twin/GET/?$rid=1", b" ")
    server.stream.settle()
    again.pump()
    assert again.all(PublishAcknowledged)[0].packet_id == lost
    assert [event.body for event in server.events()] == [b"once", b"once"]
