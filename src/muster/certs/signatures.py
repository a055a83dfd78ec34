"""Who signed what, and how much one peer may make us spend on finding out.

Pure. A `Signatures` is made for one judgement and handed to everything that takes part in it:
the search for a path, its explanation, the walk through enrolments. A stranger's chain then costs
no more than the budget, however its certificates are named and cross-signed.
"""

from __future__ import annotations

from cryptography import x509

from muster.certs.keys import flaw_of_key_in
from muster.errors import Kind, Problem

# The longest chain that is looked at has nine CAs, and each of them is checked twice: once to
# find the path and once by the library that judges it. The rest is for wrong turns. At the
# slowest curve, P-521, it makes 10 ms.
MAX_SIGNATURE_CHECKS = 24


class Signatures:
    """The signature checks of one judgement: each pair once, and no more than the budget."""

    def __init__(self, budget: int = MAX_SIGNATURE_CHECKS) -> None:
        self._left = budget
        self._known: dict[tuple[x509.Certificate, x509.Certificate], bool] = {}

    @property
    def is_spent(self) -> bool:
        """Whether more was asked for than there was, so that nothing was left to be found out."""
        return self._left < 0

    def made_by(self, issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
        """Whether *issuer* signed *certificate* under its own name, with a key that counts.

        Does not check dates, extensions, or whether *issuer* is a CA. Raises as `spend`.
        """
        pair = (issuer, certificate)
        known = self._known.get(pair)
        if known is None:
            if issuer.subject != certificate.issuer or flaw_of_key_in(issuer) is not None:
                known = False
            else:
                self.spend(1)
                known = _verifies(issuer, certificate)
            self._known[pair] = known
        return known

    def spend(self, checks: int) -> None:
        """Take *checks* off the budget, for signatures that somebody else is about to check.

        Raises `Problem(UNAUTHENTICATED)` when not so many are left, and ever after.
        """
        self._left -= checks
        if self.is_spent:
            raise Problem(
                Kind.UNAUTHENTICATED,
                "the certificate chain has too many possible paths: more signatures would have"
                " to be checked than is allowed",
            )


def _verifies(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - each key type fails in its own way, and all mean no
        return False
    return True
