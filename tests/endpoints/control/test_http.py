"""The resource manager's wire, where the SDKs of the end-to-end tests do not go."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request

from muster.control.hubs import Hubs
from muster.control.services import ProvisioningServices
from muster.control.subscriptions import Subscriptions
from muster.endpoints.control import http as resource_manager_http
from muster.endpoints.control.wire import ResourceManagerWire
from muster.errors import Kind, Problem
from muster.model.principal import Principal, PrincipalKind, Role
from muster.store.database import Database
from muster.store.resources import SqlResourceStore
from muster.store.schema import metadata

HUB = {"location": "local", "sku": {"name": "S1", "capacity": 1}}
SECRET = "dG9wLXNlY3JldC10b3Atc2VjcmV0LXRvcC1zZWNyZXQ="


class StandingClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        """Return noon."""
        return datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)

    def monotonic(self) -> float:
        """Return nothing."""
        return 0.0


class NoDevices:
    """An empty registry."""

    async def count_devices(self, hub_id: str) -> tuple[int, int]:
        """Return none."""
        return 0, 0


async def authenticate(request: Request) -> Principal:
    """Take the role itself for a token."""
    role = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not role:
        raise Problem(Kind.UNAUTHENTICATED, "the request needs one Authorization header")
    roles = frozenset({Role(role)}) if role != "Nobody" else frozenset[Role]()
    return Principal("tenant", "object", PrincipalKind.APPLICATION, "name", roles=roles)


@dataclass
class Server:
    """The resource manager."""

    app: Starlette
    store: SqlResourceStore
    root: str

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        role: str | None = "Owner",
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """Send one request; *path* is relative to the bootstrap group's provider."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {} if role is None else {"Authorization": f"Bearer {role}"}
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="https://localhost") as client:
            url = path if path.startswith("/") else f"{self.root}/{path}"
            return await client.request(
                method, url, content=content, headers=sent | (headers or {})
            )

    async def hub(self, **changes: Any) -> dict[str, Any]:
        """Put the hub `plant`; return what was answered."""
        answer = await self.call("PUT", "IotHubs/plant", {**HUB, **changes})
        assert answer.status_code in (200, 201), answer.text
        document: dict[str, Any] = answer.json()
        return document


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A resource manager on an empty database."""
    clock = StandingClock()
    database = Database(tmp_path / "muster.db")
    metadata.create_all(database.engine)
    store = SqlResourceStore(database)
    subscriptions = Subscriptions(store, clock)
    subscription, _ = await subscriptions.bootstrap("tenant")
    routes = resource_manager_http.routes(
        hubs=Hubs(store, subscriptions, NoDevices(), clock, domain="iot.example"),
        services=ProvisioningServices(store, store, subscriptions, clock, domain="iot.example"),
        subscriptions=subscriptions,
        authenticate=authenticate,
        clock=clock,
        authority="https://localhost:8443/tenant",
        global_hostname="iot.example",
    )
    root = f"/subscriptions/{subscription.id}/resourceGroups/muster/providers/Microsoft.Devices"
    yield Server(Starlette(routes=routes), store, root)
    await database.close()


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and code; the answer has Azure's shape."""
    document = answer.json()
    assert set(document) == {"error"}
    assert document["error"]["message"]
    return answer.status_code, document["error"]["code"]


# Who may.


async def test_a_stranger_learns_nothing(server: Server) -> None:
    """401 whatever the path, with where to get a token."""
    for path in ("IotHubs/plant", "/subscriptions", "/subscriptions/x/y/z", "/providers/nothing"):
        answer = await server.call("GET", path, role=None)
        assert error_of(answer) == (401, "AuthenticationFailed")
        challenge = answer.headers["www-authenticate"]
        assert 'authorization_uri="https://localhost:8443/tenant"' in challenge
        assert 'error="invalid_token"' in challenge


def test_a_challenge_cannot_be_broken_out_of() -> None:
    """Whatever the refusal quotes, the header stays one header with one text."""
    problem = Problem(Kind.UNAUTHENTICATED, 'a"b\\c\r\nSet-Cookie: d\u20ac')
    wire = ResourceManagerWire(authenticate, cast("Any", None), "https://localhost/tenant")
    answer = wire.refuse(Request({"type": "http"}), problem, "id")
    challenge = answer.headers["www-authenticate"]
    assert challenge.endswith('error_description="a?b?c??Set-Cookie: d?"')


