"""The provisioning service's API for operators, over ASGI."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from tests.support.pki import TestAuthority
from tests.support.provisioning import (
    OWNER,
    READER,
    SERVICE_HOST,
    World,
    a_service,
    a_world,
    der,
    linked,
    uploaded,
)

from muster.endpoints.provisioning.http import routes
from muster.errors import Kind, Problem
from muster.model.enrollment import SigningCertificates
from muster.model.principal import Principal, PrincipalKind, Role
from muster.model.resource import AccessPolicy
from muster.protocols.sas import build_token
from muster.provisioning.enrollments import GroupSettings

HUB_NAMES = ("hub-1.example", "hub-2.example")


async def authenticate(request: Request) -> Principal:
    """Tokens are their own roles here."""
    name = request.headers["authorization"].split(" ")[1]
    if name not in ("Owner", "Reader"):
        raise Problem(Kind.UNAUTHENTICATED, "no such token")
    return Principal("t", f"object-{name}", PrincipalKind.USER, name, roles=frozenset({Role(name)}))


class Api:
    """A client of the API."""

    def __init__(self, world: World) -> None:
        self.world = world
        app = Starlette(
            routes=routes(
                enrollments=world.enrollments,
                records=world.records,
                hosts=world.hubs,
                authenticate=authenticate,
                clock=world.clock,
            )
        )
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app), base_url=f"https://{SERVICE_HOST}"
        )

    def token(
        self,
        policy: AccessPolicy = OWNER,
        *,
        resource: str = SERVICE_HOST,
        seconds: int = 3600,
        key: str | None = None,
        named: bool = True,
    ) -> str:
        """A shared access signature."""
        expiry = int(self.world.clock.now().timestamp()) + seconds
        name = policy.key_name if named else None
        return build_token(resource, key or policy.primary_key, expiry, name)

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        **headers: str,
    ) -> httpx2.Response:
        """Call the API with the owner's key."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent.setdefault("authorization", token if token is not None else self.token())
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body)
        return await self.http.request(
            method, f"{path}?api-version=2021-10-01", content=content, headers=sent
        )


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """The API of a service with two hubs and two CAs, `root` and `spare`."""
    async with a_world(tmp_path) as world:
        spare = uploaded("spare", TestAuthority("Spare Root"))
        world.change_service(
            linked_hubs=tuple(linked(name) for name in HUB_NAMES),
            certificates=(*world.service.certificates, spare),
        )
        client = Api(world)
        yield client
        await client.http.aclose()


def a_body(name: str = "line-2", **changes: Any) -> dict[str, Any]:
    """A group that refers to the spare CA."""
    return {
        "enrollmentGroupId": name,
        "attestation": {"type": "x509", "x509": {"caReferences": {"primary": "spare"}}},
        **changes,
    }


