"""The registry over HTTPS: what Python's and Node's service SDKs send and insist on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from tests.support.hub import (
    HOST,
    NOW,
    OTHER,
    POLICY_KEY,
    PRIMARY,
    SECONDARY,
    ManualClock,
    MemoryDevices,
    MemoryHubs,
    a_device,
    a_hub,
    an_attempt,
    token,
)

from muster.endpoints.hub.http import routes
from muster.errors import Kind, Problem
from muster.hub.registry import Registry
from muster.hub.sessions import Sessions
from muster.model.device import AuthenticationType, DeviceAuthentication, DeviceStatus
from muster.model.principal import Principal, PrincipalKind, Role

NEVER = "0001-01-01T00:00:00"


@dataclass
class Api:
    """The registry's routes with a client."""

    devices: MemoryDevices
    sessions: Sessions
    clock: ManualClock
    http: httpx2.AsyncClient

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        policy: str = "iothubowner",
        key: str = POLICY_KEY,
        **headers: str,
    ) -> httpx2.Response:
        """Call with a policy's token, as the SDKs do."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers.setdefault("authorization", token(HOST, key, name=policy).decode())
        content = b"" if body is None else msgspec.json.encode(body)
        return await self.http.request(method, path, content=content, headers=headers)


ROLES = {"owner": {Role.OWNER}, "reader": {Role.READER}}


async def by_bearer(request: Request) -> Principal:
    """Take the role's name for a token."""
    name = request.headers.get("authorization", "").removeprefix("Bearer ")
    if name not in ROLES:
        raise Problem(Kind.UNAUTHENTICATED, "no token of ours")
    return Principal("t", f"object-{name}", PrincipalKind.USER, name, roles=frozenset(ROLES[name]))


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A hub without devices."""
    clock, devices, hubs = ManualClock(), MemoryDevices(), MemoryHubs(a_hub())
    sessions = Sessions(hubs, devices, clock)
    app = Starlette(
        routes=routes(
            registry=Registry(devices, clock),
            sessions=sessions,
            hubs=hubs,
            authenticate=by_bearer,
            clock=clock,
        )
    )
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url=f"https://{HOST}:8443") as http:
        yield Api(devices, sessions, clock, http)


# What Python's create_device_with_sas sends (facts/hub.md 3).
PYTHON_DEVICE = {
    "deviceId": "dev1",
    "status": "enabled",
    "authentication": {
        "type": "sas",
        "symmetricKey": {"primaryKey": PRIMARY, "secondaryKey": SECONDARY},
    },
    "capabilities": {"iotEdge": False},
}


async def test_a_device_is_created_shown_changed_and_deleted(api: Api) -> None:
    """The whole life of an identity, with the success codes that SDKs check exactly."""
    created = await api.call("PUT", "/devices/dev1?api-version=2021-04-12", PYTHON_DEVICE)
    assert created.status_code == 200
    document = created.json()
    assert document == {
        "deviceId": "dev1",
        "generationId": document["generationId"],
        "etag": document["etag"],
        "connectionState": "Disconnected",
        "status": "enabled",
        "statusReason": None,
        "connectionStateUpdatedTime": NEVER,
        "statusUpdatedTime": NOW.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "symmetricKey": {"primaryKey": PRIMARY, "secondaryKey": SECONDARY},
            "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
            "type": "sas",
        },
        "capabilities": {"iotEdge": False},
    }
    shown = await api.call("GET", "/devices/dev1")
    assert (shown.status_code, shown.json()) == (200, document)
    assert shown.headers["etag"] == f'"{document["etag"]}"'
    assert shown.headers["content-type"] == "application/json; charset=utf-8"
    change = {**document, "status": "disabled", "statusReason": "stolen"}
    changed = await api.call("PUT", "/devices/dev1", change, if_match=f'"{document["etag"]}"')
    assert (changed.status_code, changed.json()["status"]) == (200, "disabled")
    assert changed.json()["authentication"] == document["authentication"]
    assert changed.json()["generationId"] == document["generationId"]
    deleted = await api.call("DELETE", "/devices/dev1", if_match='"*"')
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await api.call("GET", "/devices/dev1")).status_code == 404
    assert [line.actor for line in api.devices.audits] == ["policy:iothubowner"] * 3


async def test_node_leaves_keys_empty(api: Api) -> None:
    """Empty keys mean that the hub makes them."""
    body = {
        "deviceId": "dev1",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}},
    }
    keys = (await api.call("PUT", "/devices/dev1", body)).json()["authentication"]["symmetricKey"]
    assert len(keys["primaryKey"]) == len(keys["secondaryKey"]) == 88
    assert keys["primaryKey"] != keys["secondaryKey"]


@pytest.mark.parametrize("etag", ["{}", '"{}"', 'W/"{}"', "*", '"*"'])
async def test_tags_come_in_every_spelling(api: Api, etag: str) -> None:
    """Python quotes them, or does not; Node always does."""
    device = api.devices.put(a_device())
    answer = await api.call(
        "PUT", "/devices/dev1", {"deviceId": "dev1"}, if_match=etag.format(device.etag)
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("sent", "kind", "first"),
    [
        (
            {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "aa" * 20}},
            "selfSigned",
            "AA" * 20,
        ),
        ({"x509Thumbprint": {"primaryThumbprint": ":".join(["ab"] * 32)}}, "selfSigned", "AB" * 32),
        ({"type": "certificateAuthority"}, "certificateAuthority", None),
        ({"type": "CertificateAuthority", "symmetricKey": None}, "certificateAuthority", None),
        ({"type": "none"}, "none", None),
    ],
)  # fmt: skip
async def test_certificates_instead_of_keys(
    api: Api, sent: dict[str, Any], kind: str, first: str | None
) -> None:
    """Thumbprints are shown in capitals without colons; keys are not made."""
    body = {"deviceId": "dev1", "authentication": sent}
    shown = (await api.call("PUT", "/devices/dev1", body)).json()["authentication"]
    assert shown["type"] == kind
    assert shown["x509Thumbprint"]["primaryThumbprint"] == first
    assert shown["symmetricKey"] == {"primaryKey": None, "secondaryKey": None}


async def test_ids_that_a_path_would_split(api: Api) -> None:
    """Whatever may stand in an id arrives as it was sent."""
    for name in ("a%b", "a#b", "a?b", "a+b", "a=b", "a%2Fb", "$x", "a:b'(c)"):
        path = f"/devices/{quote(name, safe='')}"
        answer = await api.call("PUT", path, {"deviceId": name})
        assert (answer.status_code, answer.json().get("deviceId")) == (200, name)
        assert (await api.call("GET", path)).json()["deviceId"] == name


REFUSALS = {
    "not there": ("GET", "/devices/ghost", None, 404, "DeviceNotFound"),
    "deleting what is not there": ("DELETE", "/devices/ghost", None, 404, "DeviceNotFound"),
    "taken": ("PUT", "/devices/dev1", {"deviceId": "dev1"}, 409, "DeviceAlreadyExists"),
    "two names": ("PUT", "/devices/dev2", {"deviceId": "dev1"}, 400, "ArgumentInvalid"),
    "a bad name": ("GET", "/devices/a%20b", None, 400, "ArgumentInvalid"),
    "a slash in the name": ("GET", "/devices/a%2Fb", None, 400, "ArgumentInvalid"),
    "bytes that are no text": ("GET", "/devices/%ff", None, 400, "ArgumentInvalid"),
    "a long name": ("GET", f"/devices/{'x' * 129}", None, 400, "ArgumentInvalid"),
    "no name in the body": ("PUT", "/devices/dev2", {}, 400, "ArgumentInvalid"),
    "no object": ("PUT", "/devices/dev2", [], 400, "ArgumentInvalid"),
    "a bad status": ("PUT", "/devices/d", {"deviceId": "d", "status": "x"}, 400, "ArgumentInvalid"),
    "a bad type": (
        "PUT", "/devices/d", {"deviceId": "d", "authentication": {"type": "x"}},
        400, "ArgumentInvalid",
    ),
    "a bad thumbprint": (
        "PUT", "/devices/d",
        {"deviceId": "d", "authentication": {"x509Thumbprint": {"primaryThumbprint": "AA"}}},
        400, "ArgumentInvalid",
    ),
    "too large": (
        "PUT", "/devices/d", {"deviceId": "d", "statusReason": "x" * 70_000},
        413, "MessageTooLarge",
    ),
    "a bad top": ("GET", "/devices?top=0", None, 400, "ArgumentInvalid"),
    "no number": ("GET", "/devices?top=%C2%B2", None, 400, "ArgumentInvalid"),
    "modules": ("GET", "/devices/dev1/modules", None, 501, "NotImplemented"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
async def test_refusals_have_the_registry_s_shape(api: Api, name: str) -> None:
    """Node reads the name of the error from Message and header, Python the status."""
    method, path, body, status, error = REFUSALS[name]
    api.devices.put(a_device())
    answer = await api.call(method, path, body)
    assert answer.status_code == status
    assert answer.headers["iothub-errorcode"] == error
    assert answer.json()["Message"].startswith(f"ErrorCode:{error};")
    assert answer.json()["ExceptionMessage"].startswith("Tracking ID:")


async def test_outdated_tags(api: Api) -> None:
    """412 for changing and for deleting, and the device stays as it is."""
    device = api.devices.put(a_device())
    for method in ("PUT", "DELETE"):
        answer = await api.call(method, "/devices/dev1", {"deviceId": "dev1"}, if_match='"old"')
        assert answer.status_code == 412
        assert answer.headers["iothub-errorcode"] == "PreconditionFailed"
    assert api.devices.devices["hub-1", "dev1"] is device


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"deviceId":"d","deviceId":', b"[" * 100_000, b"null"]
)
async def test_hostile_bodies(api: Api, body: bytes) -> None:
    """What is not JSON of the expected kind is refused at once and quietly."""
    answer = await api.http.put(
        "/devices/d",
        content=body,
        headers={"authorization": token(HOST, POLICY_KEY, name="iothubowner").decode()},
    )
    assert answer.status_code in {400, 413}


SAS_REFUSALS = {
    "no authorization": "",
    "another key": token(HOST, OTHER, name="iothubowner").decode(),
    "a device's token": token().decode(),
    "another host": token("hub2.example", POLICY_KEY, name="iothubowner").decode(),
    "a right it lacks": token(HOST, POLICY_KEY, name="service").decode(),
    "another device": token(f"{HOST}/devices/dev10", POLICY_KEY, name="iothubowner").decode(),
    "basic": "Basic eDp5",
    "a bearer token that is none": "Bearer nobody",
}


@pytest.mark.parametrize("name", SAS_REFUSALS)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/devices/dev1"), ("GET", "/devices"), ("PUT", "/devices/dev1"),
     ("DELETE", "/devices/dev1"), ("POST", "/devices"), ("GET", "/statistics/devices"),
     ("GET", "/statistics/service"), ("GET", "/twins/dev1")],
)  # fmt: skip
async def test_who_is_not_let_in(api: Api, name: str, method: str, path: str) -> None:
    """401 with the registry's name for it, on every path, before anything is looked at."""
    if (name, path) == ("a right it lacks", "/twins/dev1"):
        return
    device = api.devices.put(a_device())
    answer = await api.call(method, path, PYTHON_DEVICE, authorization=SAS_REFUSALS[name])
    assert answer.status_code == 401
    assert answer.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"
    assert api.devices.devices == {("hub-1", "dev1"): device}


