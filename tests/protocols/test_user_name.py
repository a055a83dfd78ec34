"""CONNECT user names of both services."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.protocols.user_name import HubUserName, ProvisioningUserName, parse_user_name

HUB = [
    (
        "hub1.azure-devices.net/dev1/?api-version=2019-10-01&DeviceClientType=azure-iot-device%2F2.14",
        HubUserName(
            "hub1.azure-devices.net", "dev1", None, "2019-10-01", None, "azure-iot-device/2.14"
        ),
    ),
    (
        "hub1.azure-devices.net/dev1/mod1/?api-version=2021-04-12&model-id=dtmi:com:example:T;1&DeviceClientType=x",
        HubUserName(
            "hub1.azure-devices.net", "dev1", "mod1", "2021-04-12", "dtmi:com:example:T;1", "x"
        ),
    ),
    (
        "h/d/?api-version=2020-09-30&DeviceClientType=p&model-id=dtmi%3Acom%3Aexample%3B1",
        HubUserName("h", "d", None, "2020-09-30", "dtmi:com:example;1", "p"),
    ),
    ("localhost:18883/dev/?api-version=1", HubUserName("localhost", "dev", None, "1")),
    ("Hub1.Azure-Devices.Net/Dev", HubUserName("hub1.azure-devices.net", "Dev")),
    ("hub/dev/", HubUserName("hub", "dev")),
    ("hub/dev/?", HubUserName("hub", "dev")),
    ("hub/dev/mod", HubUserName("hub", "dev", "mod")),
    ("127.0.0.1/dev/$edgeAgent/?api-version=2", HubUserName("127.0.0.1", "dev", "$edgeAgent", "2")),
    ("hub/a%2Fb*?!(),:=@$'/?a=b", HubUserName("hub", "a%2Fb*?!(),:=@$'")),
    ("hub/registrations/?api-version=1", HubUserName("hub", "registrations", None, "1")),
    ("hub/registrations", HubUserName("hub", "registrations")),
    ("hub/registrations/mod/?api-version=1", HubUserName("hub", "registrations", "mod", "1")),
    (
        "hub/d/?x&y=&y=1&DeviceClientType=a/b%zz%FF%0A&z=1",
        HubUserName("hub", "d", None, None, None, "a/b%zz\ufffd\ufffd"),
    ),
]

PROVISIONING = [
    (
        "0ne004A9EDB/registrations/reg-1/api-version=2019-03-31&ClientVersion=azure-iot-device%2F2.14.0",
        ProvisioningUserName("0ne004A9EDB", "reg-1", "2019-03-31", "azure-iot-device/2.14.0"),
    ),
    (
        "0ne004A9EDB/registrations/Reg.1:a/api-version=2021-06-01",
        ProvisioningUserName("0ne004A9EDB", "Reg.1:a", "2021-06-01"),
    ),
    (
        "s/registrations/r/api-version=1&ClientVersion=a/b (c; d)",
        ProvisioningUserName("s", "r", "1", "a/b (c; d)"),
    ),
    ("s/registrations/r", ProvisioningUserName("s", "r")),
    ("s/registrations/r/", ProvisioningUserName("s", "r")),
]


@pytest.mark.parametrize(("text", "expected"), HUB + PROVISIONING)
def test_what_clients_send(text: str, expected: HubUserName | ProvisioningUserName) -> None:
    """Every SDK's form, with and without its query."""
    assert parse_user_name(text) == expected


def test_the_client_id_that_goes_with_it() -> None:
    """A module's is both names."""
    device, module = parse_user_name("h/d"), parse_user_name("h/d/m")
    assert (device.client_id, module.client_id) == ("d", "d/m")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "//",
        "hub",
        "hub/",
        "/dev",
        "hub//?api-version=1",
        "hub//mod",
        "hub/dev/mod/more",
        "hub/dev/mod/more/?api-version=1",
        "hub/dev//?api-version=1",
        "hub/dev name",
        "hub/dév",
        "hub/dev\n",
        "hub/" + "d" * 129,
        "hub/d/" + "m" * 129,
        "hub /dev",
        "-hub/dev",
        "hub-/dev",
        "hub..net/dev",
        ".hub/dev",
        "hub:/dev",
        "hub:123456/dev",
        "hub:80:80/dev",
        "hub\n/dev",
        "hub_1/dev",
        "hüb/dev",
        "h" * 64 + "/dev",
        ".".join(["h" * 60] * 5) + "/dev",
        "user@hub/dev",
        "*/dev",
        "../dev",
        "hub/dev/?api-version=1&api-version=2",
        "hub/dev/?model-id=a&model-id=b",
        "hub/dev/?api-version=%",
        "hub/dev/?model-id=%0A",
        "hub/dev/?api-version=%00",
        "s/registrations//api-version=1",
        "s/registrations/r r/api-version=1",
        "s/registrations/r./api-version=1",
        "s/registrations/" + "r" * 129 + "/api-version=1",
        "/registrations/r/api-version=1",
        "s.t/registrations/r/api-version=1",
        "s s/registrations/r/api-version=1",
        "s" * 33 + "/registrations/r/api-version=1",
        "s/registrations/r/api-version=1&api-version=2",
        "s/registrations/r/api-version=%2",
        "hub/dev/?x=" + "y" * 2048,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    """A name that could be read in two ways is read in none."""
    with pytest.raises(Problem) as caught:
        parse_user_name(text)
    assert caught.value.kind is Kind.MALFORMED


@given(st.text() | st.text(alphabet="/?&=%ab1.:-$registrations"))
def test_random_text_never_raises_anything_else(text: str) -> None:
    """A user name is one or a Problem."""
    with suppress(Problem):
        parse_user_name(text)
