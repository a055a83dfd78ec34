"""Enrolment groups over the provisioning service's API."""

from __future__ import annotations

import json
from urllib.parse import unquote

import pytest

from muster.client.enrollments import EnrollmentGroup, Enrollments
from muster.client.errors import ServiceError
from muster.client.shared_access import ConnectionString, SharedAccessKey

KEY = SharedAccessKey("provisioningserviceowner", "a2V5a2V5a2V5a2V5a2V5a2V5")
ENROLLMENTS = Enrollments(ConnectionString("dps.test:8443", KEY))


def group(name: str, *references: str, etag: str = '"v1"', **members) -> dict:
    """Return a group as the service shows it."""
    ca = dict(zip(("primary", "secondary"), references, strict=False))
    return {
        "enrollmentGroupId": name,
        "attestation": {"type": "x509", "x509": {"caReferences": ca}},
        "provisioningStatus": "enabled",
        "iotHubs": ["h.test"],
        "etag": etag,
        **members,
    }


def test_a_group_is_made_for_uploaded_cas(service, both):
    """References by name, one hub list, and a token over the service's host."""
    service.answer(404).answer(json=group("g", "ca"))
    made = both(ENROLLMENTS.ensure_ca_group("g", ("ca",), hubs=("h.test",)))
    assert made.ca_references == ["ca"]
    request = service.requests[1]
    assert str(request.url) == "https://dps.test:8443/enrollmentGroups/g?api-version=2021-10-01"
    assert "sr=dps.test:8443&" in unquote(request.headers["authorization"])
    body = json.loads(request.content)
    assert body["attestation"] == {"type": "x509", "x509": {"caReferences": {"primary": "ca"}}}
    assert (body["iotHubs"], body["provisioningStatus"]) == (["h.test"], "enabled")
    assert "if-match" not in request.headers


def test_a_group_that_says_so_already_is_left(service, both):
    """`ensure` does not write when nothing changes."""
    service.answer(json=group("g", "a", "b"))
    both(ENROLLMENTS.ensure_ca_group("g", ("a", "b"), hubs=("h.test",)))
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "present",
    [group("g", "other"), group("g", "ca", iotHubs=None),
     group("g", "ca", provisioningStatus="disabled"),
     {"enrollmentGroupId": "g", "attestation": {"type": "symmetricKey"}, "etag": '"v1"'}],
)  # fmt: skip
def test_another_group_is_overwritten_as_it_was_read(service, both, present):
    """The version travels in the header and in the body: services differ in where they look."""
    service.answer(json=present).answer(json=group("g", "ca"))
    both(ENROLLMENTS.ensure_ca_group("g", ("ca",), hubs=("h.test",)))
    assert service.requests[1].headers["if-match"] == '"v1"'
    assert json.loads(service.requests[1].content)["etag"] == '"v1"'


def test_groups_are_listed_page_by_page(service, both):
    """The continuation goes back in a header until there is none."""
    service.answer(json=[group("a")], x_ms_continuation="next").answer(json=[group("b")])
    found = both(ENROLLMENTS.list_groups())
    assert [entry.enrollment_group_id for entry in found] == ["a", "b"]
    assert "x-ms-continuation" not in service.requests[0].headers
    assert service.requests[1].headers["x-ms-continuation"] == "next"


def test_a_group_that_is_not_there_is_none_and_can_be_deleted(service, both):
    """Reading and deleting forgive a 404."""
    service.answer(404).answer(404).answer(204)
    assert both(ENROLLMENTS.find_group("g")) is None
    both(ENROLLMENTS.delete_group("g"))
    both(ENROLLMENTS.delete_group("g"))


def test_a_refusal_names_the_services_code(service, both):
    """Provisioning's numbers are what its documentation is about."""
    service.answer(401, json={"errorCode": 401002, "message": "Unauthorized"})
    with pytest.raises(ServiceError) as caught:
        both(ENROLLMENTS.find_group("g"))
    assert str(caught.value) == "could not read the enrolment group 'g': Unauthorized (401 401002)"


def test_groups_without_x509_have_no_references():
    """A symmetric-key group is listed all the same."""
    assert EnrollmentGroup("g", {"type": "symmetricKey", "x509": None}).ca_references == []
