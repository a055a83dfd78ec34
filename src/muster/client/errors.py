"""What a service said no to, in one line.

Five services answer errors in seven shapes. `explain` reads them all, so that a person sees the
service's own words and code, never a page of HTML or a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from muster.errors import Kind, Problem

# A reason longer than this is a page, not a reason.
_MAX_REASON = 600

_KIND_OF_STATUS = {
    400: Kind.MALFORMED,
    401: Kind.UNAUTHENTICATED,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    409: Kind.CONFLICT,
    412: Kind.PRECONDITION_FAILED,
    413: Kind.TOO_LARGE,
    429: Kind.THROTTLED,
    501: Kind.UNSUPPORTED,
}


class ServiceError(Problem):
    """A service refused, could not be reached, or answered what it must not.

    `status` is the HTTP status, or None when there was none; `code` is the service's own error
    code, or None. `str()` of it and `detail` are one line that names what was being done.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(kind, one_line(detail), retry_after=retry_after)
        self.status = status
        self.code = code

    def __str__(self) -> str:
        """Return the detail alone: the kind is for programs."""
        return self.detail


def kind_of_status(status: int) -> Kind:
    """Return the kind that an HTTP *status* of 300 or more stands for."""
    if status in _KIND_OF_STATUS:
        return _KIND_OF_STATUS[status]
    return Kind.UNAVAILABLE if status >= 500 or status == 408 else Kind.MALFORMED


def refusal(purpose: str, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """Return the error for an answer whose status says no. *headers* have lower-case names."""
    code, reason = explain(headers, body)
    said = " ".join(part for part in (str(status), code) if part)
    return ServiceError(
        kind_of_status(status),
        f"could not {purpose}: {reason or 'no reason was given'} ({said})",
        status=status,
        code=code,
        retry_after=retry_after(headers),
    )


def explain(headers: Mapping[str, str], body: bytes) -> tuple[str | None, str]:
    """Return (error code, reason) from the body of a refusal; either may be missing or empty.

    Reads Azure Resource Manager's `error.code/message`, OAuth 2's `error/error_description`,
    managed identity's `message`, EZCA's `Success/Message` and its plain text, provisioning's
    `errorCode/message`, and IoT Hub's two shapes (facts/hub.md 3.1).
    """
    header_code = headers.get("iothub-errorcode") or headers.get("x-ms-error-code")
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return header_code, _plain_text(headers, body)
    code, reason = _from_document(document)
    return header_code or code, reason


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After` header; its date form is not read."""
    try:
        seconds = float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def one_line(text: str) -> str:
    """Return *text* with control characters and line ends as spaces, cut at a readable length."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    plain = re.sub(r"\s+", " ", plain).strip()
    return plain if len(plain) <= _MAX_REASON else plain[: _MAX_REASON - 1] + "…"


def _plain_text(headers: Mapping[str, str], body: bytes) -> str:
    if "html" in headers.get("content-type", ""):
        return ""
    return one_line(body[: 4 * _MAX_REASON].decode("utf-8", "replace")).removeprefix("Error: ")


def _from_document(document: Any) -> tuple[str | None, str]:
    if isinstance(document, str):
        return None, one_line(document).removeprefix("Error: ")
    if not isinstance(document, dict):
        return None, ""
    error = document.get("error")
    if isinstance(error, dict):
        return _text(error.get("code")), one_line(str(error.get("message") or ""))
    if isinstance(error, str):
        return error, one_line(str(document.get("error_description") or ""))
    message = document.get("Message") or document.get("message") or ""
    code = _text(document.get("errorCode"))
    if isinstance(message, str) and message.startswith("{"):
        return _nested(message)
    text = one_line(str(message))
    # IoT Hub: "ErrorCode:DeviceNotFound;the reason".
    found = re.match(r"ErrorCode:(\w+);\s*(.*)", text)
    return (found[1], found[2]) if found else (code, text)


def _nested(message: str) -> tuple[str | None, str]:
    try:
        inner = msgspec.json.decode(message)
    except msgspec.DecodeError:
        return None, one_line(message)
    return _text(inner.get("errorCode")), one_line(str(inner.get("message") or message))


def _text(value: Any) -> str | None:
    return None if value is None else one_line(str(value))
