"""`muster device simulate`: what is found, what has to be given, and what it refuses."""

from __future__ import annotations

import json
import threading
from typing import ClassVar

import pytest

from muster.cli import device
from muster.client.device_sdk import Telemetry
from muster.client.errors import ServiceError
from muster.client.simulation import ByHub, ByProvisioning, SimulatedDevice
from muster.client.tokens import ClientSecret, ManagedIdentity
from muster.errors import Kind


class FakeSimulator:
    """Remembers its plan; fails for ids that a test names."""

    plans: ClassVar[list] = []
    ids: ClassVar[list] = []
    failing: ClassVar[set] = set()

    def __init__(self, session, plan, say, *, stop) -> None:
        self.plans.append(plan)
        self.say = say

    def run(self, device_id: str) -> SimulatedDevice:
        """Pretend."""
        number = len(self.ids)
        self.ids.append(device_id)
        if number in self.failing:
            raise ServiceError(Kind.FORBIDDEN, "refused")
        self.say("a step")
        return SimulatedDevice(
            device_id, "hub.test", [Telemetry("{}", {"temperatureAlert": "true"})]
        )


@pytest.fixture
def simulator(monkeypatch):
    """The simulation without a device."""
    fake = type("Fake", (FakeSimulator,), {"plans": [], "ids": [], "failing": set()})
    monkeypatch.setattr(device, "Simulator", fake)
    return fake


@pytest.fixture
def made(muster, server):
    """A server after `muster quickstart`."""
    assert muster("quickstart")[0] == 0
    return server


def test_a_running_server_is_all_it_needs(muster, made, simulator, ready_file):
    """CA, ID scope, addresses and trust are found; the defaults are the sample's."""
    status, out, err = muster("device", "simulate")
    assert (status, err) == (0, "")
    assert out == "Getting Available CAs..\na step\n"
    (plan,) = simulator.plans
    assert plan.route == ByProvisioning("localhost", "0ne0000000A")
    assert plan.ezca.url == "https://localhost:8443"
    assert plan.authority.name == "Muster Devices"
    assert plan.server_ca == ready_file.parent / "tls" / "ca.pem"
    assert (plan.key.value, plan.validity_days, plan.messages) == ("rsa4096", 10, 5)
    assert len(simulator.ids[0]) == 36


def test_options_decide(muster, made, simulator, tmp_path):
    """Each reaches the plan."""
    status, out, _ = muster(
        "device", "simulate", "--id-scope", "0ne1", "--global-endpoint", "dps.test",
        "--key", "p256", "--validity-days", "3", "--messages", "7", "--interval", "0.5",
        "--device-id", "Sensor-1",
        "--out", str(tmp_path), "--ca", "muster devices", "--ca-template", "template-1", "--json",
    )  # fmt: skip
    assert status == 0
    (plan,) = simulator.plans
    assert plan.route == ByProvisioning("dps.test", "0ne1")
    assert (plan.key.value, plan.validity_days, plan.messages, plan.interval, plan.out) == (
        "p256", 3, 7, 0.5, tmp_path,
    )  # fmt: skip
    assert json.loads(out) == [
        {
            "device_id": "Sensor-1",
            "hub": "hub.test",
            "messages": [{"body": "{}", "properties": {"temperatureAlert": "true"}}],
        }
    ]


def test_the_lighter_program_registers_in_a_hub(muster, made, simulator):
    """REST at the server's port, MQTT at the host."""
    assert muster("device", "simulate", "--hub", "localhost")[0] == 0
    route = simulator.plans[0].route
    assert isinstance(route, ByHub)
    assert (route.hostname, route.registry.url) == ("localhost", "https://localhost:8443")


def test_many_devices_run_beside_each_other(muster, made, simulator):
    """One that fails is reported; the others go on; the exit status tells."""
    assert muster("device", "simulate", "--count", "6")[0] == 0
    assert len(set(simulator.ids)) == 6
    simulator.failing = {7}
    status, out, err = muster("device", "simulate", "--count", "3")
    assert status == 1
    assert "2 of 3 devices" in out
    assert "refused" in err
    assert not [one for one in threading.enumerate() if one.name.startswith("device")]


def test_another_ca_is_not_spoken_to_as_our_administrator(made, simulator, monkeypatch):
    """A ready file that lies about does not send its secret elsewhere."""
    server = device.find_server(None)
    monkeypatch.setenv("AZURE_TENANT_ID", "t")
    monkeypatch.setenv("AZURE_CLIENT_ID", "c")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "s")
    around = device._surroundings("https://portal.ezca.io/", None, None, server)
    assert around.server is None
    assert around.global_endpoint == "global.azure-devices-provisioning.net"
    with around.session() as session:
        assert session._credential == ClientSecret("t", "c", "s")
    same = device._surroundings("https://localhost:8443/", None, None, server)
    assert same.server is server


def test_the_environment_signs_in_without_a_server(muster, monkeypatch, tmp_path):
    """The variables of DefaultAzureCredential, or a clear error."""
    monkeypatch.chdir(tmp_path)
    for name in ("MUSTER_READY_FILE", "AZURE_CLIENT_SECRET", "IDENTITY_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    status, _, err = muster("device", "simulate", "--id-scope", "0ne1")
    assert status == 2
    assert "no credential: set AZURE_TENANT_ID" in err
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi")
    monkeypatch.setenv("IDENTITY_HEADER", "h")
    around = device._surroundings(None, None, None, None)
    with around.session() as session:
        assert isinstance(session._credential, ManagedIdentity)
    assert around.ezca_url == "https://portal.ezca.io"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--device-id", "a/b"), "a device id has"),
        (("--device-id", "a", "--count", "2"), "--device-id names one device"),
        (("--hub", "h", "--id-scope", "0ne1"), "--hub goes without"),
        (("--ezca-url", "http://x"), "only https"),
    ],
)
def test_contradictions_are_misuse(muster, made, simulator, arguments, reason):
    """Before anything is sent."""
    status, _, err = muster("device", "simulate", *arguments)
    assert status == 2
    assert reason in err
    assert simulator.plans == []


def test_a_port_that_the_sdk_cannot_dial_is_said_first(
    muster, made, simulator, ready_file, ready_document
):
    """It would otherwise be a time-out."""
    ready_document["endpoints"]["mqtts"] = "localhost:18883"
    ready_file.write_text(json.dumps(ready_document))
    status, _, err = muster("device", "simulate")
    assert status == 2
    assert "--mqtts-port 8883" in err


def test_several_cas_are_a_menu_for_people_only(muster, made, simulator, monkeypatch):
    """A script has to say which; a person is asked until the answer is one of them."""
    muster("ca", "create", "Other")
    status, _, err = muster("device", "simulate")
    assert status == 2
    assert "say which CA with --ca" in err

    class Terminal:
        lines = iter(["9\n", "x\n", "-1\n", "\n", "1\n"])

        def isatty(self) -> bool:
            """A person."""
            return True

        def readline(self) -> str:
            """Type."""
            return next(self.lines, "")

    monkeypatch.setattr(device.sys, "stdin", Terminal())
    status, out, _ = muster("device", "simulate")
    assert status == 0
    assert "Please Select CA:\nEnter 0 to select Muster Devices\nEnter 1 to select Other\n" in out
    assert out.count("Invalid Input: Please enter a value between 0 and 1") == 4
    assert simulator.plans[0].authority.name == "Other"
    status, _, err = muster("device", "simulate")
    assert (status, err) == (2, "muster: no CA was selected\n")
