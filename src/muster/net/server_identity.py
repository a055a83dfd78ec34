"""The server's TLS key, certificate and root, as files under `DIR/tls`.

| file | mode | what |
| --- | --- | --- |
| `ca.pem` | 0644 | the root that clients install; made once |
| `ca-key.pem` | 0600 | its key |
| `server.pem` | 0644 | the server's certificate; made anew for new names and before it ends |
| `server-key.pem` | 0600 | its key; made once |

Files are replaced by rename, so a reader sees the old or the new one, never half of one.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from muster.certs.server import (
    build_server_certificate,
    build_tls_root,
    needs_renewal,
    server_names,
)
from muster.errors import Kind, Problem
from muster.files import replace_file

# Group and world have no business with a private key.
_FORBIDDEN_MODE = stat.S_IRWXG | stat.S_IRWXO


class ServerIdentity:
    """The files of one server's TLS identity."""

    def __init__(self, directory: Path) -> None:
        self.ca_file = directory / "ca.pem"
        self.certificate_file = directory / "server.pem"
        self.key_file = directory / "server-key.pem"
        self._ca_key_file = directory / "ca-key.pem"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def ensure(self, names: Sequence[str], *, now: datetime) -> bool:
        """Have a certificate for all of *names*; return whether a new one was written.

        Names that the present certificate speaks for are kept: a client that uses one of them
        must not lose it because a hub went away. Raises `Problem(FORBIDDEN)` when a key file can be
        read by others, `Problem(MALFORMED)` when a file is not what its name says.
        """
        root_key, root = self._load_or_make_root(now)
        key = self._load_or_make_key(self.key_file)
        if self.certificate_file.exists():
            present = _read_certificate(self.certificate_file)
            if present.public_key() == key.public_key() and not needs_renewal(
                present, names, now=now
            ):
                return False
            names = [*names, *sorted(server_names(present))]
        certificate = build_server_certificate(
            key.public_key(), names, root=root, root_key=root_key, now=now
        )
        replace_file(self.certificate_file, _pem(certificate), mode=0o644)
        return True

    def _load_or_make_root(
        self, now: datetime
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = self._load_or_make_key(self._ca_key_file)
        if not self.ca_file.exists():
            # The name tells two servers' roots apart in a trust store.
            digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
            root = build_tls_root(key, common_name=f"Muster TLS root {digest}", now=now)
            replace_file(self.ca_file, _pem(root), mode=0o644)
        return key, _read_certificate(self.ca_file)

    def _load_or_make_key(self, path: Path) -> ec.EllipticCurvePrivateKey:
        if not path.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            data = made.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            replace_file(path, data)
            return made
        if path.stat().st_mode & _FORBIDDEN_MODE:
            raise Problem(Kind.FORBIDDEN, f"{path} can be read by others; run: chmod 600 {path}")
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError):
            raise Problem(Kind.MALFORMED, f"{path} is not a private key in PEM form") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Problem(Kind.MALFORMED, f"{path} is not an elliptic-curve key")
        return key


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise Problem(Kind.MALFORMED, f"{path} is not a certificate in PEM form") from None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