def assert_error(answer: httpx2.Response, status: int, code: int | None = None) -> str:
    """The answer is an error in the API's own form; return its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    document = answer.json()
    assert set(document) == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert document["errorCode"] // 1000 == status
    assert answer.headers["x-ms-error-code"] == str(document["errorCode"])
    if code is not None:
        assert document["errorCode"] == code
    message: str = document["message"]
    return message


# Groups


async def test_create_and_read(api: Api) -> None:
    """What was written is read back, completed with what the service adds."""
    twin = {"tags": {"line": 2}, "properties": {"desired": {"rate": 5}}}
    sent = a_body(
        "Line-2",
        capabilities={"iotEdge": True},
        initialTwin=twin,
        provisioningStatus="disabled",
        reprovisionPolicy={"updateHubAssignment": True, "migrateDeviceData": False},
        allocationPolicy="static",
        iotHubs=["hub-2.example"],
    )
    created = await api("PUT", "/enrollmentGroups/Line-2", sent)
    assert created.status_code == 200
    document = created.json()
    for name, value in sent.items():
        assert document[name] == value
    assert document["etag"][0] == document["etag"][-1] == '"'
    assert document["createdDateTimeUtc"] == document["lastUpdatedDateTimeUtc"]
    read = await api("GET", "/enrollmentGroups/line-2")
    assert read.json() == document
    [audit] = [line for line in await api.world.audit_trail() if line[0].startswith("policy:")]
    assert audit == ("policy:provisioningserviceowner", "enrollment.create", "ok")


async def test_defaults(api: Api) -> None:
    """What was left out has the service's defaults."""
    document = (await api("PUT", "/enrollmentGroups/line-2", a_body())).json()
    assert document["provisioningStatus"] == "enabled"
    assert document["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}
    assert document["capabilities"] == {"iotEdge": False}
    assert "allocationPolicy" not in document


@pytest.mark.parametrize("form", ["pem", "der", "pem in base64", "der in lines"])
async def test_carried_certificates(api: Api, form: str) -> None:
    """A certificate comes in any of its forms, and can be written back as it was read."""
    authority = TestAuthority("Carried")
    data = der(authority.certificate)
    pem = base64.encodebytes(data).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{pem}-----END CERTIFICATE-----\n"
    text = {
        "pem": pem,
        "der": base64.b64encode(data).decode(),
        "pem in base64": base64.b64encode(pem.encode()).decode(),
        "der in lines": base64.encodebytes(data).decode(),
    }[form]
    signing = {"primary": {"certificate": text}, "secondary": None}
    x509 = {"signingCertificates": signing, "clientCertificates": None, "caReferences": None}
    sent = a_body(attestation={"type": "x509", "x509": x509, "tpm": None})
    first = await api("PUT", "/enrollmentGroups/line-2", sent)
    assert first.status_code == 200, first.text
    shown = first.json()["attestation"]["x509"]["signingCertificates"]["primary"]
    assert base64.b64decode(shown["certificate"]) == data
    assert shown["info"]["subjectName"] == "CN=Carried"
    assert len(shown["info"]["sha256Thumbprint"]) == 64
    assert shown["info"]["version"] == 3
    again = await api("PUT", "/enrollmentGroups/line-2", first.json())
    assert again.status_code == 200, again.text


async def test_entity_tags(api: Api) -> None:
    """Replacing takes the stored tag: in the header, quoted or not, in the body, or `*`."""
    path = "/enrollmentGroups/line-2"
    tag = (await api("PUT", path, a_body())).json()["etag"]
    assert_error(await api("PUT", path, a_body()), 409)
    assert_error(await api("PUT", path, a_body(), if_match='"other"'), 412)
    assert_error(await api("PUT", path, a_body(etag='"other"')), 412)
    assert_error(await api("PUT", path, a_body(etag=tag), if_match='"other"'), 412)
    for way in ({"if_match": "TAG"}, {"if_match": "BARE"}, {"etag": "TAG"}, {"if_match": "*"}):
        spelled = {k: v.replace("TAG", tag).replace("BARE", tag.strip('"')) for k, v in way.items()}
        body = a_body(**{k: v for k, v in spelled.items() if k == "etag"})
        headers = {k: v for k, v in spelled.items() if k == "if_match"}
        answer = await api("PUT", path, body, **headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["etag"] != tag
        tag = answer.json()["etag"]
    assert_error(await api("PUT", "/enrollmentGroups/new", a_body("new"), if_match="*"), 412)


async def test_delete(api: Api) -> None:
    """Deleting takes no tag, or the stored one."""
    path = "/enrollmentGroups/line-2"
    tag = (await api("PUT", path, a_body())).json()["etag"]
    assert_error(await api("DELETE", path, if_match='"other"'), 412)
    assert (await api("DELETE", path, if_match=tag)).status_code == 204
    assert_error(await api("GET", path), 404, 404201)
    assert_error(await api("DELETE", path), 404, 404201)
    assert (await api("DELETE", "/enrollmentGroups/factory")).status_code == 204


async def test_paths_have_no_case_and_may_end_in_a_slash(api: Api) -> None:
    """Node writes `/enrollmentgroups/`, and slashes before the query."""
    answer = await api("POST", "/enrollmentgroups/factory/attestationMechanism")
    assert answer.json() == {"type": "x509", "x509": {"caReferences": {"primary": "root"}}}
    assert (await api("GET", "/ENROLLMENTGROUPS/Factory/")).status_code == 200
    assert (await api("POST", "/enrollmentGroups/query/", {"query": "*"})).status_code == 400


async def test_a_certificate_is_used_by_one_group(api: Api) -> None:
    """A second group on the same CA is a conflict that names the first."""
    references = {"caReferences": {"primary": "spare", "secondary": "root"}}
    body = a_body(attestation={"type": "x509", "x509": references})
    answer = await api("PUT", "/enrollmentGroups/line-2", body)
    assert "factory" in assert_error(answer, 409, 409203)


X509 = {"type": "x509"}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"attestation": {"type": "symmetricKey"}}, 501),
        ({"attestation": {"type": "tpm"}}, 501),
        ({"attestation": X509}, 400),
        ({"attestation": {**X509, "x509": {"caReferences": {}}}}, 400),
        ({"attestation": {**X509, "x509": {"caReferences": {"primary": "gone"}}}}, 400),
        (
            {
                "attestation": {
                    **X509,
                    "x509": {"caReferences": {"primary": "spare", "secondary": "SPARE"}},
                }
            },
            400,
        ),
        ({"attestation": {**X509, "x509": {"clientCertificates": {}}}}, 400),
        (
            {
                "attestation": {
                    **X509,
                    "x509": {
                        "signingCertificates": {"primary": {"certificate": "AAAA"}},
                        "caReferences": {"primary": "spare"},
                    },
                }
            },
            400,
        ),
        (
            {"attestation": {**X509, "x509": {"signingCertificates": {"primary": {"info": {}}}}}},
            400,
        ),
        (
            {
                "attestation": {
                    **X509,
                    "x509": {"signingCertificates": {"primary": {"certificate": "AAAA"}}},
                }
            },
            400,
        ),
        ({"attestation": None}, 400),
        ({"enrollmentGroupId": "other"}, 400),
        ({"provisioningStatus": "maybe"}, 400),
        ({"allocationPolicy": "random"}, 400),
        ({"allocationPolicy": "custom"}, 501),
        ({"customAllocationDefinition": {"webhookUrl": "https://x"}}, 501),
        ({"allocationPolicy": "static"}, 400),
        ({"allocationPolicy": "static", "iotHubs": list(HUB_NAMES)}, 400),
        ({"iotHubs": ["unlinked.example"]}, 400),
        ({"iotHubs": ["hub-1.example"] * 51}, 400),
        ({"iotHubHostName": "hub-1.example", "iotHubs": ["hub-2.example"]}, 400),
        ({"initialTwin": {"tags": {"a": "x" * 9000}}}, 400),
        ({"initialTwin": {"tags": []}}, 400),
        ({"etag": "not a tag"}, 400),
    ],
    ids=range(24),
)
async def test_groups_that_are_refused(api: Api, changes: dict[str, Any], status: int) -> None:
    """What makes no sense is said when it is written, and nothing is stored."""
    assert_error(await api("PUT", "/enrollmentGroups/line-2", a_body(**changes)), status)
    assert_error(await api("GET", "/enrollmentGroups/line-2"), 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b'{"attestation":' + b"[" * 100_000, 400),
        (b" " * (256 * 1024 + 1), 413),
    ],
    ids=["empty", "cut", "array", "no text", "deep", "large"],
)
async def test_bodies_that_are_refused(api: Api, body: bytes, status: int) -> None:
    """A body that is no group costs nothing but its answer."""
    assert_error(await api("PUT", "/enrollmentGroups/line-2", body), status)


