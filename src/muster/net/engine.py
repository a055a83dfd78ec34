"""TLS in memory: ciphertext in, plaintext out, and back, with no copy that can be saved.

A thin layer over pyOpenSSL's `Connection`. The calls of the hot paths (take ciphertext, shake
hands, read, write, show the peer's chain) go to OpenSSL directly, through the binding that
pyOpenSSL uses: its own methods allocate a buffer and raise an exception per read, which costs
5.8 us a message against 2.6, and go through objects of their own for each certificate.

`Buffers` belong to one event loop: every connection on it shares them, which is what keeps
an idle connection small.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from muster.model.peer import Peer
from muster.net.tls import explain

_lib: Any = SSL._lib  # type: ignore[attr-defined] # noqa: SLF001 - the module docstring says why
_ffi: Any = SSL._ffi  # type: ignore[attr-defined] # noqa: SLF001 - as above

# One read from a socket. Four full records, or some 250 telemetry messages, a turn; more
# would let one busy device keep the others waiting.
READ_SIZE = 65_536
# What one read can decrypt to: itself and one record that was incomplete until now.
_PLAIN_SIZE = READ_SIZE + 2 * 16_384
# Plaintext handed to OpenSSL between two collections of ciphertext: bounds what the memory
# buffer of one connection grows to, which OpenSSL never gives back.
_WRITE_SIZE = 16_384

# Bounds on what a client may send as its chain. Real ones have two or three certificates of
# 1-2 KB. OpenSSL itself refuses a Certificate message above 100 KiB with an alert.
MAX_CERTIFICATES = 10
MAX_CHAIN_BYTES = 100_000


class TlsFailure(Exception):  # noqa: N818 - the field's word
    """TLS cannot go on; the text is for a log. The alert is among the bytes to send."""


class TooManyCertificates(Exception):  # noqa: N818 - the field's word
    """The peer's chain is beyond `MAX_CERTIFICATES` or `MAX_CHAIN_BYTES`."""


class Buffers:
    """What all connections of one event loop read into, one after the other."""

    __slots__ = ("certificate", "incoming", "incoming_pointer", "plain", "unused", "view")

    def __init__(self) -> None:
        self.incoming = bytearray(READ_SIZE)
        self.view = memoryview(self.incoming)
        self.incoming_pointer = _ffi.from_buffer(self.incoming)
        self.plain = _ffi.new("char[]", _PLAIN_SIZE)
        self.unused = _ffi.new("char**")  # for a call whose second answer nobody needs
        self.certificate = _ffi.gc(_lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_free)


