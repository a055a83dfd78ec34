"""Devices with certificates of a test CA, registered at a hub of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.device import client, token
from tests.support.pki import TestAuthority
from tests.support.server import MusterProcess

ARM = "https://management.azure.com/.default"
HUB = "https://iothubs.azure.net/.default"


def make_fleet(
    server: MusterProcess, directory: Path, names: list[str]
) -> dict[str, tuple[Path, Path]]:
    """Make a hub that trusts a new CA, and a device under it for each name; return their files."""
    authority = TestAuthority("fleet root")
    group = f"/subscriptions/{server.ready['subscription_id']}/resourceGroups/muster"
    hub = f"{group}/providers/Microsoft.Devices/IotHubs/fleet"
    version = {"api-version": "2023-06-30"}
    with client(server, token(server, ARM)) as arm:
        body: dict[str, Any] = {"location": "local", "sku": {"name": "S1", "capacity": 1}}
        arm.put(hub, params=version, json=body).raise_for_status()
        body = {"properties": {"certificate": authority.der_base64, "isVerified": True}}
        arm.put(f"{hub}/certificates/fleet", params=version, json=body).raise_for_status()
    with client(server, token(server, HUB)) as registry:
        for name in names:
            body = {"deviceId": name, "authentication": {"type": "certificateAuthority"}}
            registry.put(
                f"/devices/{name}", params={"api-version": "2021-04-12"}, json=body
            ).raise_for_status()
    return {name: authority.leaf(name).write(directory / name) for name in names}
