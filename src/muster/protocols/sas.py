"""Shared access signatures: read, check and make the tokens of IoT Hub, DPS and Event Hubs.

    SharedAccessSignature sr={resource}&sig={signature}&se={expiry}[&skn={key name}]

Rules:

1. The signature is HMAC-SHA256 over the resource exactly as it stands in the token, a line
   feed, and the expiry. SDKs spell one resource in five ways; each signs its own spelling.
2. Fields come in any order, each once, and no others.
3. `sig` is canonical base64 of 32 bytes, percent-encoded or not: one signature, one spelling.
4. A resource covers a path by whole segments: `h/devices/dev1` never covers `h/devices/dev10`.

A token is authentic, in force and meant for this path only if `is_signed_by`, not `is_expired`
and `covers` all say so. They are apart because the key to check with depends on the resource;
call all three. `key_name` is not signed: use it to look a policy up, and for nothing else.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from muster.errors import Kind, Problem
from muster.protocols.percent import decode_percent, encode_percent
from muster.protocols.shared_key import decode_canonical, format_key, parse_key

# The longest honest token: a host, a device and a module id of 128 characters each, all of
# them percent-encoded, a signature and a key name.
MAX_TOKEN_LENGTH = 4096
# Devices without a battery-backed clock; IoT Hub tolerates as much.
CLOCK_SKEW = timedelta(minutes=5)
_SCHEME = "sharedaccesssignature"
_FIELDS = {"sr", "sig", "se", "skn"}
_VISIBLE = re.compile(r"[\x21-\x7e]+\Z")
# The last second that a `datetime` can hold, so that whoever asks when a token ends gets an answer.
_LAST_SECOND = 253_402_300_799
_EXPIRY = re.compile(r"(?:0|[1-9][0-9]{0,11})\Z")
_PREFIX = re.compile(r"\A[a-z]{2,5}://", re.IGNORECASE)
_PORT = re.compile(r":[0-9]{1,5}\Z")


@dataclass(frozen=True, slots=True)
class SasToken:
    """A token that is well formed, and not yet known to be anything more.

    `resource` is decoded, `raw_resource` is what was signed. `expiry` is in seconds since 1970.
    """

    resource: str
    raw_resource: str
    signature: bytes = field(repr=False)
    expiry: int
    key_name: str | None = None

    @property
    def expires(self) -> datetime:
        """When the token ends, in UTC: a session that it opened must not outlive this moment."""
        return datetime.fromtimestamp(self.expiry, UTC)

    def is_signed_by(self, key_base64: str) -> bool:
        """Return whether the base64 key made the signature; compares in constant time.

        What is no key (`shared_key.parse_key`) signs nothing: the answer is False.
        """
        try:
            key = parse_key(key_base64)
        except Problem:
            return False
        return hmac.compare_digest(_sign(key, self.raw_resource, self.expiry), self.signature)

    def covers(self, path: str, *, ignore_case: bool = False) -> bool:
        """Return whether the token speaks for *path*, decoded: `host/devices/id` or an id scope's.

        The token's resource must be *path* or lead to it by whole segments. The first segment
        is compared without regard to case and port, and a scheme (`sb://`) before it is
        dropped; the others to the letter, unless *ignore_case* (registration ids). Nothing is
        normalised: `.` and `..` are names like others.
        """
        ours, theirs = _segments(path, ignore_case), _segments(self.resource, ignore_case)
        return all(theirs) and ours[: len(theirs)] == theirs

    def is_expired(self, now: datetime, skew: timedelta = CLOCK_SKEW) -> bool:
        """Return whether the token ended more than *skew* before *now*, which is aware."""
        return now.timestamp() > self.expiry + skew.total_seconds()


def parse_token(text: str) -> SasToken:
    """Take a token apart, in any of the spellings that SDKs send.

    Checks neither signature, expiry nor resource. Raises `Problem(UNAUTHENTICATED)`, whose
    detail never quotes the token.
    """
    if len(text) > MAX_TOKEN_LENGTH:
        raise _bad(f"has at most {MAX_TOKEN_LENGTH} characters")
    scheme, _, rest = text.partition(" ")
    if scheme.lower() != _SCHEME:
        raise _bad("begins with SharedAccessSignature")
    fields = _fields(rest)
    expiry = fields["se"]
    if _EXPIRY.match(expiry) is None or int(expiry) > _LAST_SECOND:
        raise _bad("has an expiry in seconds since 1970")
    try:
        resource = decode_percent(fields["sr"])
        key_name = decode_percent(fields["skn"]) if "skn" in fields else None
        signature = decode_canonical(decode_percent(fields["sig"]))
    except Problem as problem:
        raise Problem(Kind.UNAUTHENTICATED, f"a token field: {problem.detail}") from None
    if len(signature) != 32:
        raise _bad("has a signature of 32 bytes")
    if not resource.isprintable():
        raise _bad("has a printable resource")
    return SasToken(resource, fields["sr"], signature, int(expiry), key_name)


def build_token(resource: str, key_base64: str, expiry: int, key_name: str | None = None) -> str:
    """Return a token for *resource*, unencoded, that ends at *expiry* (seconds since 1970).

    Raises `Problem(MALFORMED)` for what is no key (`shared_key.parse_key`).
    """
    raw = encode_percent(resource)
    signature = b64encode(_sign(parse_key(key_base64), raw, expiry)).decode()
    token = f"SharedAccessSignature sr={raw}&sig={encode_percent(signature)}&se={expiry}"
    return token if key_name is None else f"{token}&skn={encode_percent(key_name)}"


def derive_device_key(group_key_base64: str, registration_id: str) -> str:
    """Return the base64 key of one device of a symmetric-key enrolment group.

    The key depends on the very spelling of *registration_id*: try it as presented, then in
    lower case. Raises `Problem(MALFORMED)` for what is no key (`shared_key.parse_key`).
    """
    key = parse_key(group_key_base64)
    return format_key(hmac.digest(key, registration_id.encode(), "sha256"))


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        if name not in _FIELDS:
            raise _bad("has the fields sr, sig, se and skn, and no others")
        if name in fields:
            raise _bad(f"has {name} once")
        if _VISIBLE.match(value) is None:
            raise _bad(f"has a visible ASCII value in {name}")
        fields[name] = value
    if missing := {"sr", "sig", "se"} - fields.keys():
        raise _bad(f"has {', '.join(sorted(missing))}")
    return fields


def _segments(path: str, ignore_case: bool) -> list[str]:
    path = _PREFIX.sub("", path, count=1).removesuffix("/")
    host, *rest = (path.lower() if ignore_case else path).split("/")
    return [_PORT.sub("", host.lower()), *rest]


def _sign(key: bytes, raw_resource: str, expiry: int) -> bytes:
    return hmac.digest(key, f"{raw_resource}\n{expiry}".encode(), "sha256")


def _bad(rule: str) -> Problem:
    return Problem(Kind.UNAUTHENTICATED, f"a shared access signature {rule}")
