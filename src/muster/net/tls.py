"""The TLS front door's contexts: which certificate is shown, what is offered, what is asked.

Rules:

1. TLS 1.2 and 1.3 with forward secrecy and authenticated encryption only (Mozilla's
   "intermediate" list without its finite-field suites). 1.2 stays: the official Python device SDK
   speaks nothing else.
2. A client certificate is asked for with an empty CA list, because some clients send none when no
   listed CA made theirs. Whatever comes is accepted: **the handshake proves possession of
   the leaf's key and nothing else**. Who is trusted is decided by the caller from `Peer.chain`.
3. No session is ever resumed: a resumed one would skip the client's proof of possession, and a
   resumed TLS 1.3 session has no chain. No compression, no renegotiation.
4. `TlsServer.reload` swaps certificates for new connections; open ones keep theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from OpenSSL import SSL

from muster.errors import Kind, Problem

_LOG = structlog.get_logger("muster.net")
_ffi: Any = SSL._ffi  # type: ignore[attr-defined] # noqa: SLF001 - `_ask_for_certificate` says why

_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_TLS13_CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# Our order counts: most clients put AES-256 first out of habit, and its SHA-384 key schedule
# costs 3 % of a handshake. A client whose own first choice is ChaCha20 has no AES in hardware
# and gets it. The number is <openssl/ssl.h>'s; the binding has no name for it.
_OP_PRIORITIZE_CHACHA = 1 << 21
# Post-quantum hybrid first where the client has it too. No X448, no secp521r1: Mozilla's
# list leaves them out.
_GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")

ServerKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate chain, leaf first, and the leaf's key."""

    chain: tuple[x509.Certificate, ...]
    key: ServerKey

    @classmethod
    def from_pem(cls, chain: bytes, key: bytes) -> ServerCertificate:
        """Read both from PEM. Raises `Problem(MALFORMED)`; does not look at names or dates."""
        try:
            certificates = tuple(x509.load_pem_x509_certificates(chain))
        except ValueError as error:
            raise Problem(
                Kind.MALFORMED, f"the server certificate is not PEM certificates: {error}"
            ) from error
        try:
            private_key = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            # The library's words might quote the file, so they stay out.
            raise Problem(
                Kind.MALFORMED, "the server key is not an unencrypted PEM private key"
            ) from error
        if not isinstance(private_key, ServerKey):
            raise Problem(Kind.MALFORMED, "a server key is RSA, EC or EdDSA")
        if certificates[0].public_key() != private_key.public_key():
            raise Problem(
                Kind.MALFORMED, "the server key does not belong to the first server certificate"
            )
        return cls(certificates, private_key)

    @classmethod
    def from_files(cls, chain: Path, key: Path) -> ServerCertificate:
        """Read both from files. Raises what `from_pem` raises, and `OSError`."""
        return cls.from_pem(chain.read_bytes(), key.read_bytes())


class TlsServer:
    """Makes the server's end of TLS connections.

    *names* gives other certificates for a server name (SNI) or for the address that a client
    dialled, in lower case, `*.example.com` for one label; *certificate* answers everywhere else.
    *alpn* lists what the application speaks, best first; empty: ALPN is ignored.
    """

    def __init__(
        self,
        certificate: ServerCertificate,
        *,
        names: Mapping[str, ServerCertificate] | None = None,
        alpn: Sequence[str] = (),
    ) -> None:
        self._alpn = [name.encode("ascii") for name in alpn]
        self.reload(certificate, names=names)

    def reload(
        self,
        certificate: ServerCertificate,
        *,
        names: Mapping[str, ServerCertificate] | None = None,
    ) -> None:
        """Show these certificates from the next connection on; raises `Problem(MALFORMED)`.

        When it raises, the old ones stay.
        """
        # A call into Python for each handshake, so only where there is a choice.
        choose = bool(names)
        contexts = {
            name.lower(): self._make(entry, choose=choose) for name, entry in (names or {}).items()
        }
        default = self._make(certificate, choose=choose)
        self._default, self._contexts = default, contexts

    def connection(self, local_address: str | None = None) -> SSL.Connection:
        """Return a fresh server end over memory buffers for a client of *local_address*."""
        context = self._contexts.get(local_address or "", self._default)
        connection = SSL.Connection(context)
        connection.set_accept_state()
        return connection

    def _make(self, certificate: ServerCertificate, *, choose: bool) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(_CIPHERS)
        context.set_tls13_ciphersuites(_TLS13_CIPHERS)
        _set_groups(context)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | _OP_PRIORITIZE_CHACHA)
        # OP_NO_TICKET alone leaves TLS 1.3's stateful tickets; with no cache they open nothing.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # An idle connection gives its record buffers back: 34 KiB each.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        _ask_for_certificate(context)
        # The verdict is not used, so OpenSSL need not climb a chain that a stranger made up.
        # The CA list that goes with the request stays as it is born: empty (rule 2).
        context.set_verify_depth(0)
        if self._alpn:
            context.set_alpn_select_callback(self._select_alpn)
        if choose:
            context.set_tlsext_servername_callback(self._select_certificate)
        try:
            context.use_certificate(certificate.chain[0])
            for issuer in certificate.chain[1:]:
                context.add_extra_chain_cert(issuer)
            context.use_privatekey(certificate.key)
            context.check_privatekey()
        except SSL.Error as error:
            raise Problem(
                Kind.MALFORMED, f"the server certificate cannot be used: {explain(error)}"
            ) from error
        return context

    def _select_certificate(self, connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        context = self._contexts.get(name)
        if context is None:
            _label, _dot, parent = name.partition(".")
            context = self._contexts.get(f"*.{parent}")
        if context is not None:
            connection.set_context(context)

    def _select_alpn(self, _connection: SSL.Connection, offered: list[bytes]) -> Any:
        for name in self._alpn:
            if name in offered:
                return name
        return SSL.NO_OVERLAPPING_PROTOCOLS


def explain(error: SSL.Error) -> str:
    """Return OpenSSL's own words for *error*, for a log."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    words = "; ".join(entry[-1] for entry in entries if entry and entry[-1])
    return words or "no reason given"


@_ffi.callback("int (*)(int, X509_STORE_CTX *)", error=0)  # type: ignore[untyped-decorator] # cffi has no types
def _accept_any(_verdict: int, _store: object) -> int:
    return 1


def _ask_for_certificate(context: SSL.Context) -> None:
    # `Context.set_verify` would make Python objects of a certificate that nobody looks at, three
    # times a handshake: 20 us. The binding below is the one it uses itself.
    SSL._lib.SSL_CTX_set_verify(context._context, SSL.VERIFY_PEER, _accept_any)  # type: ignore[attr-defined] # noqa: SLF001 - see above


def _set_groups(context: SSL.Context) -> None:
    # pyOpenSSL's only public call, set_tmp_ecdh, allows a single group, which would lock
    # out every client that has another. The binding below is the one pyOpenSSL itself uses.
    setter = getattr(SSL._lib, "SSL_CTX_set1_curves_list", None)  # type: ignore[attr-defined] # noqa: SLF001 - see above
    if setter is not None:
        for groups in _GROUPS:
            if setter(context._context, groups) == 1:  # noqa: SLF001 - see above
                return
        SSL._lib.ERR_clear_error()  # type: ignore[attr-defined] # noqa: SLF001 - see above
    _LOG.warning("OpenSSL's own list of key exchange groups is offered")
