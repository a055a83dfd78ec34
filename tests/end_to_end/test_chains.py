"""Which certificate chains provision, which are refused, how, and that the log says why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support import sdk
from tests.support.device import client, token
from tests.support.mqtt import RawClient, register
from tests.support.pki import Credential, TestAuthority
from tests.support.tutorial import Tutorial

pytestmark = pytest.mark.end_to_end

ARM = "https://management.azure.com/.default"
DPS = "https://azure-devices-provisioning.net/.default"


@dataclass(frozen=True)
class Hierarchy:
    """A root that the service trusts, an intermediate under it, and what nobody trusts."""

    tutorial: Tutorial
    root: TestAuthority
    intermediate: TestAuthority
    unverified: TestAuthority
    stranger: TestAuthority

    def attempt(
        self, credential: Credential, length: int, registration_id: str, where: Path
    ) -> int:
        """Connect as a device; return the CONNACK code."""
        chain, key = credential.write(where, length)
        with self.connection(chain, key) as raw:
            return raw.connect(registration_id, self.user_name(registration_id))

    def connection(self, chain: Path, key: Path) -> RawClient:
        """Open a TLS connection with that certificate; the handshake itself must succeed."""
        server = self.tutorial.server
        return RawClient(server.ca_file, server.mqtts_port, chain=chain, key=key)

    def user_name(self, registration_id: str) -> str:
        """Return the provisioning user name of *registration_id*."""
        return f"{self.tutorial.id_scope}/registrations/{registration_id}/api-version=2019-03-31"

    def logged(self, registration_id: str) -> str:
        """Return what the server's log says of *registration_id*."""
        lines = self.tutorial.server.log.read_text().splitlines()
        return "\n".join(line for line in lines if registration_id in line)


@pytest.fixture(scope="module")
def hierarchy(tutorial: Tutorial) -> Hierarchy:
    """Upload a verified root and an unverified one; make an enrolment group for each."""
    root = TestAuthority("chains root")
    made = Hierarchy(
        tutorial,
        root,
        root.below("chains intermediate"),
        TestAuthority("chains unverified"),
        TestAuthority("chains stranger"),
    )
    server = tutorial.server
    with client(server, token(server, ARM)) as arm, client(server, token(server, DPS)) as dps:
        _upload(arm, tutorial, "chains-root", root, verified=True)
        _upload(arm, tutorial, "chains-unverified", made.unverified, verified=False)
        for name in ("chains-root", "chains-unverified"):
            created = _put_group(dps, name)
            assert created.status_code == 200, created.text
    return made


def _upload(
    arm: httpx2.Client, tutorial: Tutorial, name: str, ca: TestAuthority, *, verified: bool
) -> None:
    ready = tutorial.server.ready
    service = tutorial.quickstart["dps"]["name"]
    answer = arm.put(
        f"/subscriptions/{ready['subscription_id']}/resourceGroups/muster/providers"
        f"/Microsoft.Devices/provisioningServices/{service}/certificates/{name}",
        params={"api-version": "2022-12-12"},
        json={"properties": {"certificate": ca.der_base64, "isVerified": verified}},
    )
    assert answer.status_code == 200, answer.text


def _put_group(
    dps: httpx2.Client, name: str, status: str = "enabled", *, over_any: bool = False
) -> httpx2.Response:
    body: dict[str, Any] = {
        "enrollmentGroupId": name,
        "attestation": {"type": "x509", "x509": {"caReferences": {"primary": name}}},
        "provisioningStatus": status,
    }
    return dps.put(
        f"/enrollmentGroups/{name}",
        params={"api-version": "2021-10-01"},
        json=body,
        headers={"If-Match": "*"} if over_any else {},
    )


@pytest.mark.parametrize("length", [2, 3], ids=["leaf+intermediate", "leaf+intermediate+root"])
def test_a_chain_up_to_the_verified_root_is_assigned(
    hierarchy: Hierarchy, device_directory: Path, length: int
) -> None:
    """The root itself need not be sent, and may be."""
    name = f"chain-{length}"
    chain, key = hierarchy.intermediate.leaf(name).write(device_directory, length)
    with hierarchy.connection(chain, key) as raw:
        assert raw.connect(name, hierarchy.user_name(name)) == 0
        status, body = register(raw, hierarchy.tutorial.id_scope, name)
    assert (status, body["status"]) == (200, "assigned")
    assert body["registrationState"]["deviceId"] == name


