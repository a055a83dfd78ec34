"""The official Python device SDK, aimed at a server of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from azure.iot.device import X509, IoTHubDeviceClient, Message, ProvisioningDeviceClient


def register(
    *, server_ca: str, id_scope: str, registration_id: str, chain: Path, key: Path,
    host: str = "localhost", websockets: bool = False,
) -> Any:  # fmt: skip
    """Register once; return the SDK's result or raise what the SDK raises."""
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=host,
        registration_id=registration_id,
        id_scope=id_scope,
        x509=X509(str(chain), str(key)),
        server_verification_cert=Path(server_ca).read_text(),
        websockets=websockets,
    )
    return client.register()


def certificate_client(
    *, server_ca: str, hostname: str, device_id: str, chain: Path, key: Path,
    websockets: bool = False,
) -> IoTHubDeviceClient:  # fmt: skip
    """Return a device client that authenticates with a certificate."""
    return IoTHubDeviceClient.create_from_x509_certificate(
        x509=X509(str(chain), str(key)),
        hostname=hostname,
        device_id=device_id,
        server_verification_cert=Path(server_ca).read_text(),
        websockets=websockets,
    )


def key_client(
    *, server_ca: str, connection_string: str, websockets: bool = False
) -> IoTHubDeviceClient:
    """Return a device client that authenticates with a symmetric key."""
    return IoTHubDeviceClient.create_from_connection_string(
        connection_string,
        server_verification_cert=Path(server_ca).read_text(),
        websockets=websockets,
    )


def send(client: IoTHubDeviceClient, count: int) -> list[str]:
    """Connect, send *count* messages that say their number, close; return their bodies."""
    client.connect()
    try:
        bodies = [json.dumps({"messageId": number}) for number in range(count)]
        for number, body in enumerate(bodies):
            message = Message(body, content_type="application/json", content_encoding="utf-8")
            message.custom_properties["number"] = str(number)
            client.send_message(message)
        return bodies
    finally:
        client.shutdown()
