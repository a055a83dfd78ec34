"""The small commands: list and show, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from .conftest import PEM

CA_ID = "subordinateca-muster-devices"


@pytest.fixture
def made(muster, server):
    """A server after `muster quickstart`, with one device."""
    assert muster("quickstart")[0] == 0
    server.devices.append(
        {
            "deviceId": "sensor-1",
            "status": "enabled",
            "connectionState": "Connected",
            "authentication": {"type": "selfSigned", "symmetricKey": {"primaryKey": "hidden"}},
        }
    )
    return server


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ca", "list"), "Muster Devices Root"),
        (("ca", "show", "muster devices"), "CN=Muster Devices"),
        (("ca", "show", CA_ID), "SSL Template, at most 397 days"),
        (("ca", "create", "Other"), "subordinateca-other"),
        (("hub", "list"), "muster-hub"),
        (("hub", "show", "muster-hub"), f"ca-{CA_ID}"),
        (("dps", "list"), "0ne0000000A"),
        (("dps", "show", "muster-dps"), f"ca-{CA_ID}"),
        (("enrollment", "list"), "muster-devices"),
        (("enrollment", "show", "muster-devices"), f"ca-{CA_ID}"),
        (("enrollment", "list", "--dps", "muster-dps"), "enabled"),
        (("device", "list"), "sensor-1"),
        (("device", "show", "sensor-1"), "Connected"),
    ],
)
def test_text_and_json_say_the_same_thing(muster, made, arguments, expected):
    """Both forms, no secret in either."""
    status, out, err = muster(*arguments)
    assert (status, err) == (0, "")
    assert expected in out
    status, out, err = muster(*arguments, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)
    assert "hidden" not in out
    assert "a2V5" not in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("ca", "show", "none"), "no CA is called 'none'"),
        (("hub", "show", "none"), "could not read the hub 'none'"),
        (("dps", "show", "none"), "could not read the provisioning service 'none'"),
        (("enrollment", "show", "none"), "there is no enrolment group 'none'"),
        (("device", "show", "none"), "there is no device 'none'"),
        (("device", "list", "--hub", "none"), "could not read the hub 'none'"),
    ],
)
def test_what_is_not_there_is_exit_1(muster, made, arguments, reason):
    """One line that names it."""
    status, out, err = muster(*arguments)
    assert (status, out) == (1, "")
    assert reason in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("device", "list"), "there is no hub"),
        (("enrollment", "list"), "there is no provisioning service"),
        (("hub", "monitor-events"), "there is no hub"),
    ],
)
def test_an_empty_server_is_explained(muster, server, arguments, reason):
    """With the command that fills it."""
    status, _, err = muster(*arguments)
    assert status == 1
    assert reason in err
    assert "muster quickstart" in err


def test_several_hubs_have_to_be_told_apart(muster, made):
    """Guessing would act on the wrong one."""
    made.resources["IotHubs/two"] = {"name": "two", "properties": {"hostName": "127.0.0.2"}}
    status, _, err = muster("device", "list")
    assert (status, err) == (1, "muster: say which hub: --hub NAME\n")
    assert muster("device", "list", "--hub", "two")[0] == 0
    assert made.requests[-1].url.host == "127.0.0.2"


def test_a_ca_certificate_is_downloaded(muster, made, tmp_path):
    """The tutorial's "Download Certificate"."""
    file = tmp_path / "ca.pem"
    assert muster("ca", "download", "Muster Devices", "--out", str(file)) == (0, "", "")
    assert file.read_text() == PEM
    status, _, err = muster("ca", "download", CA_ID, "--out", str(tmp_path / "no" / "ca.pem"))
    assert status == 2
    assert "ca.pem" in err