async def test_a_reader_reads(server: Server) -> None:
    """Resources, and neither keys nor changes."""
    await server.hub()
    for path in ("IotHubs/plant", "IotHubs", "IotHubs/plant/certificates"):
        assert (await server.call("GET", path, role="Reader")).status_code == 200
    for method, path in (
        ("PUT", "IotHubs/other"),
        ("PATCH", "IotHubs/plant"),
        ("DELETE", "IotHubs/plant"),
        ("POST", "IotHubs/plant/listkeys"),
        ("POST", "IotHubs/plant/IotHubKeys/iothubowner/listkeys"),
        ("PUT", "IotHubs/plant/certificates/ca"),
        ("PUT", "provisioningServices/line7"),
        ("POST", "provisioningServices/line7/listkeys"),
    ):
        answer = await server.call(method, path, role="Reader")
        assert error_of(answer) == (403, "AuthorizationFailed")
    assert len((await server.call("GET", "IotHubs")).json()["value"]) == 1


async def test_nobody_reads_nothing(server: Server) -> None:
    """A caller without a role may not even look."""
    assert error_of(await server.call("GET", "IotHubs", role="Nobody"))[0] == 403


# Where.


async def test_paths_are_compared_without_case(server: Server) -> None:
    """From the first segment on, names included; `api-version` does not matter."""
    await server.hub()
    path = f"{server.root}/IotHubs/plant"
    for spelling in (path, path.lower(), path.upper(), path + "/", path + "?api-version=1999"):
        answer = await server.call("GET", spelling)
        assert answer.status_code == 200, spelling
        assert answer.json()["name"] == "plant"


async def test_what_is_not_there_has_azures_words(server: Server) -> None:
    """Subscription, group, resource, path and method."""
    await server.hub()
    group = server.root.removesuffix("/providers/Microsoft.Devices")
    subscription = group.removesuffix("/resourceGroups/muster")
    for method, path, expected in (
        ("GET", "/subscriptions/no", (404, "SubscriptionNotFound")),
        ("GET", f"{subscription}/resourceGroups/no", (404, "ResourceGroupNotFound")),
        ("GET", "IotHubs/no", (404, "ResourceNotFound")),
        ("GET", "IotHubs/plant/certificates/no", (404, "ResourceNotFound")),
        ("POST", "IotHubs/plant/IotHubKeys/no/listkeys", (404, "ResourceNotFound")),
        ("GET", "IotHubs/plant/eventHubEndpoints/x/ConsumerGroups", (404, "ResourceNotFound")),
        ("GET", "IotHubs/plant/no/such/thing", (404, "NotFound")),
        ("GET", "/providers/Microsoft.Storage", (404, "NotFound")),
        ("POST", "IotHubs/plant", (405, "MethodNotAllowed")),
        ("GET", "IotHubs/plant/listkeys", (405, "MethodNotAllowed")),
        ("GET", "IotHubs/" + "x" * 2000, (414, "InvalidRequestUri")),
    ):
        assert error_of(await server.call(method, path)) == expected, path


async def test_subscriptions_and_groups_are_listed(server: Server) -> None:
    """What a picker needs."""
    (subscription,) = (await server.call("GET", "/subscriptions")).json()["value"]
    assert subscription["tenantId"] == "tenant"
    path = subscription["id"]
    assert (await server.call("GET", path)).json() == subscription
    (group,) = (await server.call("GET", f"{path}/resourcegroups")).json()["value"]
    assert group["name"] == "muster"
    assert (await server.call("GET", group["id"])).json() == group
    assert (await server.call("HEAD", group["id"])).status_code == 204
    answer = await server.call("GET", f"{path}/providers/Microsoft.Devices")
    assert answer.json()["registrationState"] == "Registered"


# Resources.


async def test_a_hubs_document(server: Server) -> None:
    """Created 201, updated 200; ready at once; complete, and without a key."""
    answer = await server.call("PUT", "IotHubs/Plant", HUB)
    assert answer.status_code == 201
    assert not {"location", "azure-asyncoperation", "retry-after"} & set(answer.headers)
    document = answer.json()
    assert document["id"] == f"{server.root}/IotHubs/Plant"
    assert document["type"] == "Microsoft.Devices/IotHubs"
    assert document["sku"] == {"name": "S1", "tier": "Standard", "capacity": 1}
    assert '"' not in document["etag"]
    assert document["properties"] == {
        "provisioningState": "Succeeded",
        "state": "Active",
        "hostName": "plant.iot.example",
        "locations": [{"location": "local", "role": "primary"}],
        "eventHubEndpoints": {
            "events": {
                "retentionTimeInDays": 1,
                "partitionCount": 4,
                "partitionIds": ["0", "1", "2", "3"],
                "path": "plant",
                "endpoint": "sb://plant.iot.example/",
            }
        },
    }
    assert (await server.call("PUT", "IotHubs/plant", HUB)).status_code == 200