async def test_rights_are_apart(api: Api) -> None:
    """Who may read may not write."""
    api.devices.put(a_device())
    assert (await api.call("GET", "/devices/dev1", policy="registryRead")).status_code == 200
    answer = await api.call("DELETE", "/devices/dev1", policy="registryRead")
    assert answer.status_code == 401
    assert "RegistryWrite" in answer.json()["Message"]


async def test_roles(api: Api) -> None:
    """An owner may do everything, a reader of the control plane sees no keys."""
    api.devices.put(a_device())
    for role, status in (("owner", 200), ("reader", 401)):
        answer = await api.call("GET", "/devices/dev1", authorization=f"Bearer {role}")
        assert answer.status_code == status
    await api.call("DELETE", "/devices/dev1", authorization="Bearer owner")
    assert api.devices.audits[-1].actor == "object-owner"


async def test_two_authorizations(api: Api) -> None:
    """Two headers would leave it to chance which of them a proxy in front looked at."""
    good = ("authorization", token(HOST, POLICY_KEY, name="iothubowner").decode())
    assert (await api.http.get("/devices", headers=[good])).status_code == 200
    for second in (good, ("Authorization", "Bearer owner")):
        answer = await api.http.get("/devices", headers=[good, second])
        assert answer.status_code == 401
        assert "one Authorization header" in answer.json()["Message"]


