"""A hub's device registry, over its service REST API.

Works against Azure IoT Hub and against Muster, with the key of a shared access policy or with
a token.
"""

from __future__ import annotations

from typing import Any

import msgspec

from muster.client.exchange import (
    Bearer,
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
from muster.client.tokens import HUB_SCOPE

_API_VERSION = "2021-04-12"
# The hub's own limit for this call; larger fleets are read with queries.
MAX_LISTED = 1000


class Device(msgspec.Struct, frozen=True, rename="camel"):
    """A device identity, as far as this library reads it. Keys are left out on purpose."""

    device_id: str
    generation_id: str | None = None
    etag: str | None = None
    status: str = "enabled"
    status_reason: str | None = None
    connection_state: str | None = None
    last_activity_time: str | None = None
    authentication: dict[str, Any] | None = None

    @property
    def authentication_type(self) -> str:
        """`sas`, `selfSigned`, `certificateAuthority` or `none`."""
        return str((self.authentication or {}).get("type") or "none")


class Registry:
    """The registry of the hub *hostname*, authorised with its own key or with a token.

    *url* says where the API answers when that is not `https://` and the host.
    """

    def __init__(
        self, hub: ConnectionString | str, *, url: str | None = None, scope: str = HUB_SCOPE
    ) -> None:
        self._authorization: SharedAccess | Bearer
        if isinstance(hub, ConnectionString):
            hostname = hub.hostname
            self._authorization = SharedAccess(hub.key, hub.hostname)
        else:
            hostname = hub
            self._authorization = Bearer(scope)
        self.url = base_url(url or hostname)

    def find(self, device_id: str) -> Exchange[Device | None]:
        """Return the device *device_id*, or None when there is none."""
        purpose = f"read the device {device_id!r}"
        answer = yield from ask_if_there(self._request("GET", device_id, None, purpose))
        return None if answer is None else decode(answer, Device, purpose)

    def list_devices(self, limit: int = MAX_LISTED) -> Exchange[list[Device]]:
        """Return up to *limit* devices, at most `MAX_LISTED`."""
        purpose = "list the devices"
        request = json_request(
            "GET",
            f"{self.url}/devices",
            purpose=purpose,
            repeatable=True,
            authorization=self._authorization,
            params={"api-version": _API_VERSION, "top": str(min(limit, MAX_LISTED))},
        )
        return decode((yield from ask(request)), list[Device], purpose)

    def add_ca_device(self, device_id: str) -> Exchange[Device]:
        """Create *device_id*, to be authenticated by a certificate of a CA that the hub trusts.

        Raises `ServiceError(CONFLICT)` when it exists. Not repeated, so that a conflict always
        means that somebody else made it.
        """
        purpose = f"register the device {device_id!r} in the hub"
        body = {"deviceId": device_id, "authentication": {"type": "certificateAuthority"}}
        request = self._request("PUT", device_id, body, purpose, repeatable=False)
        return decode((yield from ask(request)), Device, purpose)

    def delete(self, device_id: str) -> Exchange[None]:
        """Delete *device_id* whatever its version; harmless when there is none."""
        purpose = f"delete the device {device_id!r}"
        request = self._request("DELETE", device_id, None, purpose, headers={"if-match": '"*"'})
        yield from ask_if_there(request)

    def _request(
        self,
        method: str,
        device_id: str,
        body: Any,
        purpose: str,
        *,
        repeatable: bool = True,
        headers: dict[str, str] | None = None,
    ) -> Request:
        return json_request(
            method,
            f"{self.url}/devices/{segment(device_id)}",
            body,
            purpose=purpose,
            repeatable=repeatable,
            authorization=self._authorization,
            params={"api-version": _API_VERSION},
            headers=headers or {},
        )
