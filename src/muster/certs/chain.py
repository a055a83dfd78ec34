"""Decide whether a peer's certificate chain leads to one of the CAs that are trusted here.

Pure: the caller brings what the peer sent, the anchors that count for this resource now, and the
moment. Paths are searched by `paths` and judged by `cryptography.x509.verification`; this module
adds what that library leaves to its caller.

Rules:

1. An anchor may be a self-signed root, an intermediate CA, or the self-signed leaf itself. It is
   judged like any other certificate of the path: an expired anchor trusts nobody.
2. Every certificate above the leaf is a CA by its basic constraints, may sign certificates if it
   has a key usage, and allows client authentication if it restricts extended key usage.
3. The leaf is not a CA, unless it is the anchor itself: `openssl req -x509` marks the self-signed
   certificates of single devices that way.
4. The leaf need have neither subject alternative names nor key identifiers (`openssl req` makes
   neither). Its extended key usage, where it has one, includes client authentication.
5. Path length, name constraints (of directory names as well), unknown critical extensions and
   weak signatures are enforced on every certificate. Keys are judged before anything is
   verified with them (`keys`).
6. Effort is bounded whatever was sent. Paths are laid out by names, from the leaf up. The
   signatures of one are checked from the anchor down before the library sees it. All checks,
   the library's as well, count against the budget of the judgement (`signatures`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from muster.certs.keys import flaw_of_key_in
from muster.certs.paths import Issuers
from muster.certs.signatures import Signatures
from muster.errors import Kind, Problem

# A leaf, its issuing CA and a root are three; the longest hierarchies in the field have five.
# Twice that leaves room for cross-signed CAs, and bounds what one handshake can make us parse.
MAX_CHAIN_CERTIFICATES = 10
# A certificate with an RSA-4096 key and a full set of extensions has 2 KiB. TLS itself would
# let a peer send 16 MiB.
MAX_CERTIFICATE_BYTES = 16 * 1024
# Parsing names and extensions into objects costs 0.2 ms for each KiB that is made to be costly.
# Honest chains have less: ten certificates with RSA-4096 keys 20 KiB, five with ML-DSA-87 38 KiB.
MAX_CHAIN_BYTES = 40 * 1024

# RFC 5280 defines sixteen and the field a handful more. All are gone through for each that is
# looked for, again and again: with hundreds of them a judgement takes 20 ms.
MAX_EXTENSIONS = 32
# The library compares every constraint with every name below, 50 ns each. A leaf with ten names
# under a CA that is held to thousands of domains needs half of this.
_MAX_NAME_COMPARISONS = 50_000

# What the library raises for DER that is not what it should be; not all of it is a ValueError.
UNREADABLE = (
    TypeError,
    ValueError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

_CA_POLICY = ExtensionPolicy.permit_all().require_present(
    # Not critical in some old roots, RFC 5280 section 4.2.1.9 notwithstanding.
    x509.BasicConstraints,
    Criticality.AGNOSTIC,
    None,
)
_LEAF_POLICY = ExtensionPolicy.permit_all()


@dataclass(frozen=True, slots=True)
class VerifiedPath:
    """A path that was found good at one moment: leaf first, trust anchor last.

    One certificate alone when the leaf is the anchor itself.
    """

    certificates: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate of the peer."""
        return self.certificates[0]

    @property
    def anchor(self) -> x509.Certificate:
        """The trusted certificate that the path ends at."""
        return self.certificates[-1]