async def test_an_unknown_host(api: Api) -> None:
    """A stranger cannot learn which hosts are hubs; a bearer, who is known, is told."""
    strange = token("elsewhere.example", OTHER, name="iothubowner").decode()
    here = token(HOST, OTHER, name="iothubowner").decode()
    absent = await api.call("GET", "/devices", host="elsewhere.example", authorization=strange)
    present = await api.call("GET", "/devices", authorization=here)
    assert absent.status_code == present.status_code == 401
    assert absent.json()["Message"] == present.json()["Message"]
    for given, status in (("Bearer nobody", 401), ("", 401), ("Bearer owner", 404)):
        answer = await api.call("GET", "/devices", host="elsewhere.example", authorization=given)
        assert answer.status_code == status


async def test_listing(api: Api) -> None:
    """By id, with and without the slash that Node sends, and never another hub's."""
    for name in ("c", "a", "b"):
        api.devices.put(a_device(name))
    api.devices.put(a_device("z", "hub-2"))
    for path, names in (("/devices", "abc"), ("/devices/", "abc"), ("/devices?top=2", "ab")):
        answer = await api.call("GET", path)
        assert [device["deviceId"] for device in answer.json()] == list(names)


async def test_statistics_and_connection_state(api: Api) -> None:
    """What is registered, what is enabled, and who is connected."""
    api.devices.put(a_device())
    api.devices.put(a_device("dev2", status=DeviceStatus.DISABLED))
    await api.sessions.open(an_attempt(), lambda _reason: None)
    answer = await api.call("GET", "/statistics/devices")
    assert answer.json() == {
        "totalDeviceCount": 2, "enabledDeviceCount": 1, "disabledDeviceCount": 1,
    }  # fmt: skip
    answer = await api.call("GET", "/statistics/service")
    assert answer.json() == {"connectedDeviceCount": 1}
    shown = (await api.call("GET", "/devices/dev1")).json()
    assert shown["connectionState"] == "Connected"
    assert shown["connectionStateUpdatedTime"] == NOW.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_bulk_creates_changes_and_deletes(api: Api) -> None:
    """Modes come in any case; ids and tags have keys of their own here."""
    old = api.devices.put(a_device("old"))
    api.devices.put(a_device("gone"))
    by_ca = {"type": "certificateAuthority"}
    answer = await api.call(
        "POST",
        "/devices",
        [
            {"id": "new", "importMode": "create", "authentication": by_ca},
            {
                "id": "old",
                "importMode": "UpdateIfMatchETag",
                "eTag": str(old.etag),
                "status": "disabled",
            },
            {"id": "gone", "importMode": "Delete"},
            {"id": "plain"},
        ],
    )
    assert answer.status_code == 200
    assert answer.json() == {"isSuccessful": True, "errors": [], "warnings": []}
    stored = {device_id: device for (_, device_id), device in api.devices.devices.items()}
    assert set(stored) == {"new", "old", "plain"}
    assert stored["old"].status is DeviceStatus.DISABLED
    assert stored["new"].authentication == DeviceAuthentication(
        AuthenticationType.CERTIFICATE_AUTHORITY
    )


