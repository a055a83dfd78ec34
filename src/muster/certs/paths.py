"""Which ways lead from a peer's certificate to a trust anchor, judged by names alone.

Pure, and cheap: nothing is verified here. What comes out is what may be worth a signature check.

Rules:

1. An issuer is looked for under the name that a certificate gives for it. Of several, those
   whose key identifier matches come first, and then those that are valid now.
2. Of the peer's certificates with the same name, two are looked at for each certificate below,
   the likeliest. What no way from the leaf passes is not looked at.
3. A way ends at the first anchor, and passes no name twice. But for a CA that rolled its own key
   over: its new certificate may stand right below its old one, where that is the anchor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from cryptography import x509

# A CA and its renewal or its cross-certificate. More certificates of one name are a peer's way
# to multiply the paths that have to be tried. Anchors of one name are the operator's: they all
# count.
MAX_NAMESAKES = 2


class Issuers:
    """Where a way may lead from each certificate: to *anchors*, or on through *hints*.

    *hints* are the peer's, in any order; repeats and anchors among them change nothing.
    """

    def __init__(
        self,
        anchors: Sequence[x509.Certificate],
        hints: Sequence[x509.Certificate],
        now: datetime,
    ) -> None:
        self.anchors = anchors
        self._hints = [one for one in dict.fromkeys(hints) if one not in anchors]
        self._now = now

    def of(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        """Return those that bear the name of the issuer of *certificate*, the likeliest first.

        All the anchors that do, and at most `MAX_NAMESAKES` of the hints.
        """
        name = certificate.issuer
        anchors = [one for one in self.anchors if one.subject == name]
        hints = [one for one in self._hints if one.subject == name]
        likeliest = _likeliest_first(hints, certificate, self._now)[:MAX_NAMESAKES]
        return _likeliest_first([*anchors, *likeliest], certificate, self._now)

    def paths(self, *below: x509.Certificate) -> Iterator[tuple[x509.Certificate, ...]]:
        """Yield the ways to an anchor that begin with *below*, a leaf and what is above it.

        There are few: nine hints in pairs make 16, for each anchor above them.
        """
        last = below[-1]
        if len(below) == 1 and last in self.anchors:
            yield below
            return
        for issuer in self.of(last):
            if issuer in self.anchors:
                yield (*below, issuer)
            elif all(issuer.subject != one.subject for one in below[1:]):
                yield from self.paths(*below, issuer)


def _likeliest_first(
    issuers: list[x509.Certificate], certificate: x509.Certificate, now: datetime
) -> list[x509.Certificate]:
    if len(issuers) < 2:
        return issuers
    wanted = _key_identifier(certificate, x509.AuthorityKeyIdentifier)
    moment = now.astimezone(UTC)

    def unlikelihood(issuer: x509.Certificate) -> tuple[bool, bool]:
        own = _key_identifier(issuer, x509.SubjectKeyIdentifier)
        current = issuer.not_valid_before_utc <= moment <= issuer.not_valid_after_utc
        return wanted != own, not current

    return sorted(issuers, key=unlikelihood)


def _key_identifier(
    certificate: x509.Certificate,
    kind: type[x509.AuthorityKeyIdentifier | x509.SubjectKeyIdentifier],
) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value.key_identifier
    except x509.ExtensionNotFound:
        return None