async def test_what_was_read_can_be_put_back(server: Server) -> None:
    """Read-only parts are ignored, unknown ones survive."""
    before = await server.hub(
        tags={"a": "b"},
        identity={"type": "None"},
        properties={"comments": "x", "cloudToDevice": {"maxDeliveryCount": 7}, "new": [1, None]},
    )
    answer = await server.call(
        "PUT", "IotHubs/plant", before, headers={"If-Match": f'"{before["etag"]}"'}
    )
    after = answer.json()
    assert after.pop("etag") != before.pop("etag")
    assert after == before
    assert after["identity"] == {"type": "None"}
    assert after["properties"]["new"] == [1, None]


async def test_keys_are_shown_by_listkeys_only(server: Server) -> None:
    """Given ones are kept; what looks like a secret elsewhere is masked on the way in."""
    properties = {
        "authorizationPolicies": [
            {"keyName": "mine", "rights": "DeviceConnect", "primaryKey": SECRET}
        ],
        "storageEndpoints": {
            "$default": {
                "connectionString": f"AccountName=x;AccountKey={SECRET};EndpointSuffix=y",
                "sasUrl": f"https://x/?sv=1&sig={SECRET}&se=2",
                "primaryKey": SECRET,
            }
        },
        "routing": {
            "endpoints": {"eventHubs": [{"connectionString": f"SharedAccessKey={SECRET}"}]}
        },
    }
    document = await server.hub(properties=properties)
    assert SECRET not in json.dumps(document)
    endpoint = document["properties"]["storageEndpoints"]["$default"]
    assert endpoint["connectionString"] == "AccountName=x;AccountKey=****;EndpointSuffix=y"
    for path in ("IotHubs/plant", "IotHubs"):
        assert SECRET not in (await server.call("GET", path)).text
    keys = (await server.call("POST", "IotHubs/plant/listkeys")).json()["value"]
    assert [(key["keyName"], key["primaryKey"]) for key in keys] == [("mine", SECRET)]


@pytest.mark.parametrize(
    "properties",
    [
        {"publicNetworkAccess": "Disabled"},
        {"disableLocalAuth": True},
        {"disableDeviceSAS": True},
        {"ipFilterRules": [{"filterName": "a", "action": "Reject", "ipMask": "0.0.0.0/0"}]},
        {"networkRuleSets": {"defaultAction": "Deny"}},
        {"minTlsVersion": "1.3"},
    ],
)
async def test_a_restriction_that_nothing_enforces_is_refused(
    server: Server, properties: dict[str, Any]
) -> None:
    """Giving it back would say that it holds."""
    for path in ("IotHubs/plant", "provisioningServices/line7"):
        answer = await server.call("PUT", path, {**HUB, "properties": properties})
        assert error_of(answer) == (501, "NotImplemented")
        assert next(iter(properties)) in answer.text


async def test_what_restricts_nothing_is_kept(server: Server) -> None:
    """As templates and the SDKs send it."""
    properties = {
        "publicNetworkAccess": "Enabled",
        "disableLocalAuth": False,
        "ipFilterRules": [],
        "minTlsVersion": "1.2",
        "networkRuleSets": None,
    }
    document = await server.hub(properties=properties)
    assert document["properties"].items() >= properties.items()


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"7",
        b"{",
        b"\xff",
        b'{"location":NaN}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        {"location": "l"},
        {**HUB, "properties": []},
        {**HUB, "properties": {"authorizationPolicies": {}}},
        {**HUB, "properties": {"authorizationPolicies": [7]}},
        {**HUB, "properties": {"authorizationPolicies": [{"keyName": "a"}]}},
        {**HUB, "properties": {"eventHubEndpoints": 1}},
        {**HUB, "properties": {"eventHubEndpoints": {"events": {"partitionCount": True}}}},
        {**HUB, "properties": {"eventHubEndpoints": {"events": {"partitionCount": "4"}}}},
        {**HUB, "properties": {"a": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}},
        {**HUB, "tags": {"muster-hostname": "not a host"}},
    ],
)
async def test_bad_bodies_are_refused(server: Server, body: Any) -> None:
    """Other types, rubbish, nesting: 400, and nothing is stored."""
    answer = await server.call("PUT", "IotHubs/plant", body)
    assert error_of(answer) == (400, "BadRequest")
    assert await server.store.list_hubs() == []


