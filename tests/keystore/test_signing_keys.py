"""Token-signing keys on disk: whole, private, and never repaired in silence."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from muster.errors import Kind, Problem
from muster.keystore.signing_keys import SigningKeyDirectory
from muster.ports.identity import SigningKeyRecord

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)


def a_record(minutes: int = 0) -> SigningKeyRecord:
    """Return a fresh key. The kind of key does not matter here, and these are quick to make."""
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return SigningKeyRecord(NOW + timedelta(minutes=minutes), der)


async def test_keys_come_back_oldest_first(tmp_path: Path) -> None:
    """With their moment, to the microsecond; also two of one moment."""
    store = SigningKeyDirectory(tmp_path / "a" / "keys")
    assert await store.load_keys() == []
    new, old, same = a_record(1), a_record(), a_record()
    for record in (new, old, same):
        await store.add_key(record)
    loaded = await SigningKeyDirectory(tmp_path / "a" / "keys").load_keys()
    assert loaded[-1] == new
    assert {record.private_key for record in loaded[:2]} == {old.private_key, same.private_key}
    assert {record.private_key for record in loaded[:2]} == {old.private_key, same.private_key}
    await store.delete_key(old)
    await store.delete_key(old)
    assert await store.load_keys() == [same, new]


async def test_only_the_owner_reads_them(tmp_path: Path) -> None:
    """0700 and 0600, whatever the umask; nothing of a write is left lying about."""
    before = os.umask(0)
    try:
        await SigningKeyDirectory(tmp_path / "keys").add_key(a_record())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    (file,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
async def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever read it can sign tokens; the refusal names the file and no path."""
    store = SigningKeyDirectory(tmp_path)
    await store.add_key(a_record())
    (file,) = tmp_path.iterdir()
    file.chmod(mode)
    with pytest.raises(Problem) as caught:
        await store.load_keys()
    assert caught.value.kind is Kind.FORBIDDEN
    assert file.name in caught.value.detail
    assert str(tmp_path) not in caught.value.detail


async def test_what_is_no_key_stops_the_start(tmp_path: Path) -> None:
    """Rubbish, a link elsewhere, an empty file: a new key would hide that something is wrong."""
    store = SigningKeyDirectory(tmp_path)
    await store.add_key(a_record())
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    for bad in (b"", b"garbage", good[:50]):
        file.write_bytes(bad)
        with pytest.raises(Problem) as caught:
            await store.load_keys()
        assert caught.value.kind is Kind.UNAVAILABLE
    file.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(good)
    elsewhere.chmod(0o600)
    file.symlink_to(elsewhere)
    with pytest.raises(Problem):
        await store.load_keys()


async def test_a_write_that_was_killed_does_no_harm(tmp_path: Path) -> None:
    """What lies aside is not a key yet, and does not stop the next write."""
    store = SigningKeyDirectory(tmp_path)
    record = a_record()
    path = store._path(record)
    path.with_name(f".{path.name}.0a.draft").write_bytes(b"half")
    assert await store.load_keys() == []
    await store.add_key(record)
    assert await store.load_keys() == [record]


async def test_a_passphrase_encrypts(tmp_path: Path) -> None:
    """And without it, or with another, there is no start."""
    record = a_record()
    await SigningKeyDirectory(tmp_path, passphrase=b"right").add_key(record)
    (file,) = tmp_path.iterdir()
    assert b"ENCRYPTED" in file.read_bytes()
    assert await SigningKeyDirectory(tmp_path, passphrase=b"right").load_keys() == [record]
    for wrong in (None, b"wrong"):
        with pytest.raises(Problem) as caught:
            await SigningKeyDirectory(tmp_path, passphrase=wrong).load_keys()
        assert caught.value.kind is Kind.UNAVAILABLE


async def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """A file stands where it should be."""
    (tmp_path / "keys").write_text("")
    store = SigningKeyDirectory(tmp_path / "keys")
    for call in (store.load_keys(), store.add_key(a_record())):
        with pytest.raises(Problem) as caught:
            await call
        assert caught.value.kind is Kind.UNAVAILABLE
