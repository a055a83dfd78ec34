"""Names that certificates are issued for: what may be one, and when two of them agree.

A name is a DNS name, an IP address or a device id. All three are ASCII, so that neither
homoglyphs nor direction overrides can make one name look like another, and none holds a
wildcard: `*` is legal in a device id, but as a dNSName it would speak for its neighbours.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from enum import IntEnum

from cryptography import x509
from cryptography.x509.oid import NameOID

from muster.certs.chain import shown
from muster.errors import Kind, Problem

# RFC 5280 appendix A.1, ub-common-name. A device id may have 128 characters at a hub; one with
# more than 64 cannot have a certificate.
MAX_COMMON_NAME = 64
# Names in one certificate. A device has one or two; a server with more than this wants several
# certificates. Every name costs a look-up.
MAX_NAMES = 100

# Device ids of IoT Hub without the wildcard. DNS names and IP addresses are within.
_NAME = re.compile(rf"[A-Za-z0-9\-.+%_#?!(),:=@$']{{1,{MAX_COMMON_NAME}}}\Z")
_DOTTED = re.compile(r"[0-9.]+\Z")
# RFC 1034 section 3.5 with RFC 1123 section 2.1: letters, digits, inner hyphens.
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")


class NameKind(IntEnum):
    """The forms of alternative name, by their tag in GeneralName (RFC 5280 section 4.2.1.6)."""

    EMAIL = 1
    DNS = 2
    URI = 6
    IP = 7


@dataclass(frozen=True, slots=True)
class AlternativeName:
    """One subject alternative name. An IP address is in its canonical text form."""

    kind: NameKind
    value: str


def parse_name(text: str) -> str:
    """Return *text* if a certificate may be issued for it; raises `Problem(MALFORMED)`.

    IP addresses come back in canonical form. Everything else is kept as it is, case included.
    """
    if _NAME.match(text) is None:
        raise Problem(
            Kind.MALFORMED,
            f"{shown(text)!r} cannot be a certificate's name: it has 1 to {MAX_COMMON_NAME}"
            " ASCII characters out of A-Z a-z 0-9 - . + % _ # ? ! ( ) , : = @ $ ' and no wildcard",
        )
    return _canonical_ip(text) or text


def alternative_name(text: str) -> AlternativeName:
    """Return *text* as the alternative name it looks like: an IP address, else a DNS name.

    Device ids become DNS names: that is where the C# provisioning client reads its
    registration id from. Raises `Problem(MALFORMED)` as `parse_name` does.
    """
    name = parse_name(text)
    return AlternativeName(NameKind.DNS if _canonical_ip(name) is None else NameKind.IP, name)


def typed_name(kind: int, text: str) -> AlternativeName:
    """Return *text* as the alternative name that the client says it is.

    Raises `Problem(MALFORMED)` for what is not of that kind, `Problem(UNSUPPORTED)` for a kind
    that no template here issues.
    """
    if kind == NameKind.IP:
        if (address := _canonical_ip(text)) is None:
            raise Problem(Kind.MALFORMED, f"{shown(text)!r} is not an IP address")
        return AlternativeName(NameKind.IP, address)
    if kind == NameKind.DNS:
        return AlternativeName(NameKind.DNS, parse_name(text))
    raise Problem(
        Kind.UNSUPPORTED,
        f"alternative names of type {kind} are not issued: only DNS names (2) and IP addresses (7)",
    )


def names_of(extension: x509.SubjectAlternativeName) -> tuple[AlternativeName, ...]:
    """Return the names a signing request asks for; raises as `typed_name` does."""
    found: list[AlternativeName] = []
    for name in extension:
        match name:
            case x509.DNSName():
                found.append(typed_name(NameKind.DNS, name.value))
            case x509.IPAddress():
                found.append(typed_name(NameKind.IP, str(name.value)))
            case x509.RFC822Name():
                found.append(typed_name(NameKind.EMAIL, name.value))
            case x509.UniformResourceIdentifier():
                found.append(typed_name(NameKind.URI, name.value))
            case _:
                raise Problem(
                    Kind.UNSUPPORTED,
                    "the CSR asks for an alternative name that is neither a DNS name nor an"
                    " IP address",
                )
    return tuple(found)


def agreed_common_name(subject: x509.Name, stated: str | None) -> str:
    """Return the common name that the request's *subject* and the caller's *stated* text agree on.

    *stated* comes as `CN=name`, as the bare name, or as a distinguished name in either order; None
    or empty leaves it to *subject*. A *subject* without any attribute leaves it to *stated*.
    Attributes beside the common name are refused: nobody here has checked an organisation.

    Raises `Problem(MALFORMED)` when the two differ, when there is no single common name, and when
    that cannot be a certificate's name.
    """
    attributes = list(subject)
    if not attributes:
        if not stated:
            raise Problem(Kind.MALFORMED, "neither the CSR nor the request names a subject")
        return parse_name(_without_prefix(stated))
    others = [one for one in attributes if one.oid != NameOID.COMMON_NAME]
    if others:
        raise Problem(
            Kind.MALFORMED,
            "the CSR's subject may hold a common name only, not "
            + ", ".join(sorted({shown(one.rfc4514_attribute_name) for one in others})),
        )
    if len(attributes) != 1:
        raise Problem(Kind.MALFORMED, "the CSR's subject has more than one common name")
    value = attributes[0].value
    if not isinstance(value, str):
        raise Problem(Kind.MALFORMED, "the CSR's common name is not text")
    name = parse_name(value)
    if stated and not _states(stated, value):
        raise Problem(
            Kind.MALFORMED,
            f"SubjectName says {shown(stated)!r} and the CSR is for {name!r}",
        )
    return name


def parse_title(text: str) -> str:
    """Return *text* if it can be a CA's common name; raises `Problem(MALFORMED)`.

    Any script, 1 to 64 bytes of UTF-8, but nothing invisible: no control, format, surrogate,
    private-use or unassigned characters, no space at either end. RFC 5280 counts characters;
    counted in bytes, no reader finds the name too long.
    """
    if not 1 <= title_size(text) <= MAX_COMMON_NAME or text != text.strip():
        raise Problem(
            Kind.MALFORMED,
            f"a CA's name has 1 to {MAX_COMMON_NAME} bytes of UTF-8 and no space at either end",
        )
    if has_invisible(text):
        raise Problem(Kind.MALFORMED, "a CA's name may not hold invisible characters")
    return text


def title_size(text: str) -> int:
    """Return the length of a CA's name as it counts against `MAX_COMMON_NAME`: in bytes."""
    return len(text.encode(errors="surrogatepass"))


def has_invisible(text: str) -> bool:
    """Whether *text* holds a control, format, surrogate, private-use or unassigned character."""
    return any(unicodedata.category(character).startswith("C") for character in text)


def is_dns_name(text: str) -> bool:
    """Whether *text* is a host name in preferred syntax (RFC 1034 section 3.5), no wildcard."""
    labels = text.split(".")
    return len(text) <= 253 and all(_LABEL.match(label) for label in labels)


def _states(stated: str, name: str) -> bool:
    # Clients put "CN=" before whatever the name is, without escaping it: compare as text first.
    if stated in (name, f"CN={name}", f"cn={name}"):
        return True
    try:
        parsed = list(x509.Name.from_rfc4514_string(stated))
    except ValueError:
        return False
    return len(parsed) == 1 and parsed[0].oid == NameOID.COMMON_NAME and parsed[0].value == name


def _without_prefix(stated: str) -> str:
    return stated[3:] if stated[:3].upper() == "CN=" else stated


def _canonical_ip(text: str) -> str | None:
    if ":" not in text and _DOTTED.match(text) is None:
        return None  # most names, without the price of an exception
    if "%" in text:
        return None  # a zone (RFC 4007 section 11) means something on one machine only
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
