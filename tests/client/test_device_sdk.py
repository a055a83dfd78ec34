"""The device SDK behind limits: what it says in one line, and that it cannot hang us."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import azure.iot.device
import pytest

from muster.client import device_sdk
from muster.client.device_sdk import IdentityFiles, Telemetry, connection, register
from muster.client.errors import ServiceError
from muster.errors import Kind, Problem

FILES = IdentityFiles(Path("key.pem"), Path("chain.pem"))
EXCEPTIONS = azure.iot.device.exceptions


class FakeSdk:
    """The SDK's two clients, with a script for what they do. Exceptions are the real ones."""

    exceptions = EXCEPTIONS
    Message = azure.iot.device.Message
    X509 = azure.iot.device.X509

    def __init__(self, **actions) -> None:
        self.actions = actions
        self.made: dict = {}
        self.sent: list = []
        self.done: list[str] = []
        self.ProvisioningDeviceClient = SimpleNamespace(create_from_x509_certificate=self.make)
        self.IoTHubDeviceClient = SimpleNamespace(create_from_x509_certificate=self.make)

    def make(self, **arguments):
        """Stand for either constructor."""
        self.made = arguments
        return self

    def act(self, name: str):
        """Do what the script says."""
        self.done.append(name)
        action = self.actions.get(name)
        if isinstance(action, BaseException):
            raise action
        return action() if callable(action) else action

    def register(self):
        """Provision."""
        return self.act("register")

    def connect(self):
        """Connect."""
        return self.act("connect")

    def shutdown(self):
        """Disconnect."""
        return self.act("shutdown")

    def send_message(self, message):
        """Send."""
        self.sent.append(message)
        return self.act("send")


@pytest.fixture
def use(monkeypatch):
    """Replace the SDK."""

    def install(**actions) -> FakeSdk:
        fake = FakeSdk(**actions)
        monkeypatch.setattr(device_sdk, "_load", lambda: fake)
        return fake

    return install


def test_registration_returns_the_assignment(use, tmp_path):
    """The CA goes to the SDK as text, since that is what it takes."""
    ca = tmp_path / "ca.pem"
    ca.write_text("PEM")
    state = SimpleNamespace(assigned_hub="hub.test", device_id="d")
    fake = use(register=SimpleNamespace(status="assigned", registration_state=state))
    assigned = register("dps.test", "0ne1", "d", FILES, ca)
    assert (assigned.status, assigned.hub, assigned.device_id) == ("assigned", "hub.test", "d")
    assert fake.made["server_verification_cert"] == "PEM"
    assert fake.made["provisioning_host"] == "dps.test"
    assert (fake.made["x509"].certificate_file, fake.made["x509"].key_file) == (
        "chain.pem",
        "key.pem",
    )


def test_a_registration_that_failed_is_no_assignment(use):
    """The SDK answers without a state then."""
    use(register=SimpleNamespace(status="failed", registration_state=None))
    assigned = register("dps.test", "0ne1", "d", FILES, None)
    assert (assigned.status, assigned.hub) == ("failed", "")


def test_a_refused_certificate_is_said_so(use):
    """The SDK's word is CredentialError; ours says what was refused where."""
    use(register=EXCEPTIONS.CredentialError("Credentials invalid, could not connect"))
    with pytest.raises(ServiceError) as caught:
        register("dps.test", "0ne1", "d", FILES, None)
    assert str(caught.value) == (
        "could not provision 'd' at dps.test: the device's certificate was refused"
    )
    assert caught.value.kind is Kind.FORBIDDEN


def test_other_failures_keep_their_reasons(use):
    """The SDK wraps the reason; all layers are said once."""
    error = EXCEPTIONS.ConnectionFailedError("Could not connect")
    error.__cause__ = ConnectionRefusedError("refused")
    use(register=error)
    with pytest.raises(ServiceError, match=r"at dps\.test: Could not connect: refused$"):
        register("dps.test", "0ne1", "d", FILES, None)


def test_a_bug_is_not_dressed_up_as_a_refusal(use):
    """An exception that nobody expects keeps its traceback."""
    use(register=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        register("dps.test", "0ne1", "d", FILES, None)


def test_an_sdk_that_never_answers_is_given_up(use, monkeypatch):
    """Each call has a limit, and the thread that hangs does not keep the process."""
    monkeypatch.setattr(device_sdk, "_REGISTER_SECONDS", 0.01)
    release = threading.Event()
    use(register=release.wait)
    with pytest.raises(ServiceError, match=r"no answer in 0\.01 s"):
        register("dps.test", "0ne1", "d", FILES, None)
    (thread,) = [one for one in threading.enumerate() if one.name == "muster-device-sdk"]
    assert thread.daemon
    release.set()
    thread.join(5)


def test_messages_carry_their_properties_and_the_end_is_orderly(use):
    """Connect, send, shut down; no reconnecting behind our back."""
    fake = use()
    with connection("hub.test", "d", FILES, None) as send:
        send(Telemetry('{"n":1}', {"temperatureAlert": "false"}))
    assert fake.done == ["connect", "send", "shutdown"]
    assert fake.sent[0].data == '{"n":1}'
    assert fake.sent[0].custom_properties == {"temperatureAlert": "false"}
    assert (fake.made["connection_retry"], fake.made["auto_connect"]) == (False, False)


def test_a_refused_connection_is_shut_down_too(use):
    """The SDK's threads end whatever happened, and the first error is the one reported."""
    fake = use(
        connect=EXCEPTIONS.CredentialError("no"), shutdown=EXCEPTIONS.ClientError("not connected")
    )
    with (
        pytest.raises(ServiceError, match=r"could not connect 'd' to the hub hub\.test"),
        connection("hub.test", "d", FILES, None),
    ):
        pytest.fail("it is not connected")
    assert fake.done == ["connect", "shutdown"]


def test_an_unreadable_ca_file_is_named(use, tmp_path):
    """Before anything is dialled."""
    fake = use()
    with pytest.raises(Problem, match="cannot be read"):
        register("dps.test", "0ne1", "d", FILES, tmp_path / "none.pem")
    assert fake.done == []


def test_without_the_extra_the_command_to_install_it_is_said(monkeypatch):
    """The SDK is optional."""
    monkeypatch.setitem(__import__("sys").modules, "azure.iot.device", None)
    with pytest.raises(Problem, match=r"pip install 'muster-iot\[device\]'"):
        register("dps.test", "0ne1", "d", FILES, None)
