"""Muster as the bench starts it: `muster up`, set up through its public APIs only."""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
from cryptography.hazmat.primitives import serialization

from bench.pki import Pki
from bench.processes import Server, free_port

_MUSTER = Path(sys.executable).parent / "muster"
_ARM = "https://management.azure.com/.default"
_HUB_SCOPE = "https://iothubs.azure.net/.default"
_DPS_SCOPE = "https://azure-devices-provisioning.net/.default"


class Muster:
    """One server with the hub `bench`, which trusts the bench's CA."""

    name = "muster"
    topic = "devices/{name}/messages/events/"
    user_name = "localhost/{name}/?api-version=2021-04-12"

    def __init__(self, pki: Pki, directory: Path) -> None:
        self.pki = pki
        directory.mkdir(parents=True, exist_ok=True)
        self.port, self.https_port = free_port(), free_port()
        ready = directory / "ready.json"
        begin = time.perf_counter()
        self.server = Server(
            [str(_MUSTER), "up", "--log-level", "warning"]
            + [f"--data={directory / 'data'}", f"--ready-file={ready}"]
            + [f"--mqtts-port={self.port}", f"--https-port={self.https_port}"]
            + [f"--http-port={free_port()}"],
            directory / "log",
        )
        while not ready.exists():
            self.server.check()
            time.sleep(0.005)
        self.start_seconds = time.perf_counter() - begin
        self.ready = json.loads(ready.read_text())
        self.server_ca = Path(self.ready["server_ca_file"])
        self.http = httpx2.Client(
            base_url=self.ready["endpoints"]["https"], verify=_context(self.server_ca), timeout=60
        )
        self._tokens: dict[str, str] = {}

    def token(self, scope: str) -> str:
        if scope not in self._tokens:
            admin = self.ready["admin"]
            answer = self.http.post(
                f"/{self.ready['tenant_id']}/oauth2/v2.0/token",
                data={"grant_type": "client_credentials", "scope": scope}
                | {key: admin[key] for key in ("client_id", "client_secret")},
            )
            self._tokens[scope] = answer.raise_for_status().json()["access_token"]
        return self._tokens[scope]

    def call(self, method: str, path: str, scope: str, body: Any = None, **headers: str) -> Any:
        answer = self.http.request(
            method,
            path,
            json=body,
            headers={"Authorization": f"Bearer {self.token(scope)}", **headers},
        )
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def _resource(self, kind: str, name: str) -> str:
        group = f"/subscriptions/{self.ready['subscription_id']}/resourceGroups/muster"
        return f"{group}/providers/Microsoft.Devices/{kind}/{name}"

    def _upload_ca(self, resource: str) -> None:
        der = self.pki.ca.public_bytes(serialization.Encoding.DER)
        body = {"properties": {"certificate": base64.b64encode(der).decode(), "isVerified": True}}
        self.call("PUT", f"{resource}/certificates/bench?api-version=2023-06-30", _ARM, body)

    def prepare_hub(self) -> None:
        hub = self._resource("IotHubs", "bench")
        body = {"location": "local", "sku": {"name": "S1", "capacity": 1}}
        self.call("PUT", f"{hub}?api-version=2023-06-30", _ARM, body)
        self._upload_ca(hub)

    def prepare(self, names: list[str]) -> None:
        """Create the hub and a CA-signed identity for each of *names*."""
        self.prepare_hub()
        for start in range(0, len(names), 100):
            batch = [
                {
                    "id": name,
                    "importMode": "create",
                    "status": "enabled",
                    "authentication": {"type": "certificateAuthority"},
                }
                for name in names[start : start + 100]
            ]
            self.call("POST", "/devices?api-version=2021-04-12", _HUB_SCOPE, batch)

    def prepare_provisioning(self) -> str:
        """Create hub, service, link and enrolment group; return the id scope."""
        self.prepare_hub()
        keys = self.call(
            "POST", f"{self._resource('IotHubs', 'bench')}/listkeys?api-version=2023-06-30", _ARM
        )
        owner = next(key for key in keys["value"] if key["keyName"] == "iothubowner")
        link = (
            "HostName=localhost;SharedAccessKeyName=iothubowner;"
            f"SharedAccessKey={owner['primaryKey']}"
        )
        service = self._resource("provisioningServices", "bench")
        answer = self.call(
            "PUT",
            f"{service}?api-version=2022-12-12",
            _ARM,
            {
                "location": "local",
                "sku": {"name": "S1", "capacity": 1},
                "properties": {"iotHubs": [{"connectionString": link, "location": "local"}]},
            },
        )
        self._upload_ca(service)
        group = {
            "enrollmentGroupId": "bench",
            "attestation": {"type": "x509", "x509": {"caReferences": {"primary": "bench"}}},
        }
        self.call("PUT", "/enrollmentGroups/bench?api-version=2021-10-01", _DPS_SCOPE, group)
        scope: str = answer["properties"]["idScope"]
        return scope

    def prepare_authority(self, key_type: str) -> tuple[dict[str, Any], str]:
        """Create a CA; return its EZCA entry and a bearer token for the API."""
        self.call(
            "POST",
            "/api/muster/authorities",
            _ARM,
            {"name": f"bench {key_type}", "keyType": key_type},
        )
        entries = self.call("GET", "/api/CA/GetAvailableSSLCAs", _ARM)
        entry = next(e for e in entries if e["CAFriendlyName"].startswith(f"bench {key_type}"))
        return entry, self.token(_ARM)

    def stop(self) -> None:
        self.http.close()
        self.server.stop()


def _context(ca: Path) -> Any:
    return ssl.create_default_context(cafile=str(ca))
