"""azure-iot-device 2.14, unmodified, over real TLS: provision, connect, send, read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import sdk
from tests.support.device import issue
from tests.support.events import read_events
from tests.support.tutorial import Tutorial

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("websockets", [False, True], ids=["tcp", "websockets"])
def test_a_certificate_takes_a_device_from_nothing_to_its_messages(
    tutorial: Tutorial, device_directory: Path, websockets: bool
) -> None:
    """The tutorial's device: EZCA certificate, provisioning, telemetry, read back in order."""
    if websockets:
        tutorial.need_websocket_port()
    device = issue(tutorial.server, device_directory)
    result = sdk.register(
        server_ca=tutorial.server.ca_file,
        id_scope=tutorial.id_scope,
        registration_id=device.device_id,
        chain=device.certificate,
        key=device.key,
        websockets=websockets,
    )
    assert result.status == "assigned"
    assert result.registration_state.device_id == device.device_id
    assert result.registration_state.assigned_hub == tutorial.hostname
    client = sdk.certificate_client(
        server_ca=tutorial.server.ca_file,
        hostname=result.registration_state.assigned_hub,
        device_id=device.device_id,
        chain=device.certificate,
        key=device.key,
        websockets=websockets,
    )
    sent = sdk.send(client, 5)
    events = read_events(tutorial.server, device.device_id, 5)
    assert [event["body"] for event in events] == sent
    assert [event["properties"]["number"] for event in events] == ["0", "1", "2", "3", "4"]
    assert {event["systemProperties"]["content-type"] for event in events} == {"application/json"}


def test_registering_again_keeps_the_device(tutorial: Tutorial, device_directory: Path) -> None:
    """A device that boots twice is the same device at the same hub."""
    device = issue(tutorial.server, device_directory)
    results = [
        sdk.register(
            server_ca=tutorial.server.ca_file,
            id_scope=tutorial.id_scope,
            registration_id=device.device_id,
            chain=device.certificate,
            key=device.key,
        )
        for _ in range(2)
    ]
    first, second = (result.registration_state for result in results)
    assert (first.device_id, first.assigned_hub) == (second.device_id, second.assigned_hub)
    assert [result.status for result in results] == ["assigned", "assigned"]


def test_a_renewed_certificate_is_the_same_device(
    tutorial: Tutorial, device_directory: Path
) -> None:
    """Identity is the device id and its trust: a new key needs no new registration."""
    device = issue(tutorial.server, device_directory / "first")
    sdk.register(
        server_ca=tutorial.server.ca_file,
        id_scope=tutorial.id_scope,
        registration_id=device.device_id,
        chain=device.certificate,
        key=device.key,
    )
    renewed = issue(tutorial.server, device_directory / "second", device.device_id)
    client = sdk.certificate_client(
        server_ca=tutorial.server.ca_file,
        hostname=tutorial.hostname,
        device_id=device.device_id,
        chain=renewed.certificate,
        key=renewed.key,
    )
    sent = sdk.send(client, 1)
    assert [e["body"] for e in read_events(tutorial.server, device.device_id, 1)] == sent


@pytest.mark.parametrize("websockets", [False, True], ids=["tcp", "websockets"])
def test_a_symmetric_key_sends_to_the_hub(tutorial: Tutorial, websockets: bool) -> None:
    """A device that the registry made, with the SDK's own SAS tokens."""
    if websockets:
        tutorial.need_websocket_port()
    connection = tutorial.create_key_device("ws" if websockets else "tcp")
    device_id = connection.split("DeviceId=")[1].split(";")[0]
    client = sdk.key_client(
        server_ca=tutorial.server.ca_file, connection_string=connection, websockets=websockets
    )
    sent = sdk.send(client, 3)
    assert [e["body"] for e in read_events(tutorial.server, device_id, 3)] == sent
