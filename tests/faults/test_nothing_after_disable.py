"""Nothing is acknowledged once the call that disabled the device has returned."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.device import client, token
from tests.support.fleet import HUB, make_fleet
from tests.support.mqtt import RawClient
from tests.support.server import MusterProcess, running

pytestmark = pytest.mark.faults

ROUNDS = 20


def test_a_disabled_device_is_not_heard(tmp_path: Path) -> None:
    """Connect, disable, publish at once, many times over; then enable and connect again."""
    with running(MusterProcess(tmp_path)) as server:
        chain, key = make_fleet(server, tmp_path / "fleet", ["revoked"])["revoked"]
        version = {"api-version": "2021-04-12"}
        body = {"deviceId": "revoked", "authentication": {"type": "certificateAuthority"}}
        with client(server, token(server, HUB)) as registry:
            for number in range(ROUNDS):
                with RawClient(server.ca_file, server.mqtts_port, chain=chain, key=key) as raw:
                    user = "localhost/revoked/?api-version=2021-04-12"
                    assert raw.connect("revoked", user) == 0
                    raw.publish("devices/revoked/messages/events/", b"heard")
                    disabled = body | {"status": "disabled", "statusReason": str(number)}
                    _put(registry, version, disabled)
                    with pytest.raises((ConnectionError, OSError)):
                        raw.publish("devices/revoked/messages/events/", b"not heard")
                with RawClient(server.ca_file, server.mqtts_port, chain=chain, key=key) as refused:
                    assert refused.connect("revoked", user) == 5
                _put(registry, version, body | {"status": "enabled"})


def _put(registry, version: dict[str, str], body: dict[str, object]) -> None:
    answer = registry.put("/devices/revoked", params=version, json=body, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text
