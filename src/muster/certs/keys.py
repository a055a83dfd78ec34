"""Which public keys count: one policy for the keys we certify and the keys we verify with.

Pure. Asked before a key is used for anything, because using it is what a hostile key makes
expensive: OpenSSL bounds the exponents of RSA keys above 3072 bits only, and below that a
full-size exponent makes one verification take 10 ms instead of 30 us.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

# Below: NIST SP 800-57 part 1, table 2, asks for 112 bits of security. Above: verifying costs
# the square of the length, at every handshake; nobody has devices or device CAs with more.
_RSA_BITS = range(2048, 4096 + 1)
# From 65537: FIPS 186-5 section 5.1. Smaller ones, 3 and 17, need a flawless padding check to be
# safe; the roots that have them are from around 2004, and no CA makes such keys any more.
# Up to 33 bits: verifying costs the length of the exponent. Everybody uses 65537; a few tools
# offer the next Fermat number, 2**32 + 1, as their large one.
_RSA_EXPONENTS = range(65537, 2**33)


def flaw_of(key: object) -> str | None:
    """Return why *key* is not accepted, as the rest of a sentence about it; None when it is.

    Accepted are RSA of 2048 to 4096 bits, ECDSA on P-256, P-384 or P-521, Ed25519 and ML-DSA.
    Says nothing about whether the key is known to be compromised.
    """
    match key:
        case rsa.RSAPublicKey() if key.key_size not in _RSA_BITS:
            return f"is RSA of {key.key_size} bits; 2048 to 4096 are accepted"
        case rsa.RSAPublicKey() if not _is_sound_exponent(key.public_numbers().e):
            return "is RSA with an exponent other than an odd one from 65537 to 2^33"
        case ec.EllipticCurvePublicKey() if not isinstance(
            key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
        ):
            return "is on a curve other than P-256, P-384 and P-521"
        case (
            rsa.RSAPublicKey()
            | ec.EllipticCurvePublicKey()
            | ed25519.Ed25519PublicKey()
            | mldsa.MLDSA44PublicKey()
            | mldsa.MLDSA65PublicKey()
            | mldsa.MLDSA87PublicKey()
        ):
            return None
        case _:
            return "is of an unsupported kind"


def flaw_of_key_in(certificate: x509.Certificate) -> str | None:
    """Return why the key in *certificate* is not accepted (see `flaw_of`), or None."""
    try:
        return flaw_of(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return "is of an unsupported kind"


def _is_sound_exponent(exponent: int) -> bool:
    return exponent in _RSA_EXPONENTS and exponent % 2 == 1
