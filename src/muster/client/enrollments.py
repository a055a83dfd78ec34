"""The provisioning service's API for operators: enrolment groups and registrations.

Works against Azure DPS and against Muster, with the key of a shared access policy.
"""

from __future__ import annotations

from typing import Any

import msgspec

from muster.client.exchange import (
    Exchange,
    Request,
    SharedAccess,
    ask,
    ask_if_there,
    base_url,
    decode,
    json_request,
    segment,
)
from muster.client.shared_access import ConnectionString

_API_VERSION = "2021-10-01"
# A page holds up to this many; the service may send fewer.
_PAGE = "1000"
# 10,000 groups, ten times what Azure allows in one service.
_MAX_PAGES = 1000


class EnrollmentGroup(msgspec.Struct, frozen=True, rename="camel"):
    """A group of devices that provision alike, as far as this library reads it."""

    enrollment_group_id: str
    attestation: dict[str, Any] = {}
    provisioning_status: str = "enabled"
    iot_hubs: list[str] | None = None
    allocation_policy: str | None = None
    etag: str | None = None

    @property
    def ca_references(self) -> list[str]:
        """The names of the CA certificates whose devices it admits, primary first."""
        references = (self.attestation.get("x509") or {}).get("caReferences") or {}
        return [name for name in (references.get("primary"), references.get("secondary")) if name]


class Enrollments:
    """The enrolment groups of one provisioning service, reached by its connection string.

    *url* says where the API answers when that is not `https://` and the string's host.
    """

    def __init__(self, connection: ConnectionString, *, url: str | None = None) -> None:
        self.url = base_url(url or connection.hostname)
        self._authorization = SharedAccess(connection.key, connection.hostname)

    def find_group(self, name: str) -> Exchange[EnrollmentGroup | None]:
        """Return the enrolment group *name*, or None when there is none."""
        purpose = f"read the enrolment group {name!r}"
        answer = yield from ask_if_there(self._group_request("GET", name, None, purpose))
        return None if answer is None else decode(answer, EnrollmentGroup, purpose)

    def list_groups(self) -> Exchange[list[EnrollmentGroup]]:
        """Return every enrolment group."""
        purpose = "list the enrolment groups"
        groups: list[EnrollmentGroup] = []
        continuation: str | None = None
        for _ in range(_MAX_PAGES):
            headers = {"x-ms-max-item-count": _PAGE}
            if continuation:
                headers["x-ms-continuation"] = continuation
            answer = yield from ask(
                json_request(
                    "POST",
                    f"{self.url}/enrollmentGroups/query",
                    {"query": "SELECT * FROM enrollmentGroups"},
                    purpose=purpose,
                    repeatable=True,
                    authorization=self._authorization,
                    params={"api-version": _API_VERSION},
                    headers=headers,
                )
            )
            groups.extend(decode(answer, list[EnrollmentGroup], purpose))
            continuation = answer.headers.get("x-ms-continuation")
            if not continuation:
                break
        return groups

    def ensure_ca_group(
        self, name: str, ca_names: tuple[str, ...], *, hubs: tuple[str, ...]
    ) -> Exchange[EnrollmentGroup]:
        """Have the enabled group *name* admit the devices of the uploaded CAs *ca_names*.

        One or two CAs, the primary first; *hubs* are the host names devices may be assigned to.
        A group that already says so is left as it is; another is overwritten unless it changed
        meanwhile.
        """
        present = yield from self.find_group(name)
        references = dict(zip(("primary", "secondary"), ca_names, strict=False))
        if (
            present is not None
            and present.ca_references == list(ca_names)
            and present.provisioning_status == "enabled"
            and sorted(present.iot_hubs or []) == sorted(hubs)
        ):
            return present
        purpose = f"write the enrolment group {name!r}"
        body: dict[str, Any] = {
            "enrollmentGroupId": name,
            "attestation": {"type": "x509", "x509": {"caReferences": references}},
            "capabilities": {"iotEdge": False},
            "provisioningStatus": "enabled",
            "allocationPolicy": "hashed",
            "iotHubs": list(hubs),
        }
        headers = {}
        if present is not None and present.etag:
            body["etag"] = present.etag
            headers["if-match"] = present.etag
        answer = yield from ask(self._group_request("PUT", name, body, purpose, headers))
        return decode(answer, EnrollmentGroup, purpose)

    def delete_group(self, name: str) -> Exchange[None]:
        """Delete the enrolment group *name*; harmless when there is none."""
        purpose = f"delete the enrolment group {name!r}"
        yield from ask_if_there(self._group_request("DELETE", name, None, purpose))

    def _group_request(
        self, method: str, name: str, body: Any, purpose: str, headers: dict[str, str] | None = None
    ) -> Request:
        return json_request(
            method,
            f"{self.url}/enrollmentGroups/{segment(name)}",
            body,
            purpose=purpose,
            repeatable=True,
            authorization=self._authorization,
            params={"api-version": _API_VERSION},
            headers=headers or {},
        )
