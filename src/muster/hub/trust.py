"""Which CAs a hub trusts now, ready to verify with.

Pure. Only CA certificates whose possession was proven count; the others are as if they were
not there.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509

from muster.model.resource import Hub


def anchors_of(hub: Hub) -> tuple[x509.Certificate, ...]:
    """Return the verified CA certificates of *hub*. Expired ones too: the verifier judges that."""
    return tuple(_parsed(entry.der) for entry in hub.verified_certificates)


# Parsing costs a fifth of verifying, and every CONNECT needs the same few. A hub has at
# most 25 CA certificates, so this serves ten hubs without a miss, in about 1 MiB.
@lru_cache(maxsize=256)
def _parsed(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)