def test_a_leaf_of_the_root_itself_needs_no_more(
    hierarchy: Hierarchy, device_directory: Path
) -> None:
    """Leaf only, where the verified CA signed it."""
    assert hierarchy.attempt(hierarchy.root.leaf("direct"), 1, "direct", device_directory) == 0


@pytest.mark.parametrize(
    ("case", "registration_id", "why"),
    [
        ("no-intermediate", "lonely-leaf", "CA"),
        ("other-name", "somebody-else", "other-device"),
        ("unverified", "unverified-ca", "not verified"),
        ("expired", "expired-leaf", "expired"),
        ("not-yet-valid", "early-leaf", "not valid before"),
        ("stranger", "stranger-ca", "CA"),
    ],
)
def test_a_refusal_is_connack_5_and_a_reason_in_the_log(
    hierarchy: Hierarchy, device_directory: Path, case: str, registration_id: str, why: str
) -> None:
    """The handshake ends well, the CONNACK says 5, and the operator can read why."""
    credential, length = {
        "no-intermediate": lambda: (hierarchy.intermediate.leaf(registration_id), 1),
        "other-name": lambda: (hierarchy.root.leaf("other-device"), 1),
        "unverified": lambda: (hierarchy.unverified.leaf(registration_id), 2),
        "expired": lambda: (
            hierarchy.root.leaf(
                registration_id, begins=-timedelta(days=9), ends=-timedelta(days=1)
            ),
            1,
        ),
        "not-yet-valid": lambda: (
            hierarchy.root.leaf(registration_id, begins=timedelta(days=1), ends=timedelta(days=2)),
            1,
        ),
        "stranger": lambda: (hierarchy.stranger.leaf(registration_id), 2),
    }[case]()
    assert hierarchy.attempt(credential, length, registration_id, device_directory) == 5
    assert why in hierarchy.logged(registration_id)
    # A refusal takes nobody else down with it.
    assert hierarchy.attempt(hierarchy.root.leaf("healthy"), 1, "healthy", device_directory) == 0


def test_a_disabled_group_refuses_and_an_enabled_one_accepts_again(
    hierarchy: Hierarchy, device_directory: Path
) -> None:
    """The first entry found decides; enabling it needs nothing from the device."""
    server = hierarchy.tutorial.server
    leaf = hierarchy.root.leaf("switched")
    with client(server, token(server, DPS)) as dps:
        switched = _put_group(dps, "chains-root", "disabled", over_any=True)
        assert switched.status_code == 200
        try:
            assert hierarchy.attempt(leaf, 1, "switched", device_directory) == 5
            assert "disabled" in hierarchy.logged("switched")
        finally:
            assert _put_group(dps, "chains-root", over_any=True).status_code == 200
    assert hierarchy.attempt(leaf, 1, "switched", device_directory) == 0


def test_no_certificate_at_all_is_refused_after_the_handshake(hierarchy: Hierarchy) -> None:
    """A client without a certificate gets its answer in MQTT, not as a TLS alert."""
    server = hierarchy.tutorial.server
    with RawClient(server.ca_file, server.mqtts_port) as raw:
        assert raw.connect("nobody", hierarchy.user_name("nobody")) == 5
    assert "certificate" in hierarchy.logged("nobody")


def test_the_python_sdk_reports_a_refusal_as_a_credential_error(
    hierarchy: Hierarchy, device_directory: Path
) -> None:
    """CONNACK 5 is the one code that the SDK does not retry for ever."""
    from azure.iot.device.exceptions import CredentialError

    chain, key = hierarchy.stranger.leaf("sdk-stranger").write(device_directory)
    with pytest.raises(CredentialError):
        sdk.register(
            server_ca=hierarchy.tutorial.server.ca_file,
            id_scope=hierarchy.tutorial.id_scope,
            registration_id="sdk-stranger",
            chain=chain,
            key=key,
        )
