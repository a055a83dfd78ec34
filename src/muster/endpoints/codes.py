"""What each wire calls each `Kind`: one complete table a wire, and its word for a bug beside it.

A bug has no `Kind`: its row is `INTERNAL_` and the table's name. `tests/endpoints/test_codes.py`
fails when a `Kind` or a table is added without all of its words.
"""

from __future__ import annotations

from muster.errors import Kind

# MQTT-3.1.1 table 3.1; None: close without a CONNACK, because the packet was not MQTT's.
# 5 for whatever has to do with credentials: the one code every SDK reports as such
# (facts/hub.md 1.2). 3 is the only code that SDKs retry.
CONNACK_CODE: dict[Kind, int | None] = {
    Kind.MALFORMED: 4,
    Kind.UNAUTHENTICATED: 5,
    Kind.FORBIDDEN: 5,
    Kind.NOT_FOUND: 5,
    Kind.CONFLICT: 3,
    Kind.PRECONDITION_FAILED: 5,
    Kind.TOO_LARGE: None,
    Kind.UNSUPPORTED: 5,
    Kind.THROTTLED: 3,
    Kind.UNAVAILABLE: 3,
}
INTERNAL_CONNACK_CODE = 3

# RFC 9110 section 15. Every HTTP API here answers with these.
HTTP_STATUS: dict[Kind, int] = {
    Kind.MALFORMED: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.PRECONDITION_FAILED: 412,
    Kind.TOO_LARGE: 413,
    Kind.UNSUPPORTED: 501,
    Kind.THROTTLED: 429,
    Kind.UNAVAILABLE: 503,
}
INTERNAL_HTTP_STATUS = 500

# The provisioning service's `errorCode`: the HTTP status times 1000 and a number
# (facts/dps.md 1.2; those for 412, 413 and 501 were never seen and follow its rule).
PROVISIONING_CODE: dict[Kind, int] = {
    Kind.MALFORMED: 400004,
    Kind.UNAUTHENTICATED: 401002,
    Kind.FORBIDDEN: 403000,
    Kind.NOT_FOUND: 404201,
    Kind.CONFLICT: 409203,
    Kind.PRECONDITION_FAILED: 412001,
    Kind.TOO_LARGE: 413001,
    Kind.UNSUPPORTED: 501001,
    Kind.THROTTLED: 429001,
    Kind.UNAVAILABLE: 503001,
}
INTERNAL_PROVISIONING_CODE = 500001

# IoT Hub's number and name (facts/hub.md 3.1).
HUB_CODE: dict[Kind, tuple[int, str]] = {
    Kind.MALFORMED: (400004, "ArgumentInvalid"),
    Kind.UNAUTHENTICATED: (401002, "IotHubUnauthorizedAccess"),
    Kind.FORBIDDEN: (401002, "IotHubUnauthorizedAccess"),
    Kind.NOT_FOUND: (404001, "DeviceNotFound"),
    Kind.CONFLICT: (409001, "DeviceAlreadyExists"),
    Kind.PRECONDITION_FAILED: (412001, "PreconditionFailed"),
    Kind.TOO_LARGE: (413001, "MessageTooLarge"),
    Kind.UNSUPPORTED: (501001, "NotImplemented"),
    Kind.THROTTLED: (429001, "ThrottlingException"),
    Kind.UNAVAILABLE: (503001, "ServiceUnavailable"),
}
INTERNAL_HUB_CODE = (500001, "ServerError")

# Azure Resource Manager's error codes (facts/control-plane.md 1.2).
RESOURCE_MANAGER_CODE: dict[Kind, str] = {
    Kind.MALFORMED: "BadRequest",
    Kind.UNAUTHENTICATED: "AuthenticationFailed",
    Kind.FORBIDDEN: "AuthorizationFailed",
    Kind.NOT_FOUND: "ResourceNotFound",
    Kind.CONFLICT: "Conflict",
    Kind.PRECONDITION_FAILED: "PreconditionFailed",
    Kind.TOO_LARGE: "RequestEntityTooLarge",
    Kind.UNSUPPORTED: "NotImplemented",
    Kind.THROTTLED: "TooManyRequests",
    Kind.UNAVAILABLE: "ServiceUnavailable",
}
INTERNAL_RESOURCE_MANAGER_CODE = "InternalServerError"

# The token endpoint: OAuth 2's error (RFC 6749 section 5.2), its status, and the number that Entra
# puts in the description, by which people search (facts/control-plane.md 2.2).
OAUTH_ERROR: dict[Kind, tuple[int, str, int]] = {
    Kind.MALFORMED: (400, "invalid_request", 900144),
    Kind.UNAUTHENTICATED: (401, "invalid_client", 7000215),
    Kind.FORBIDDEN: (400, "unauthorized_client", 700016),
    Kind.NOT_FOUND: (400, "invalid_resource", 500011),
    Kind.CONFLICT: (400, "invalid_grant", 70000),
    Kind.PRECONDITION_FAILED: (400, "invalid_grant", 70000),
    Kind.TOO_LARGE: (413, "invalid_request", 90090),
    Kind.UNSUPPORTED: (400, "unsupported_grant_type", 70003),
    Kind.THROTTLED: (429, "temporarily_unavailable", 90033),
    Kind.UNAVAILABLE: (503, "temporarily_unavailable", 90033),
}
INTERNAL_OAUTH_ERROR = (500, "server_error", 50000)