async def test_bulk_names_each_failure_and_does_the_rest(api: Api) -> None:
    """One bad entry does not hold the others up."""
    api.devices.put(a_device("taken"))
    answer = await api.call(
        "POST",
        "/devices",
        [
            {"id": "taken", "importMode": "create"},
            {"id": "ghost", "importMode": "delete"},
            {"id": "taken", "importMode": "deleteIfMatchETag", "eTag": "old"},
            {"id": "taken", "importMode": "deleteIfMatchETag"},
            {"id": "bad id", "importMode": "create"},
            {"id": "twin", "importMode": "create", "tags": {}},
            {"id": "twin", "importMode": "updateTwin"},
            {"id": "d", "moduleId": "m"},
            {"id": "fine"},
        ],
    )
    assert answer.status_code == 400
    assert [(one["deviceId"], one["errorCode"]) for one in answer.json()["errors"]] == [
        ("taken", "DeviceAlreadyExists"),
        ("ghost", "DeviceNotFound"),
        ("taken", "PreconditionFailed"),
        ("taken", "ArgumentInvalid"),
        ("bad id", "ArgumentInvalid"),
        ("twin", "NotImplemented"),
        ("twin", "NotImplemented"),
        ("d", "NotImplemented"),
    ]
    assert ("hub-1", "fine") in api.devices.devices


@pytest.mark.parametrize("count", [0, 101])
async def test_bulk_has_a_limit(api: Api, count: int) -> None:
    """1 to 100 devices."""
    answer = await api.call("POST", "/devices", [{"id": f"d{n}"} for n in range(count)])
    assert answer.status_code == 400
    assert api.devices.devices == {}


async def test_twins_are_refused_in_their_own_shape(api: Api) -> None:
    """The message is a JSON text with a number, as twin clients expect."""
    answer = await api.call("GET", "/twins/dev1")
    assert answer.status_code == 501
    assert answer.json()["ExceptionMessage"] == ""
    inner = msgspec.json.decode(answer.json()["Message"])
    assert inner["errorCode"] == 501001
    assert {"trackingId", "message", "timestampUtc"} < set(inner)


@pytest.fixture(autouse=True)
def _no_leak(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No key may reach the log, whatever a test does."""
    yield
    printed = capsys.readouterr()
    assert POLICY_KEY not in printed.out + printed.err
    assert PRIMARY not in printed.out + printed.err