async def test_a_large_body_is_refused(server: Server) -> None:
    """Before it is read to its end."""
    answer = await server.call("PUT", "IotHubs/plant", b" " * 300_000)
    assert error_of(answer) == (413, "RequestEntityTooLarge")


async def test_preconditions(server: Server) -> None:
    """Bare, quoted and `*`; a stale one is 412, a broken one 400."""
    document = await server.hub()
    for tag, status in (
        ("old", 412),
        ('"old"', 412),
        (document["etag"], 200),
        ("*", 200),
        ("a b", 400),
        ("", 400),
    ):
        answer = await server.call("PUT", "IotHubs/plant", HUB, headers={"If-Match": tag})
        assert answer.status_code == status, tag
    for tag, status in (("*", 412), ("x", 400)):
        answer = await server.call("PUT", "IotHubs/plant", HUB, headers={"If-None-Match": tag})
        assert answer.status_code == status
    answer = await server.call("DELETE", "IotHubs/plant", headers={"If-Match": "old"})
    assert answer.status_code == 412


async def test_a_patch_changes_tags_only(server: Server) -> None:
    """Anything else would be lost in silence."""
    await server.hub()
    answer = await server.call("PATCH", "IotHubs/plant", {"tags": {"a": "b"}})
    assert answer.json()["tags"] == {"a": "b"}
    answer = await server.call("PATCH", "IotHubs/plant", {"properties": {}})
    assert error_of(answer)[0] == 501
    answer = await server.call("PATCH", "IotHubs/plant", {"tags": {"a": 1}})
    assert error_of(answer)[0] == 400


async def test_a_services_document(server: Server) -> None:
    """Links are masked; a hub that is linked twice or by another identity is refused."""
    await server.hub()
    keys = (await server.call("POST", "IotHubs/plant/listkeys")).json()["value"]
    key = keys[0]["primaryKey"]
    link = {
        "connectionString": f"HostName=plant.iot.example;SharedAccessKeyName=iothubowner;"
        f"SharedAccessKey={key}",
        "location": "local",
    }
    answer = await server.call(
        "PUT", "provisioningServices/line7", {**HUB, "properties": {"iotHubs": [link]}}
    )
    assert answer.status_code == 201
    document = answer.json()
    assert key not in answer.text
    assert document["properties"]["iotHubs"][0]["name"] == "plant.iot.example"
    assert document["properties"]["serviceOperationsHostName"] == "line7.iot.example"
    assert document["properties"]["deviceProvisioningHostName"] == "iot.example"
    assert document["resourcegroup"] == "muster"
    again = await server.call("PUT", "provisioningServices/line7", document)
    assert again.status_code == 200
    assert again.json()["properties"] == document["properties"]
    for links, status in (
        ([link, link], 409),
        ([{**link, "authenticationType": "SystemAssigned"}], 501),
        ([{**link, "hostName": "other.example"}], 400),
        ([{"name": "unknown.example"}], 400),
        ([7], 400),
        ({}, 400),
    ):
        answer = await server.call(
            "PUT", "provisioningServices/line7", {**HUB, "properties": {"iotHubs": links}}
        )
        assert answer.status_code == status, answer.text
        assert key not in answer.text


# Certificates.


