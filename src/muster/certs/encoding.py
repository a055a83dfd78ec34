"""PEM, base64 and the little DER that laying out a certificate takes."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from functools import lru_cache

from muster.certs.chain import MAX_CERTIFICATE_BYTES, load_chain
from muster.errors import Kind, Problem

# An RSA-4096 request with a hundred names takes 6 KiB as PEM; nothing honest comes near this.
MAX_REQUEST_TEXT = 32 * 1024
# `MAX_CERTIFICATE_BYTES` as base64 of PEM, which is base64 twice: 16/9 of them and line ends.
MAX_CERTIFICATE_TEXT = 2 * MAX_CERTIFICATE_BYTES

_CERTIFICATE_ARMOUR = re.compile(
    r"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*\Z"
)
# Windows' CertEnroll writes NEW; everybody else does not.
_REQUEST_ARMOUR = re.compile(
    r"\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----"
    r"([A-Za-z0-9+/=\s]+)"
    r"-----END (NEW )?CERTIFICATE REQUEST-----\s*\Z"
)
_BARE_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+\Z")
_WHITESPACE = re.compile(r"\s+")
_COLUMNS = 64
# Encoded dates kept at hand: certificates of one second and one lifetime share both of theirs.
_DATES = 256


def certificate_pem(der: bytes) -> str:
    """Return *der* as one PEM certificate: 64 columns, LF, a newline at the end (RFC 7468)."""
    text = base64.b64encode(der).decode()
    body = "\n".join([text[start : start + _COLUMNS] for start in range(0, len(text), _COLUMNS)])
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def certificate_der(text: str) -> bytes:
    """Return the DER of the one certificate in *text*: PEM, base64 of DER, or base64 of PEM.

    Tools send all three; line length and line ends do not matter. Whatever is beside the one
    armoured block, and a second block, is refused. What it returns is an X.509 certificate whose
    names and extensions can be read; nothing else of it is checked. Raises `Problem(MALFORMED)`.
    """
    if len(text) > MAX_CERTIFICATE_TEXT:
        raise Problem(
            Kind.MALFORMED, f"a certificate has at most {MAX_CERTIFICATE_TEXT} characters of text"
        )
    try:
        der = _certificate_bytes(text)
    except ValueError:
        raise Problem(
            Kind.MALFORMED, "a certificate is one PEM block, base64 of DER, or base64 of such PEM"
        ) from None
    try:
        load_chain([der])
    except Problem:
        raise Problem(
            Kind.MALFORMED,
            f"the text is not of one X.509 certificate of at most {MAX_CERTIFICATE_BYTES} bytes",
        ) from None
    return der


def request_der(text: str) -> bytes:
    """Return the DER of a certificate signing request given as PEM or as bare base64.

    Line length and line ends do not matter: .NET wraps at 76 columns with CRLF inside armour
    that ends in LF. Whatever is beside the one armoured block, and a second block, is refused.
    Raises `Problem(TOO_LARGE)` before it looks at the text, else `Problem(MALFORMED)`.
    """
    if len(text) > MAX_REQUEST_TEXT:
        raise Problem(
            Kind.TOO_LARGE, f"a certificate signing request has at most {MAX_REQUEST_TEXT} bytes"
        )
    armoured = _REQUEST_ARMOUR.match(text)
    if armoured is not None and armoured[1] == armoured[3]:
        body = armoured[2]
    elif _BARE_BASE64.match(text) is not None:
        body = text
    else:
        raise Problem(
            Kind.MALFORMED,
            "the CSR is neither one PEM block labelled CERTIFICATE REQUEST nor base64",
        )
    try:
        der = _base64(body)
    except ValueError as error:
        raise Problem(Kind.MALFORMED, "the CSR is not valid base64") from error
    if not der:
        raise Problem(Kind.MALFORMED, "the CSR is empty")
    return der


def der_sequence(*parts: bytes) -> bytes:
    """Return the DER SEQUENCE of already encoded *parts* (X.690 section 8.9)."""
    return _tagged(0x30, b"".join(parts))


def der_bit_string(octets: bytes) -> bytes:
    """Return *octets* as a DER BIT STRING without unused bits (X.690 section 8.6)."""
    return _tagged(0x03, b"\0" + octets)


def der_octet_string(octets: bytes) -> bytes:
    """Return *octets* as a DER OCTET STRING (X.690 section 8.7)."""
    return _tagged(0x04, octets)


def der_positive_integer(number: int) -> bytes:
    """Return *number* as a DER INTEGER (X.690 section 8.3); raises `ValueError` below 1."""
    if number < 1:
        raise ValueError("not a positive number")
    # One bit more than it needs: the first one is the sign.
    return _tagged(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


@lru_cache(maxsize=_DATES)
def der_time(moment: datetime) -> bytes:
    """Return *moment* as a certificate's Time, whole seconds (RFC 5280 section 4.1.2.5).

    Raises `ValueError` before 1950, which has no encoding, and for a moment without a time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("naive datetime")
    utc = moment.astimezone(UTC)
    if utc.year < 1950:
        raise ValueError("a certificate's dates begin in 1950")
    seconds = f"{utc.month:02}{utc.day:02}{utc.hour:02}{utc.minute:02}{utc.second:02}Z"
    if utc.year < 2050:
        return _tagged(0x17, f"{utc.year % 100:02}{seconds}".encode())
    return _tagged(0x18, f"{utc.year:04}{seconds}".encode())


def der_explicit(number: int, content: bytes) -> bytes:
    """Return *content* under the explicit context tag *number*, 0 to 30 (X.690 section 8.14)."""
    return _tagged(0xA0 | number, content)


def _certificate_bytes(text: str) -> bytes:
    if not _is_armoured(text):
        data = _base64(text)
        text = data.decode("latin-1")
        if not _is_armoured(text):
            return data
    armoured = _CERTIFICATE_ARMOUR.match(text)
    if armoured is None:
        raise ValueError("not one armoured certificate")
    return _base64(armoured[1])


def _is_armoured(text: str) -> bool:
    return text.lstrip().startswith("-----")


def _base64(text: str) -> bytes:
    return binascii.a2b_base64(_WHITESPACE.sub("", text), strict_mode=True)


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