@pytest.mark.parametrize("name", ["dev_", "a%20b", "a" * 129, "%00"])
async def test_ids_that_are_refused(api: Api, name: str) -> None:
    """Group ids follow the rules of registration ids."""
    body = a_body()
    del body["enrollmentGroupId"]
    assert_error(await api("PUT", f"/enrollmentGroups/{name}", body), 400)


async def test_a_leaf_is_no_signing_certificate(api: Api) -> None:
    """A group is made of CAs."""
    leaf = base64.b64encode(der(api.world.root.leaf("x").certificate)).decode()
    x509 = {"signingCertificates": {"primary": {"certificate": leaf}}}
    body = a_body(attestation={"type": "x509", "x509": x509})
    assert "CA" in assert_error(await api("PUT", "/enrollmentGroups/line-2", body), 400)


async def test_parallel_creation_has_one_winner(api: Api) -> None:
    """Of many that create one group, one does and the others hear of it."""
    calls = [api("PUT", "/enrollmentGroups/line-2", a_body()) for _ in range(10)]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*calls))
    assert statuses == [200] + [409] * 9


# Lists


async def test_group_pages(api: Api) -> None:
    """Pages are bare arrays with headers that lead on, until there is nothing more."""
    for number in range(4):
        await api.world.enrollments.put_group(
            api.world.service,
            _carrying(f"group-{number}"),
            None,
            actor="test",
        )
    names: list[str] = []
    headers: dict[str, str] = {"x_ms_max_item_count": "2"}
    query = {"query": "select * FROM enrollmentGroups"}
    sizes = []
    while True:
        page = await api("POST", "/enrollmentGroups/query", query, **headers)
        assert page.headers["x-ms-item-type"] == "enrollmentGroup"
        assert page.headers["x-ms-max-item-count"] == str(len(page.json()))
        names += [one["enrollmentGroupId"] for one in page.json()]
        sizes.append(len(page.json()))
        if "x-ms-continuation" not in page.headers:
            break
        headers["x_ms_continuation"] = page.headers["x-ms-continuation"]
    assert sizes == [2, 2, 1]
    assert names == ["factory", "group-0", "group-1", "group-2", "group-3"]