class Engine:
    """One connection's TLS."""

    __slots__ = ("_broken", "_buffers", "_connection", "_in", "_out", "_ssl", "peer_ended")

    def __init__(self, connection: SSL.Connection, buffers: Buffers) -> None:
        self._connection = connection
        self._buffers = buffers
        self._ssl = connection._ssl  # noqa: SLF001 - the module docstring says why
        self._in = connection._into_ssl  # noqa: SLF001 - as above
        self._out = connection._from_ssl  # noqa: SLF001 - as above
        self._broken = False
        self.peer_ended = False

    def feed(self, size: int) -> None:
        """Take the first *size* bytes of the shared incoming buffer."""
        _lib.BIO_write(self._in, self._buffers.incoming_pointer, size)

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is done. Raises `TlsFailure`."""
        # What another user of OpenSSL on this thread left behind would be taken for ours.
        _lib.ERR_clear_error()
        result = _lib.SSL_do_handshake(self._ssl)
        if result == 1:
            return True
        if _lib.SSL_get_error(self._ssl, result) == _lib.SSL_ERROR_WANT_READ:
            return False
        self._settle(result)
        self._broken = True  # what `_settle` bears with while data flows ends a handshake
        raise TlsFailure("the peer ended the handshake")

    def read(self) -> bytes:
        """Return all plaintext there is; sets `peer_ended` on close_notify. Raises `TlsFailure`."""
        ssl, plain, read = self._ssl, self._buffers.plain, _lib.SSL_read
        incoming, unused = _lib.BIO_get_mem_data, self._buffers.unused
        size = 0
        # What another user of OpenSSL on this thread left behind would be taken for ours.
        _lib.ERR_clear_error()
        while True:
            room = _PLAIN_SIZE - size
            result = read(ssl, plain + size, room)
            if result <= 0:
                break
            size += result
            # A record that filled less than the room is read to its end; with no ciphertext after
            # it, another call would only find that out, for a twentieth of a message's cost.
            if result < room and incoming(self._in, unused) == 0:
                return _ffi.buffer(plain, size)[:]  # type: ignore[no-any-return] # cffi has no types
        if _lib.SSL_get_error(ssl, result) != _lib.SSL_ERROR_WANT_READ:
            self._settle(result)
        data: bytes = _ffi.buffer(plain, size)[:] if size else b""
        return data

    def _settle(self, result: int) -> None:
        try:
            self._connection._raise_ssl_error(self._ssl, result)  # noqa: SLF001 - as above
        except SSL.ZeroReturnError:
            self.peer_ended = True
        except SSL.WantWriteError:
            pass  # a memory buffer takes everything: said for completeness only
        except SSL.Error as error:
            self._broken = True
            raise TlsFailure(explain(error)) from error

    def write(self, data: bytes) -> bytes:
        """Return *data* encrypted, after anything that waited. Raises `TlsFailure`."""
        if len(data) <= _WRITE_SIZE:
            self._write(data)
            return self.outgoing()
        parts = []
        for start in range(0, len(data), _WRITE_SIZE):
            self._write(data[start : start + _WRITE_SIZE])
            parts.append(self.outgoing())
        return b"".join(parts)

    def _write(self, data: bytes) -> None:
        size = len(data)
        result = _lib.SSL_write(self._ssl, data, size)
        # One call makes one record of at most 16 KiB, so it takes all or fails.
        if result != size:
            self._broken = True
            _lib.ERR_clear_error()
            raise TlsFailure("nothing more can be written")

    def outgoing(self) -> bytes:
        """Return the ciphertext that waits to be sent."""
        plain = self._buffers.plain
        size = _lib.BIO_read(self._out, plain, _PLAIN_SIZE)
        if size <= 0:
            return b""
        first: bytes = _ffi.buffer(plain, size)[:]
        if size < _PLAIN_SIZE:
            return first
        return first + self.outgoing()

    def close_notify(self) -> None:
        """Say that no more will come, where TLS still can."""
        if self._broken:
            return
        try:
            self._connection.shutdown()
        except SSL.Error:  # not even a handshake: nobody is there to be told
            self._broken = True

    def peer(self, address: str) -> Peer:
        """Return what the handshake brought to light. Raises `TooManyCertificates`.

        OpenSSL's server leaves the leaf out of the chain; here it comes first again.
        """
        name = self._connection.get_servername()
        return Peer(
            address=address,
            chain=self._peer_chain(),
            server_name=name.decode("ascii", "replace") if name else None,
            tls_version=self._connection.get_protocol_version_name(),
        )

    def _peer_chain(self) -> tuple[bytes, ...]:
        leaf = _lib.SSL_get_peer_certificate(self._ssl)
        if leaf == _ffi.NULL:
            return ()
        try:
            above = _lib.SSL_get_peer_cert_chain(self._ssl)
            count = 0 if above == _ffi.NULL else _lib.sk_X509_num(above)
            if count >= MAX_CERTIFICATES:
                raise TooManyCertificates(f"{count + 1} certificates")
            chain = [self._der(leaf)]
            chain += [self._der(_lib.sk_X509_value(above, place)) for place in range(count)]
        finally:
            _lib.X509_free(leaf)
        size = sum(map(len, chain))
        if size > MAX_CHAIN_BYTES:
            raise TooManyCertificates(f"{size} bytes of certificates")
        return tuple(chain)

    def _der(self, certificate: Any) -> bytes:
        bio, plain = self._buffers.certificate, self._buffers.plain
        if _lib.i2d_X509_bio(bio, certificate) != 1:
            _lib.ERR_clear_error()
            raise MemoryError("a certificate could not be encoded")
        parts = []
        while (size := _lib.BIO_read(bio, plain, _PLAIN_SIZE)) > 0:
            parts.append(_ffi.buffer(plain, size)[:])
        return b"".join(parts)