def load_chain(der: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """Parse the certificates a peer sent, in their order.

    Promises that names and extensions of what it returns can be read without surprises, and that
    no key in it is costly to use. Checks nothing else: see `verify_client_chain`. An empty chain
    is an empty tuple.

    Raises `Problem(MALFORMED)` for more than `MAX_CHAIN_CERTIFICATES`, for one larger than
    `MAX_CERTIFICATE_BYTES` or with more than `MAX_EXTENSIONS`, for more than `MAX_CHAIN_BYTES`
    in all, and for bytes that are not one X.509 certificate; `Problem(UNSUPPORTED)` for a key
    that `keys.flaw_of` does not accept.
    """
    if len(der) > MAX_CHAIN_CERTIFICATES:
        raise Problem(Kind.MALFORMED, f"a chain has at most {MAX_CHAIN_CERTIFICATES} certificates")
    if any(len(one) > MAX_CERTIFICATE_BYTES for one in der):
        raise Problem(Kind.MALFORMED, f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes")
    if sum(map(len, der)) > MAX_CHAIN_BYTES:
        raise Problem(Kind.MALFORMED, f"a chain has at most {MAX_CHAIN_BYTES} bytes")
    return tuple(_load(one, place) for place, one in enumerate(der))


def verify_client_chain(
    chain: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    *,
    now: datetime,
    signatures: Signatures | None = None,
) -> VerifiedPath:
    """Return the path from the leaf, `chain[0]`, to one of *anchors* that is good at *now*.

    The other certificates of *chain* are hints in any order; those that lead nowhere are ignored.
    *signatures* is the budget of the judgement that this is a part of; without it this is a
    judgement of its own. The rules are in the module's docstring.

    Does not check possession of the leaf's key (the TLS handshake did), nor what the leaf is
    called (see `identity.verify_device_identity`), nor whether anything was revoked.

    Raises `Problem(UNAUTHENTICATED)` with the reason in plain words.
    """
    if not chain:
        raise _refused("no client certificate was sent")
    if not anchors:
        raise _refused("no CA is trusted here")
    leaf = chain[0]
    if (flaw := _flaw_of_key(leaf)) is not None:
        raise _refused(flaw)
    if signatures is None:
        signatures = Signatures()
    issuers = Issuers(anchors, chain[1:], now)
    first: Problem | None = None
    for path in issuers.paths(leaf):
        # From the anchor downward, so that a stranger's keys are never used. The leaf's own
        # signature is left to the library, which checks all of them.
        if all(signatures.made_by(path[n + 1], path[n]) for n in range(len(path) - 2, 0, -1)):
            try:
                return _judged(path, now, signatures)
            except Problem as problem:
                if len(path) == 1 or signatures.made_by(path[1], path[0]):
                    first = first or problem
    raise first or _refused(_explain(leaf, issuers, now, signatures))


def common_name(certificate: x509.Certificate) -> str:
    """Return the one common name in the subject of *certificate*.

    Raises `Problem(UNAUTHENTICATED)` when there is none, or more than one: which of two would be
    the device's name is for nobody to guess.
    """
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise _refused("the certificate's subject cannot be read") from error
    if len(names) != 1:
        raise _refused(f"the certificate's subject has {len(names)} common names; one is needed")
    value = names[0].value
    if not isinstance(value, str) or not value:
        raise _refused("the certificate's common name is not text")
    return value


def _load(der: bytes, place: int) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Both are parsed on first use: a surprise is wanted here and not later.
        _, _, extensions = certificate.subject, certificate.issuer, certificate.extensions
    except UNREADABLE as error:
        raise Problem(
            Kind.MALFORMED, f"certificate {place} of the chain is not an X.509 certificate"
        ) from error
    if len(extensions) > MAX_EXTENSIONS:
        raise Problem(Kind.MALFORMED, f"a certificate has at most {MAX_EXTENSIONS} extensions")
    if (flaw := _flaw_of_key(certificate)) is not None:
        raise Problem(Kind.UNSUPPORTED, flaw)
    return certificate


def _judged(
    path: tuple[x509.Certificate, ...], now: datetime, signatures: Signatures
) -> VerifiedPath:
    """Have *path*, whose signatures above the leaf's are known to be good, judged as a whole."""
    authorities = [_authority(certificate) for certificate in path[1:]]
    for authority in authorities:
        if authority.flaw is not None:
            raise _refused(authority.flaw)
    _check_effort(path, authorities)
    signatures.spend(len(path) - 1)
    try:
        found = _found_by_library(path, now)
    except VerificationError as error:
        raise _refused(_explain_path(path, now)) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refused("the certificate chain cannot be read") from error
    _check_leaf(found)
    _check_directory_names(found, [_authority(certificate) for certificate in found[1:]])
    return VerifiedPath(found)


def _found_by_library(
    path: tuple[x509.Certificate, ...], now: datetime
) -> tuple[x509.Certificate, ...]:
    # There is one way to go, so as many signatures are checked as the path has. A name that
    # occurs twice would let it turn round, if not for the depth.
    verifier = (
        PolicyBuilder()
        .store(Store([path[-1]]))
        .time(now.astimezone(UTC).replace(tzinfo=None))
        .max_chain_depth(max(len(path) - 2, 0))
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    return tuple(verifier.verify(path[0], list(path[1:-1])).chain)


def _check_effort(path: tuple[x509.Certificate, ...], authorities: Sequence[_Authority]) -> None:
    if len(path) > 1 and _has(path[0], x509.NameConstraints):
        # RFC 5280 section 4.2.1.10: only in a CA certificate. The library would compare them
        # with the leaf's own names before it looks at a signature.
        raise _refused("the client certificate has name constraints, as only a CA's may")
    subtrees = sum(authority.subtrees for authority in authorities)
    if subtrees and subtrees * sum(map(_count_of_names, path)) > _MAX_NAME_COMPARISONS:
        raise _refused("the chain has more names and name constraints than are compared")


def _count_of_names(certificate: x509.Certificate) -> int:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return 1
    return 1 + len(list(names))


def _check_leaf(path: tuple[x509.Certificate, ...]) -> None:
    leaf = path[0]
    if len(path) > 1 and _is_authority(leaf):
        raise _refused("the client certificate is a CA's")
    if not _allows_client_authentication(leaf):
        raise _refused("the certificate's extended key usage leaves client authentication out")


@dataclass(frozen=True, slots=True)
class _Authority:
    """What is to be said of a CA certificate by itself, at any time and in any path."""

    flaw: str | None
    permitted: tuple[x509.Name, ...] = ()
    excluded: tuple[x509.Name, ...] = ()
    subtrees: int = 0


# The same few CAs stand above all leaves. Keyed by the whole certificate, and asked only about
# those of a path that leads to an anchor, so that no stranger can fill it: 1 MiB at the most
# with certificates of usual size.
@lru_cache(maxsize=256)
def _authority(certificate: x509.Certificate) -> _Authority:
    if (flaw := _flaw_of_key(certificate)) is not None:
        return _Authority(flaw)
    name = _show(certificate)
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        pass  # RFC 5280 section 6.1.4 (n): only a key usage that is present restricts
    else:
        if not usage.key_cert_sign:
            return _Authority(f"the CA {name} may not sign certificates (key usage)")
    if not _allows_client_authentication(certificate):
        return _Authority(f"the CA {name} may not issue for client authentication")
    try:
        limits = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return _Authority(None)
    return _Authority(
        None,
        _directory_names(limits.permitted_subtrees),
        _directory_names(limits.excluded_subtrees),
        len(limits.permitted_subtrees or ()) + len(limits.excluded_subtrees or ()),
    )


def _flaw_of_key(certificate: x509.Certificate) -> str | None:
    flaw = flaw_of_key_in(certificate)
    return None if flaw is None else f"the key of {_show(certificate)} {flaw}"


def _check_directory_names(
    path: tuple[x509.Certificate, ...], authorities: Sequence[_Authority]
) -> None:
    # The library applies name constraints to alternative names, refuses critical ones of the
    # directory-name form and passes the others over. RFC 5280 section 4.2.1.10 applies these to
    # the subject of every certificate below.
    for place, authority in enumerate(authorities, start=1):
        permitted, excluded = authority.permitted, authority.excluded
        if not permitted and not excluded:
            continue
        for below in path[:place]:
            # Self-issued intermediates are exempt, so that a CA can roll its own key over.
            if below is not path[0] and below.subject == below.issuer:
                continue
            if any(_is_within(below.subject, base) for base in excluded) or (
                permitted and not any(_is_within(below.subject, base) for base in permitted)
            ):
                raise _refused(
                    f"the subject of {_show(below)} is outside the name constraints"
                    f" of the CA {_show(path[place])}"
                )


def _directory_names(subtrees: list[x509.GeneralName] | None) -> tuple[x509.Name, ...]:
    return tuple(base.value for base in subtrees or () if isinstance(base, x509.DirectoryName))


def _is_within(name: x509.Name, base: x509.Name) -> bool:
    return name.rdns[: len(base.rdns)] == base.rdns


def _has(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> bool:
    try:
        certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _allows_client_authentication(certificate: x509.Certificate) -> bool:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return (
        ExtendedKeyUsageOID.CLIENT_AUTH in usages
        or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages
    )


def _explain(
    leaf: x509.Certificate, issuers: Issuers, now: datetime, signatures: Signatures
) -> str:
    """Say why there is no signed path to an anchor. Only words: the verdict has fallen already.

    Follows issuers by name from the leaf and reports the first thing that is plainly wrong.
    """
    current = leaf
    seen: list[x509.Certificate] = []
    while current not in seen:
        seen.append(current)
        if (problem := outside_validity(current, now)) is not None:
            return problem
        if current is not leaf and not _is_authority(current):
            return f"{_show(current)} signed a certificate and is not a CA"
        named = issuers.of(current)
        if not named:
            break
        current = next((one for one in named if signatures.made_by(one, seen[-1])), named[0])
        if not signatures.made_by(current, seen[-1]):
            return f"{_show(seen[-1])} was not signed by the CA it names, {_show(current)}"
    return (
        f"no path to a trusted CA: the chain ends at {_show(seen[-1])},"
        f" issued by {shown(seen[-1].issuer.rfc4514_string())}"
    )


def _explain_path(path: Sequence[x509.Certificate], now: datetime) -> str:
    """Say why the library refused *path*."""
    for below, current in enumerate(path, start=-1):
        if (problem := outside_validity(current, now)) is not None:
            return problem
        if below < 0:
            continue
        if not _is_authority(current):
            return f"{_show(current)} signed a certificate and is not a CA"
        limit = current.extensions.get_extension_for_class(x509.BasicConstraints).value
        if limit.path_length is not None and below > limit.path_length:
            return f"the path below the CA {_show(current)} is longer than it allows"
    return (
        "the chain leads to a trusted CA but breaks RFC 5280"
        " (a name constraint, a critical extension, or an algorithm that is too weak)"
    )


def outside_validity(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return why *now* is outside the validity of *certificate*, or None when it is inside.

    Both ends are included (RFC 5280 section 4.1.2.5), the last second as a whole.
    """
    moment = now.astimezone(UTC).replace(microsecond=0)
    if moment < certificate.not_valid_before_utc:
        return f"{_show(certificate)} is not valid before {_time(certificate.not_valid_before_utc)}"
    if moment > certificate.not_valid_after_utc:
        return f"{_show(certificate)} expired at {_time(certificate.not_valid_after_utc)}"
    return None


def shown(text: str) -> str:
    """Return *text* from a certificate, escaped and cut, fit for an error or a log line."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)
    return plain if len(plain) <= 100 else plain[:97] + "..."


def _show(certificate: x509.Certificate) -> str:
    return shown(certificate.subject.rfc4514_string()) or "the certificate without a subject"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _refused(why: str) -> Problem:
    return Problem(Kind.UNAUTHENTICATED, why)