def _carrying(name: str) -> GroupSettings:
    """A group with a CA of its own."""
    certificate = der(TestAuthority(name).certificate)
    return GroupSettings(name, SigningCertificates(certificate))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"query": "SELECT * FROM enrollmentGroups WHERE x = 1"}, {}),
        ({"query": "SELECT * FROM enrollments"}, {}),
        ({"query": 7}, {}),
        (None, {}),
        ({"query": "SELECT * FROM enrollmentGroups"}, {"x_ms_max_item_count": "0"}),
        ({"query": "SELECT * FROM enrollmentGroups"}, {"x_ms_max_item_count": "many"}),
        ({"query": "SELECT * FROM enrollmentGroups"}, {"x_ms_continuation": "***"}),
        ({"query": "SELECT * FROM enrollmentGroups"}, {"x_ms_continuation": "_w=="}),
    ],
    ids=range(8),
)
async def test_queries_that_are_refused(api: Api, body: Any, headers: dict[str, str]) -> None:
    """There is one query, and one sort of continuation."""
    assert_error(await api("POST", "/enrollmentGroups/query", body, **headers), 400)


# Registrations


async def provisioned(world: World, name: str) -> None:
    """Have a device registered."""
    await world.registrar.register(await world.judge(name))
    await world.registrar.settle()


