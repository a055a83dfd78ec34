"""What things may be called. The patterns are those of the management SDKs."""

from __future__ import annotations

import re

from muster.errors import Kind, Problem

_HUB = re.compile(r"(?![0-9]+\Z)(?!-)[a-zA-Z0-9-]{2,49}[a-zA-Z0-9]\Z")
# 64 in the documentation; 63 because the name is a host name's label (RFC 1035 section 2.3.4).
_SERVICE = re.compile(r"(?!-)[a-zA-Z0-9-]{2,62}[a-zA-Z0-9]\Z")
_CERTIFICATE = re.compile(r"[A-Za-z0-9\-._]{1,64}\Z")
_CONSUMER_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-._]{0,49}\Z")
_KEY = re.compile(r"[A-Za-z0-9\-._]{1,64}\Z")

DEFAULT_CONSUMER_GROUP = "$Default"


def check_hub_name(name: str) -> None:
    """Raise `Problem(MALFORMED)` unless *name* can be a hub's."""
    if _HUB.match(name) is None:
        raise Problem(
            Kind.MALFORMED,
            "a hub's name has 3 to 50 letters, digits and hyphens, does not begin or end with a "
            "hyphen, and is not digits alone",
        )


def check_service_name(name: str) -> None:
    """Raise `Problem(MALFORMED)` unless *name* can be a provisioning service's."""
    if _SERVICE.match(name) is None:
        raise Problem(
            Kind.MALFORMED,
            "a provisioning service's name has 3 to 63 letters, digits and hyphens and does not "
            "begin or end with a hyphen",
        )


def check_certificate_name(name: str) -> None:
    """Raise `Problem(MALFORMED)` unless *name* can be a certificate's."""
    if _CERTIFICATE.match(name) is None:
        raise Problem(
            Kind.MALFORMED, "a certificate's name has 1 to 64 characters out of A-Z a-z 0-9 - . _"
        )


def check_consumer_group_name(name: str) -> None:
    """Raise `Problem(MALFORMED)` unless *name* can be a consumer group's that people make."""
    if _CONSUMER_GROUP.match(name) is None:
        raise Problem(
            Kind.MALFORMED,
            "a consumer group's name has 1 to 50 characters out of A-Z a-z 0-9 - . _ and begins "
            "with a letter or a digit",
        )


def check_key_name(name: str) -> None:
    """Raise `Problem(MALFORMED)` unless *name* can be a shared access policy's."""
    if _KEY.match(name) is None:
        raise Problem(
            Kind.MALFORMED,
            "a shared access policy's name has 1 to 64 characters out of A-Z a-z 0-9 - . _",
        )
