"""The data directory: who may use it, where things lie in it, and what it says to others.

DIR/lock             held while a server runs on DIR
DIR/muster.db        the database
DIR/events/          event streams
DIR/keys/            CA keys, encrypted
DIR/tokens/          keys that sign tokens
DIR/tls/             the server's TLS root, certificate and key
DIR/secrets.json     the administrator's secret and the managed identity's header; mode 0600
DIR/ready.json       how to reach the server that runs now; mode 0600, gone when it stopped
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import Kind, Problem
from muster.files import replace_file


class Secrets(msgspec.Struct):
    """What the database keeps only digests of. Whoever reads this file is the administrator."""

    client_secret: str | None = None
    identity_header: str | None = None


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """An opened and locked data directory. `lock` is the descriptor that holds the lock."""

    path: Path
    lock: int

    @property
    def database(self) -> Path:
        """The database file."""
        return self.path / "muster.db"

    @property
    def events(self) -> Path:
        """The directory of event streams."""
        return self.path / "events"

    @property
    def keys(self) -> Path:
        """The directory of CA keys."""
        return self.path / "keys"

    @property
    def token_keys(self) -> Path:
        """The directory of token-signing keys."""
        return self.path / "tokens"

    @property
    def tls(self) -> Path:
        """The directory of the server's own TLS files."""
        return self.path / "tls"

    @property
    def ready_file(self) -> Path:
        """The file that says how to reach the running server."""
        return self.path / "ready.json"

    def read_secrets(self) -> Secrets:
        """Return the kept secrets, none of them on the first start.

        Raises `Problem(MALFORMED)` for a damaged file, `Problem(FORBIDDEN)` for one that others
        can read.
        """
        path = self.path / "secrets.json"
        try:
            mode = path.stat().st_mode
            text = path.read_bytes()
        except FileNotFoundError:
            return Secrets()
        if mode & 0o077:
            raise Problem(Kind.FORBIDDEN, f"{path} can be read by others; run: chmod 600 {path}")
        try:
            return msgspec.json.decode(text, type=Secrets)
        except msgspec.DecodeError:
            raise Problem(
                Kind.MALFORMED, f"{path} is damaged; remove it, and new secrets are made"
            ) from None

    def write_secrets(self, secrets: Secrets) -> None:
        """Keep *secrets* for the next start."""
        replace_file(self.path / "secrets.json", msgspec.json.encode(secrets))

    def close(self) -> None:
        """Let another server use the directory."""
        os.close(self.lock)


def open_data_directory(path: Path) -> DataDirectory:
    """Make *path* if needed, and lock it.

    Raises `Problem(CONFLICT)` when another server runs on it; `Problem(MALFORMED)` when it cannot
    be made, entered or written; `Problem(FORBIDDEN)` when others could replace what lies in it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(path)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise Problem(Kind.MALFORMED, f"{path} is not a directory; choose another --data") from None
    except OSError as error:
        raise Problem(
            Kind.MALFORMED, f"{path} cannot be used ({error.strerror}); choose another --data"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Problem(
            Kind.CONFLICT, f"another server runs on {path}; stop it, or choose another --data"
        ) from None
    return DataDirectory(path.absolute(), lock)


def _check_owner(path: Path) -> None:
    # Whoever may write here may put another database or another secret in the place of ours.
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise Problem(Kind.FORBIDDEN, f"{path} belongs to another user; choose another --data")
    if found.st_mode & 0o022:
        raise Problem(Kind.FORBIDDEN, f"{path} can be written by others; run: chmod go-w {path}")


def write_ready_file(path: Path, document: dict[str, Any]) -> None:
    """Write the ready file at *path*; raises `Problem(MALFORMED)` when that cannot be done."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
    try:
        replace_file(path, text)
    except OSError as error:
        raise Problem(Kind.MALFORMED, f"{path} cannot be written: {error.strerror}") from None