async def test_registrations(api: Api) -> None:
    """A registration is read, listed with its group, and deleted."""
    for name in ("dev-1", "dev-2", "dev-3"):
        await provisioned(api.world, name)
    answer = await api("GET", "/registrations/DEV-1")
    document = answer.json()
    assert (document["registrationId"], document["deviceId"]) == ("dev-1", "dev-1")
    assert (document["status"], document["substatus"]) == ("assigned", "initialAssignment")
    assert document["assignedHub"] in HUB_NAMES
    for body in (None, {"query": "SELECT * FROM registrations"}):
        page = await api("POST", "/registrations/factory/query", body, x_ms_max_item_count="2")
        assert page.headers["x-ms-item-type"] == "deviceRegistration"
        assert [one["registrationId"] for one in page.json()] == ["dev-1", "dev-2"]
        way_on = page.headers["x-ms-continuation"]
        rest = await api("POST", "/registrations/Factory/query", body, x_ms_continuation=way_on)
        assert [one["registrationId"] for one in rest.json()] == ["dev-3"]
        assert "x-ms-continuation" not in rest.headers
    assert_error(await api("DELETE", "/registrations/dev-1", if_match='"other"'), 412)
    tag = document["etag"]
    assert base64.b64decode(tag).startswith(b'"')
    assert (await api("DELETE", "/registrations/dev-1", if_match=f'"{tag}"')).status_code == 204
    assert_error(await api("GET", "/registrations/dev-1"), 404, 404201)
    assert (await api("DELETE", "/registrations/dev-2")).status_code == 204
    assert_error(await api("GET", "/registrations/a%20b"), 400)


async def test_failed_registration_shows_why(api: Api) -> None:
    """An operator sees the number and the words."""
    api.world.hubs.failures = [Problem(Kind.FORBIDDEN, "the link has no key")]
    await provisioned(api.world, "dev-1")
    document = (await api("GET", "/registrations/dev-1")).json()
    assert (document["errorCode"], document["errorMessage"]) == (400209, "the link has no key")


# Who may


@pytest.mark.parametrize(
    "change",
    [
        {"key": "d3Jvbmcga2V5IHdyb25nIGtleSB3cm9uZyBrZXk="},
        {"seconds": -3600},
        {"resource": "other.example"},
        {"resource": f"{SERVICE_HOST}/enrollmentGroups/fact"},
        {"named": False},
        {"policy": replace(OWNER, key_name="nobody")},
    ],
    ids=["key", "expired", "resource", "prefix", "no policy", "unknown policy"],
)
async def test_signatures_that_are_refused(api: Api, change: dict[str, Any]) -> None:
    """A signature must be of a policy's key, in force, and for this resource; all read alike."""
    answer = await api("GET", "/enrollmentGroups/factory", token=api.token(**change))
    assert_error(answer, 401, 401002)


@pytest.mark.parametrize(
    "resource",
    [
        SERVICE_HOST,
        f"https://{SERVICE_HOST}:443",
        SERVICE_HOST.upper(),
        f"{SERVICE_HOST}/enrollmentGroups",
    ],
)
async def test_resources_of_all_sdks(api: Api, resource: str) -> None:
    """The audience may have a scheme, a port, capitals, or more of the path."""
    for key in (OWNER.primary_key, OWNER.secondary_key):
        token = api.token(resource=resource, key=key)
        assert (await api("GET", "/enrollmentGroups/factory", token=token)).status_code == 200


async def test_no_authorization(api: Api) -> None:
    """Without a key or a token there is nothing to see."""
    answer = await api.http.get("/enrollmentGroups/factory")
    assert_error(answer, 401)


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("GET", "/enrollmentGroups/factory", None, True),
        ("POST", "/enrollmentGroups/factory/attestationmechanism", None, True),
        ("POST", "/enrollmentGroups/query", {"query": "SELECT * FROM enrollmentGroups"}, True),
        ("PUT", "/enrollmentGroups/line-2", a_body(), False),
        ("DELETE", "/enrollmentGroups/factory", None, False),
        ("GET", "/registrations/dev-1", None, False),
        ("DELETE", "/registrations/dev-1", None, False),
        ("POST", "/registrations/factory/query", None, False),
    ],
)
async def test_rights_of_a_policy(
    api: Api, method: str, path: str, body: Any, allowed: bool
) -> None:
    """A policy with EnrollmentRead reads enrolments and does nothing else."""
    answer = await api(method, path, body, token=api.token(READER))
    if allowed:
        assert answer.status_code == 200
    else:
        assert_error(answer, 403, 403000)
    assert (await api("GET", "/enrollmentGroups/factory")).status_code == 200