def ca_certificate(name: str = "Plant CA") -> str:
    """Return a CA certificate in base64."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = StandingClock().now() - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


@pytest.mark.parametrize(
    ("parent", "created"), [("IotHubs/plant", 201), ("provisioningServices/line7", 200)]
)
async def test_a_certificates_document(server: Server, parent: str, created: int) -> None:
    """RFC 1123 dates, upper-case SHA-1, and 200 always from a provisioning service."""
    await server.call("PUT", parent, HUB)
    text = ca_certificate()
    path = f"{parent}/certificates/ca"
    query = "?certificate.name=ca&certificate.isVerified=true"
    answer = await server.call("PUT", path + query, {"properties": {"certificate": text}})
    assert answer.status_code == created
    document = answer.json()
    assert document["type"].endswith("/Certificates")
    assert document["properties"] == {
        "subject": "CN=Plant CA",
        "expiry": "Tue, 22 Dec 2026 12:00:00 GMT",
        "thumbprint": document["properties"]["thumbprint"].upper(),
        "isVerified": False,
        "created": "Mon, 23 Nov 2026 12:00:00 GMT",
        "updated": "Mon, 23 Nov 2026 12:00:00 GMT",
        "certificate": text,
    }
    # Older API versions have no `properties`.
    older = {"certificate": text, "isVerified": True}
    answer = await server.call("PUT", path, older, headers={"If-Match": document["etag"]})
    assert answer.status_code == 200
    assert answer.json()["properties"]["isVerified"] is True


async def test_changing_a_certificate_takes_its_tag(server: Server) -> None:
    """Missing where it is required: 400; stale: 412."""
    await server.hub()
    path = "IotHubs/plant/certificates/ca"
    body = {"properties": {"certificate": ca_certificate()}}
    await server.call("PUT", path, body)
    for method, suffix in (
        ("POST", "/generateVerificationCode"),
        ("POST", "/verify"),
        ("DELETE", ""),
    ):
        answer = await server.call(method, path + suffix, {"certificate": ca_certificate()})
        assert error_of(answer) == (400, "BadRequest")
    other = {"properties": {"certificate": ca_certificate()}}
    assert error_of(await server.call("PUT", path, other)) == (412, "PreconditionFailed")
    answer = await server.call("DELETE", path, headers={"If-Match": "*"})
    assert answer.status_code == 204


async def test_a_code_is_shown_once(server: Server) -> None:
    """By the call that makes it, and by no GET."""
    await server.hub()
    path = "IotHubs/plant/certificates/ca"
    await server.call("PUT", path, {"properties": {"certificate": ca_certificate()}})
    answer = await server.call(
        "POST", f"{path}/generateVerificationCode", headers={"If-Match": "*"}
    )
    code = answer.json()["properties"]["verificationCode"]
    assert code
    assert code not in (await server.call("GET", path)).text
    assert code not in (await server.call("GET", "IotHubs/plant/certificates")).text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"properties": {}},
        {"properties": {"certificate": 7}},
        {"properties": {"certificate": ""}},
        {"properties": {"certificate": "AAAA"}},
        {"properties": {"certificate": "AAAA", "isVerified": "yes"}},
        {"properties": []},
    ],
)
async def test_bad_certificates_are_refused(server: Server, body: Any) -> None:
    """Nothing of them is kept."""
    await server.hub()
    answer = await server.call("PUT", "IotHubs/plant/certificates/ca", body)
    assert error_of(answer) == (400, "BadRequest")
    listed = await server.call("GET", "IotHubs/plant/certificates")
    assert listed.json() == {"value": []}


async def test_name_checks_answer_rather_than_fail(server: Server) -> None:
    """Also for names that cannot be; older clients wrap the name."""
    await server.hub()
    root = server.root.replace("/resourceGroups/muster", "")
    for body, available, reason in (
        ({"name": "fresh"}, True, None),
        ({"properties": {"name": "fresh"}}, True, None),
        ({"name": "PLANT"}, False, "AlreadyExists"),
        ({"name": "a"}, False, "Invalid"),
    ):
        answer = (await server.call("POST", f"{root}/checkNameAvailability", body)).json()
        assert (answer["nameAvailable"], answer["reason"]) == (available, reason)
    answer = await server.call("POST", f"{root}/checkNameAvailability", {})
    assert error_of(answer)[0] == 400


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_PROPERTIES = st.dictionaries(
    st.sampled_from(
        ["authorizationPolicies", "iotHubs", "eventHubEndpoints", "allocationPolicy", "comments"]
    ),
    _JSON,
)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    properties=_PROPERTIES, tags=_JSON, kind=st.sampled_from(["IotHubs", "provisioningServices"])
)
async def test_no_document_makes_it_fail(
    server: Server, properties: dict[str, Any], tags: Any, kind: str
) -> None:
    """Whatever JSON comes, the answer is a resource or an explained refusal."""
    body = {**HUB, "properties": properties, "tags": tags}
    answer = await server.call("PUT", f"{kind}/plant", body)
    assert answer.status_code in (200, 201, 400, 409, 501), answer.text
