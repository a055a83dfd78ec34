"""Token-signing keys as files that only their owner can read.

Rules:

1. The directory has mode 0700 and each file 0600. A file that others could read, or a link, is
   refused: whoever read it can sign tokens, so it must be replaced and not quietly repaired.
2. A key file appears whole or not at all: written aside, synced, then renamed.
3. With a passphrase, files are encrypted (PKCS #8, PBES2).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from muster.errors import Kind, Problem
from muster.files import replace_file
from muster.ports.identity import SigningKeyRecord

_SUFFIX = ".key.pem"
# An encrypted RSA-4096 key has 3.5 KiB.
_MAX_BYTES = 16_384


class SigningKeyDirectory:
    """Keeps token-signing keys in *directory*, made when missing.

    Every method raises `Problem(UNAVAILABLE)` when a file cannot be read or written,
    `load_keys` also `Problem(FORBIDDEN)` by rule 1.
    """

    def __init__(self, directory: Path, *, passphrase: bytes | None = None) -> None:
        self._directory = directory
        self._passphrase = passphrase

    async def load_keys(self) -> list[SigningKeyRecord]:
        """Return every key, oldest first."""
        return await asyncio.to_thread(self._load)

    async def add_key(self, record: SigningKeyRecord) -> None:
        """Keep *record*; it survives `kill -9` once this returns."""
        await asyncio.to_thread(self._add, record)

    async def delete_key(self, record: SigningKeyRecord) -> None:
        """Forget *record*. Harmless when it is not kept."""
        await asyncio.to_thread(self._path(record).unlink, missing_ok=True)

    def _load(self) -> list[SigningKeyRecord]:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = sorted(self._directory.glob(f"*{_SUFFIX}"))
        except OSError as error:
            raise _unavailable("the directory of token-signing keys cannot be read") from error
        return [self._read(path) for path in paths]

    def _read(self, path: Path) -> SigningKeyRecord:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if not stat.S_ISREG(mode) or mode & 0o077:
                    raise Problem(
                        Kind.FORBIDDEN,
                        f"others may read the token-signing key {path.name}: delete it, "
                        "and a new one is made",
                    )
                text = file.read(_MAX_BYTES)
            key = load_pem_private_key(text, password=self._passphrase)
            created = datetime.fromtimestamp(int(path.name.split("-")[0]) / 1e6, UTC)
        except (OSError, ValueError, TypeError) as error:
            raise _unavailable(f"the token-signing key {path.name} cannot be read") from error
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return SigningKeyRecord(created, der)

    def _add(self, record: SigningKeyRecord) -> None:
        encryption: KeySerializationEncryption = (
            NoEncryption()
            if self._passphrase is None
            else BestAvailableEncryption(self._passphrase)
        )
        key = load_der_private_key(record.private_key, password=None)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        path = self._path(record)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, text)
        except OSError as error:
            raise _unavailable("the token-signing key cannot be written") from error

    def _path(self, record: SigningKeyRecord) -> Path:
        # Microseconds in a fixed width sort by age; the digest keeps two of one moment apart.
        micros = round(record.created.timestamp() * 1e6)
        digest = hashlib.sha256(record.private_key).hexdigest()[:16]
        return self._directory / f"{micros:020d}-{digest}{_SUFFIX}"


def _unavailable(detail: str) -> Problem:
    return Problem(Kind.UNAVAILABLE, detail)
