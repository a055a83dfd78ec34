"""Two hubs on one machine, and a provisioning service that shares devices out among them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.device import client, token
from tests.support.mqtt import RawClient, register
from tests.support.pki import TestAuthority
from tests.support.server import MusterProcess, running

pytestmark = pytest.mark.end_to_end

ARM = "https://management.azure.com/.default"
DPS = "https://azure-devices-provisioning.net/.default"
VERSION = {"api-version": "2022-12-12"}


@dataclass(frozen=True)
class Plant:
    """A server with the hubs `left` and `right`, both linked, and the CA that all trust."""

    server: MusterProcess
    authority: TestAuthority
    id_scope: str
    hosts: dict[str, str]

    def provision(self, name: str, directory: Path) -> str:
        """Register a fresh device; return the hub it was assigned to."""
        chain, key = self.authority.leaf(name).write(directory)
        host = self.hosts["left"]
        with RawClient(
            self.server.ca_file, self.server.mqtts_port, chain=chain, key=key, host=host
        ) as raw:
            user = f"{self.id_scope}/registrations/{name}/api-version=2019-03-31"
            assert raw.connect(name, user) == 0
            status, body = register(raw, self.id_scope, name)
        assert status == 200, body
        return str(body["registrationState"]["assignedHub"])

    def put_group(self, **settings: Any) -> None:
        """Create or replace the enrolment group of the plant's CA."""
        body = {
            "enrollmentGroupId": "plant",
            "attestation": {"type": "x509", "x509": {"caReferences": {"primary": "plant"}}},
            **settings,
        }
        with client(self.server, token(self.server, DPS)) as http:
            there = http.get("/enrollmentGroups/plant", params=VERSION).status_code == 200
            headers = {"If-Match": "*"} if there else {}
            answer = http.put("/enrollmentGroups/plant", params=VERSION, json=body, headers=headers)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """Make the plant on a loopback address of its own."""
    process = MusterProcess(tmp_path_factory.mktemp("plant"))
    authority = TestAuthority("plant root")
    with running(process) as server, client(server, token(server, ARM)) as arm:
        group = f"/subscriptions/{server.ready['subscription_id']}/resourceGroups/muster"
        devices = f"{group}/providers/Microsoft.Devices"
        hosts, links = {}, []
        for name in ("left", "right"):
            hub = f"{devices}/IotHubs/{name}"
            made = _put(arm, hub, {"location": "local", "sku": {"name": "S1", "capacity": 1}})
            hosts[name] = made["properties"]["hostName"]
            _put(arm, f"{hub}/certificates/plant", _certificate(authority))
            keys = arm.post(f"{hub}/listkeys", params=VERSION).raise_for_status().json()["value"]
            owner = next(key for key in keys if key["keyName"] == "iothubowner")
            links.append(
                {
                    "location": "local",
                    "connectionString": f"HostName={hosts[name]};SharedAccessKeyName=iothubowner;"
                    f"SharedAccessKey={owner['primaryKey']}",
                }
            )
        service = f"{devices}/provisioningServices/plant"
        body = {"location": "local", "sku": {"name": "S1", "capacity": 1}}
        made = _put(arm, service, body | {"properties": {"iotHubs": links}})
        _put(arm, f"{service}/certificates/plant", _certificate(authority))
        yield Plant(server, authority, made["properties"]["idScope"], hosts)


def _put(arm: httpx2.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = arm.put(path, params=VERSION, json=body)
    assert answer.status_code in {200, 201}, answer.text
    made: dict[str, Any] = answer.json()
    return made


def _certificate(authority: TestAuthority) -> dict[str, Any]:
    return {"properties": {"certificate": authority.der_base64, "isVerified": True}}


def test_the_second_hub_has_an_address_of_its_own(plant: Plant) -> None:
    """SDKs whose port is fixed can dial both; the certificate speaks for both."""
    assert plant.hosts == {"left": "localhost", "right": "127.0.0.2"}
    for host in plant.hosts.values():
        with RawClient(plant.server.ca_file, plant.server.mqtts_port, host=host) as raw:
            assert raw.socket.version() is not None


def test_devices_are_shared_out_and_stay(plant: Plant, tmp_path: Path) -> None:
    """Evenly weighted: both hubs get some; registering again moves nobody."""
    plant.put_group(allocationPolicy="hashed")
    names = [f"shared-{number}" for number in range(12)]
    first = {name: plant.provision(name, tmp_path) for name in names}
    assert set(first.values()) == set(plant.hosts.values())
    assert {name: plant.provision(name, tmp_path) for name in names} == first


@pytest.mark.parametrize("hub", ["left", "right"])
def test_a_static_group_names_its_hub(plant: Plant, tmp_path: Path, hub: str) -> None:
    """Every device goes there, and can connect there."""
    plant.put_group(allocationPolicy="static", iotHubs=[plant.hosts[hub]])
    name = f"static-{hub}"
    assert plant.provision(name, tmp_path) == plant.hosts[hub]
    chain, key = plant.authority.leaf(name).write(tmp_path)
    with RawClient(
        plant.server.ca_file, plant.server.mqtts_port, chain=chain, key=key, host=plant.hosts[hub]
    ) as raw:
        user = f"{plant.hosts[hub]}/{name}/?api-version=2021-04-12"
        assert raw.connect(name, user) == 0
        raw.publish(f"devices/{name}/messages/events/", b"{}")


def test_a_deleted_hub_gives_its_address_back(plant: Plant) -> None:
    """Nothing listens there any more; the first hub is untouched."""
    group = f"/subscriptions/{plant.server.ready['subscription_id']}/resourceGroups/muster"
    third = f"{group}/providers/Microsoft.Devices/IotHubs/third"
    with client(plant.server, token(plant.server, ARM)) as arm:
        made = _put(arm, third, {"location": "local", "sku": {"name": "S1", "capacity": 1}})
        host = made["properties"]["hostName"]
        with RawClient(plant.server.ca_file, plant.server.mqtts_port, host=host):
            pass
        assert arm.delete(third, params=VERSION).status_code in {200, 202, 204}
    # The address is closed by a notice that follows the answer.
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            RawClient(plant.server.ca_file, plant.server.mqtts_port, host=host).socket.close()
    with RawClient(plant.server.ca_file, plant.server.mqtts_port) as raw:
        assert raw.socket.version() is not None
