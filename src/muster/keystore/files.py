"""CA private keys as encrypted PKCS #8 files.

    DIR/keystore.key     32 random bytes, hexadecimal, made on first use: encrypts all the others
    DIR/<key id>.pem     one key, PKCS #8, PBES2 with AES-256

Rules:

1. A key leaves this module only as a signature.
2. Whatever is readable or writable by group or others, belongs to another user or is no plain
   file is refused: once read by somebody else, a CA's key is nobody's any more.
3. A file is complete or absent: written beside, synced, linked into place, directory synced.
4. RSA work and reading files happen in a small thread pool: they take milliseconds to seconds and
   release the GIL. ECDSA takes 30 us and does not, so it is done where it is asked for.

Encrypting does not protect from whoever can read the directory, where the key-encryption key is
as well. It makes a lone key file, in a backup or on a discarded disk, worth nothing: the passphrase
is 256 random bits, so the few rounds of its derivation do not matter.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import stat
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from muster.errors import Kind, Problem
from muster.files import create_file
from muster.ids import new_uuid
from muster.model.authority import Hashing, KeyType
from muster.ports.signing import CreatedKey

T = TypeVar("T")

_KEY_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_SECRET_NAME = "keystore.key"  # noqa: S105 - a file name
# One for each core of the smallest machine we serve: more only wait for each other.
_THREADS = 2
# Keys kept decrypted in memory. A tenant has two or three CAs; a hundred tenants fit.
_CACHED_KEYS = 256
# Nothing of ours is longer, so whatever is was not written by us.
_MAX_FILE_BYTES = 16 * 1024

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_HASH: dict[Hashing, hashes.HashAlgorithm] = {
    Hashing.SHA256: hashes.SHA256(),
    Hashing.SHA384: hashes.SHA384(),
    Hashing.SHA512: hashes.SHA512(),
}
# RFC 6979: signing the same again after a crash gives the same certificate again.
_ECDSA = {
    hashing: ec.ECDSA(algorithm, deterministic_signing=True) for hashing, algorithm in _HASH.items()
}
_RSA_BITS = {KeyType.RSA_2048: 2048, KeyType.RSA_3072: 3072, KeyType.RSA_4096: 4096}
_CURVE: dict[KeyType, ec.EllipticCurve] = {
    KeyType.ECDSA_P256: ec.SECP256R1(),
    KeyType.ECDSA_P384: ec.SECP384R1(),
}


class FileKeystore:
    """A keystore in one directory (see `ports.signing.Signer`).

    Constructing it makes the directory and its secret when they are missing, and raises
    `Problem(UNAVAILABLE)` when they are there and not safe.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._secret = _open_directory(directory)
        self._keys: OrderedDict[str, _PrivateKey] = OrderedDict()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="muster-keystore")

    def __repr__(self) -> str:
        return f"FileKeystore({str(self._directory)!r})"

    async def create_key(self, key_type: KeyType) -> CreatedKey:
        """Make a key of that type. It is durable when this returns."""
        key_id = new_uuid()
        key = await self._in_thread(lambda: self._create(key_id, key_type))
        self._remember(key_id, key)
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return CreatedKey(key_id, public)

    async def sign(self, key_id: str, data: bytes, hashing: Hashing) -> bytes:
        """Return the signature over *data*: RSASSA-PKCS1-v1_5, or ECDSA as X.509 encodes it."""
        key = self._keys.get(key_id)
        if key is None:
            key = await self._in_thread(lambda: self._load(key_id))
        self._remember(key_id, key)
        algorithm = _HASH[hashing]
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(data, _ECDSA[hashing])
        rsa_key = key
        return await self._in_thread(lambda: rsa_key.sign(data, padding.PKCS1v15(), algorithm))

    def close(self) -> None:
        """Finish what is being signed, and forget the keys."""
        self._pool.shutdown()
        self._keys.clear()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _remember(self, key_id: str, key: _PrivateKey) -> None:
        self._keys[key_id] = key
        self._keys.move_to_end(key_id)
        while len(self._keys) > _CACHED_KEYS:
            self._keys.popitem(last=False)

    def _create(self, key_id: str, key_type: KeyType) -> _PrivateKey:
        key: _PrivateKey
        if key_type in _RSA_BITS:
            key = rsa.generate_private_key(65537, _RSA_BITS[key_type])
        else:
            key = ec.generate_private_key(_CURVE[key_type])
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(self._secret),
        )
        try:
            create_file(self._directory / f"{key_id}.pem", pem)
        except OSError as error:
            raise Problem(
                Kind.UNAVAILABLE, "the keystore cannot store a key", retry_after=30
            ) from error
        return key

    def _load(self, key_id: str) -> _PrivateKey:
        if _KEY_ID.match(key_id) is None:
            raise Problem(Kind.UNAVAILABLE, "the CA's key has no place in this keystore")
        try:
            pem = _read_safely(self._directory / f"{key_id}.pem")
            key = serialization.load_pem_private_key(pem, self._secret)
        except FileNotFoundError as error:
            raise Problem(
                Kind.UNAVAILABLE, "the CA's key is not in the keystore", retry_after=30
            ) from error
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Problem(
                Kind.UNAVAILABLE, "the CA's key cannot be read", retry_after=30
            ) from error
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise Problem(Kind.UNAVAILABLE, "the CA's key is of an unknown kind")
        return key


def _open_directory(directory: Path) -> bytes:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_safe(os.lstat(directory), "directory", stat.S_ISDIR)
        path = directory / _SECRET_NAME
        if not os.path.lexists(path):
            if any(directory.glob("*.pem")):
                raise Problem(
                    Kind.UNAVAILABLE, f"the keystore has keys but its {_SECRET_NAME} is missing"
                )
            create_file(path, secrets.token_hex(32).encode() + b"\n")
        secret = _read_safely(path).strip()
    except FileExistsError as error:  # another process made it a moment ago, or it is no directory
        raise Problem(Kind.UNAVAILABLE, "the keystore is being made by another process") from error
    except OSError as error:
        raise Problem(
            Kind.UNAVAILABLE, f"the keystore cannot be opened: {error.strerror}"
        ) from error
    if len(secret) != 64:
        raise Problem(Kind.UNAVAILABLE, f"the keystore's {_SECRET_NAME} is damaged")
    return secret


def _read_safely(path: Path) -> bytes:
    # The open file is judged, not the path: what is checked is what is read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _check_safe(os.fstat(descriptor), path.name, stat.S_ISREG)
        return file.read(_MAX_FILE_BYTES)


def _check_safe(found: os.stat_result, what: str, is_expected: Callable[[int], bool]) -> None:
    if not is_expected(found.st_mode):
        raise Problem(Kind.UNAVAILABLE, f"the keystore's {what} is not of the expected kind")
    if found.st_mode & 0o077:
        raise Problem(
            Kind.UNAVAILABLE,
            f"the keystore's {what} is open to other users"
            f" (mode {stat.S_IMODE(found.st_mode):04o}); only its owner may have access",
        )
    if found.st_uid != os.geteuid():
        raise Problem(Kind.UNAVAILABLE, f"the keystore's {what} belongs to another user")