async def test_bearer_tokens(api: Api) -> None:
    """An owner may do everything; a reader of the control plane sees no enrolments."""
    path = "/enrollmentGroups/factory"
    assert (await api("GET", path, token="Bearer Owner")).status_code == 200
    assert_error(await api("GET", path, token="Bearer Reader"), 403)
    assert_error(await api("GET", path, token="Bearer nobody"), 401)


async def test_services_that_share_a_host_are_told_apart_by_key(api: Api) -> None:
    """The signature's own key says which service is meant."""
    other = AccessPolicy(
        OWNER.key_name,
        "b3RoZXItc2VydmljZS1rZXktMDAwMDAwMDAwMDAwMDA=",
        "b3RoZXItc2VydmljZS1rZXktMTExMTExMTExMTExMTE=",
        OWNER.rights,
    )
    api.world.hubs.services.append(
        a_service(id="service-2", id_scope="0ne00000002", policies=(other,))
    )
    path = "/enrollmentGroups/factory"
    assert (await api("GET", path)).status_code == 200
    assert_error(await api("GET", path, token=api.token(other)), 404)
    assert_error(await api("GET", path, token="Bearer Owner"), 400)


async def test_unknown_host(api: Api) -> None:
    """A stranger cannot learn which hosts are services; a bearer, who is known, is told."""
    wrong = "d3Jvbmcga2V5IHdyb25nIGtleSB3cm9uZyBrZXk="
    path, absent = "/enrollmentGroups/factory", api.token(resource="x.example", key=wrong)
    there = assert_error(await api("GET", path, token=api.token(key=wrong)), 401)
    assert assert_error(await api("GET", path, host="x.example", token=absent), 401) == there
    assert_error(await api("GET", path, host="x.example", token="Bearer Nobody"), 401)
    assert_error(await api("GET", path, host="x.example", token="Bearer Owner"), 404)


async def test_two_authorizations(api: Api) -> None:
    """Two headers would leave it to chance which of them a proxy in front looked at."""
    good = ("authorization", api.token())
    path = "/enrollmentGroups/factory"
    assert (await api.http.get(path, headers=[good])).status_code == 200
    for second in (good, ("Authorization", "Bearer Owner")):
        assert_error(await api.http.get(path, headers=[good, second]), 401)


@pytest.mark.parametrize("seconds", [0, 3661 * 86_400])
async def test_a_signature_is_in_force_and_not_for_ever(api: Api, seconds: int) -> None:
    """To the second at its end, and of ten years at most: the hub's rules."""
    token = api.token(seconds=seconds)
    assert_error(await api("GET", "/enrollmentGroups/factory", token=token), 401)


async def test_an_encoded_slash_is_part_of_a_name(api: Api) -> None:
    """A token for one group is judged by the path as it was sent, and not as it decodes."""
    token = api.token(resource=f"{SERVICE_HOST}/enrollmentGroups/factory")
    path = "/enrollmentGroups/factory/attestationmechanism"
    assert (await api("POST", path, token=token)).status_code == 200
    sent = "/enrollmentGroups/factory%2Fattestationmechanism"
    assert_error(await api("POST", sent, token=token), 401)


# What is not served


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/enrollments/dev-1"),
        ("PUT", "/enrollments/dev-1"),
        ("POST", "/enrollments/query"),
        ("POST", "/enrollments"),
        ("POST", "/enrollments/"),
        ("POST", "/enrollmentGroups"),
        ("POST", "/enrollments/dev-1/attestationmechanism"),
    ],
)
async def test_what_is_not_served_says_so(api: Api, method: str, path: str) -> None:
    """Individual enrolments and bulk calls are 501, in the API's own form."""
    assert_error(await api(method, path, {}), 501)


async def test_bug_is_told_as_internal(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected failure is logged under the id that the caller is told, and no more."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.world.enrollments, "get_group", broken)
    answer = await api("GET", "/enrollmentGroups/factory")
    assert assert_error(answer, 500) == "internal error"
