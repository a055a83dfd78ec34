"""A server on which the tutorial's portal steps have been done."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.device import client, token
from tests.support.server import WEBSOCKET_SDK_PORT, MusterProcess

_HUB_SCOPE = "https://iothubs.azure.net/.default"


@dataclass(frozen=True)
class Tutorial:
    """A running server and what `muster quickstart` made on it."""

    server: MusterProcess
    quickstart: dict[str, Any]

    @property
    def id_scope(self) -> str:
        """The provisioning service's id scope."""
        return str(self.quickstart["dps"]["id_scope"])

    @property
    def hostname(self) -> str:
        """The hub's host name."""
        return str(self.quickstart["hub"]["hostname"])

    def need_websocket_port(self) -> None:
        """Skip where the port that the SDKs' WebSockets insist on cannot be served."""
        if self.server.https_port != WEBSOCKET_SDK_PORT:
            pytest.skip(f"this user may not listen on {WEBSOCKET_SDK_PORT}; SDKs dial no other")

    def create_key_device(self, prefix: str) -> str:
        """Create a device with generated keys; return its connection string."""
        device_id = f"{prefix}-{uuid.uuid4()}"
        with client(self.server, token(self.server, _HUB_SCOPE)) as http:
            answer = http.put(
                f"/devices/{device_id}",
                params={"api-version": "2021-04-12"},
                json={"deviceId": device_id, "authentication": {"type": "sas"}},
            )
        key = answer.raise_for_status().json()["authentication"]["symmetricKey"]["primaryKey"]
        return f"HostName={self.hostname};DeviceId={device_id};SharedAccessKey={key}"
