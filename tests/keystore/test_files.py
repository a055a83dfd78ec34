"""CA keys in files: made once, safe or refused, and never seen outside."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from muster.errors import Kind, Problem
from muster.keystore import files
from muster.keystore.files import FileKeystore
from muster.model.authority import Hashing, KeyType

ABSENT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def directory(tmp_path):
    """Where a keystore is to be."""
    return tmp_path / "keys"


@pytest.fixture
def opened(directory):
    """Open the keystore, and close it at the end."""
    stores = []

    def open_one() -> FileKeystore:
        stores.append(FileKeystore(directory))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def check(public_key: bytes, signature: bytes, data: bytes, hashing: Hashing) -> None:
    """Verify *signature*, whatever kind of key it is."""
    key = serialization.load_der_public_key(public_key)
    algorithm = getattr(hashes, hashing.value)()
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, data, ec.ECDSA(algorithm))
    else:
        key.verify(signature, data, padding.PKCS1v15(), algorithm)


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_every_key_type_signs_also_after_a_restart(opened, key_type) -> None:
    """A key is durable when it was created, and signs the same the same way again."""
    created = await opened().create_key(key_type)
    reopened = opened()
    for hashing in Hashing:
        signature = await reopened.sign(created.key_id, b"data", hashing)
        check(created.public_key, signature, b"data", hashing)
        assert await reopened.sign(created.key_id, b"data", hashing) == signature


async def test_rsa_keys_are_made_and_used_off_the_event_loop(opened, monkeypatch) -> None:
    """A second of key generation must not stop every device."""
    threads = []
    real = files.rsa.generate_private_key

    def spy(*args):
        import threading

        threads.append(threading.current_thread().name)
        return real(*args)

    monkeypatch.setattr(files.rsa, "generate_private_key", spy)
    store = opened()
    created = await store.create_key(KeyType.RSA_2048)
    await asyncio.gather(*(store.sign(created.key_id, b"x", Hashing.SHA256) for _ in range(8)))
    assert all(name.startswith("muster-keystore") for name in threads)


async def test_files_are_private_and_encrypted(opened, directory) -> None:
    """Modes are 0600 in 0700, and no key lies in the clear."""
    await opened().create_key(KeyType.ECDSA_P256)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    found = list(directory.iterdir())
    assert len(found) == 2
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (pem,) = directory.glob("*.pem")
    assert pem.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(pem.read_bytes(), None)


async def test_modes_hold_against_a_careless_umask(opened, directory) -> None:
    """What the shell was set to does not matter."""
    before = os.umask(0)
    try:
        await opened().create_key(KeyType.ECDSA_P256)
    finally:
        os.umask(before)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in directory.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
async def test_unsafe_modes_are_refused(opened, directory, mode) -> None:
    """Directory, secret and key: whatever others can reach is named and not used."""
    created = await opened().create_key(KeyType.ECDSA_P256)
    key, secret = directory / f"{created.key_id}.pem", directory / "keystore.key"
    key.chmod(mode)
    with pytest.raises(Problem, match=f"{mode:04o}"):
        await opened().sign(created.key_id, b"x", Hashing.SHA256)
    key.chmod(0o600)
    for path, safe in ((secret, 0o600), (directory, 0o700)):
        path.chmod(mode)
        with pytest.raises(Problem, match=f"{mode:04o}") as caught:
            FileKeystore(directory)
        assert caught.value.kind is Kind.UNAVAILABLE
        path.chmod(safe)


async def test_links_and_foreign_kinds_are_refused(opened, directory, tmp_path) -> None:
    """A key file is a file: neither a link to somewhere else nor a directory."""
    created = await opened().create_key(KeyType.ECDSA_P256)
    path = directory / f"{created.key_id}.pem"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Problem, match="cannot be read"):
        await opened().sign(created.key_id, b"x", Hashing.SHA256)
    path.unlink()
    path.mkdir()
    with pytest.raises(Problem):
        await opened().sign(created.key_id, b"x", Hashing.SHA256)


@pytest.mark.parametrize(
    "key_id", [ABSENT, "", "..", "../keystore.key", "keystore", f"{ABSENT}/x", "a" * 4096]
)
async def test_unknown_and_hostile_names_find_nothing(opened, key_id) -> None:
    """A key id is never a path."""
    with pytest.raises(Problem) as caught:
        await opened().sign(key_id, b"x", Hashing.SHA256)
    assert caught.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\n"])
async def test_damaged_key_is_unavailable(opened, directory, content) -> None:
    """A broken file refuses the signature, and says nothing of paths."""
    created = await opened().create_key(KeyType.ECDSA_P256)
    (directory / f"{created.key_id}.pem").write_bytes(content)
    with pytest.raises(Problem) as caught:
        await opened().sign(created.key_id, b"x", Hashing.SHA256)
    assert caught.value.kind is Kind.UNAVAILABLE
    assert str(directory) not in caught.value.detail


async def test_lost_secret_is_not_replaced(opened, directory) -> None:
    """With keys there and their secret gone, a new secret would only hide the loss."""
    await opened().create_key(KeyType.ECDSA_P256)
    (directory / "keystore.key").unlink()
    with pytest.raises(Problem, match="missing"):
        FileKeystore(directory)
    (directory / "keystore.key").write_bytes(b"short")
    (directory / "keystore.key").chmod(0o600)
    with pytest.raises(Problem, match="damaged"):
        FileKeystore(directory)


def test_directory_that_is_a_file_is_refused(tmp_path) -> None:
    """One clear refusal instead of a traceback."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(Problem):
        FileKeystore(tmp_path / "file")


async def test_full_disk_is_unavailable_and_leaves_no_half_key(
    opened, directory, monkeypatch
) -> None:
    """A key that could not be synced does not exist."""
    store = opened()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(Problem) as caught:
        await store.create_key(KeyType.ECDSA_P256)
    assert caught.value.kind is Kind.UNAVAILABLE
    assert [path.name for path in directory.iterdir()] == ["keystore.key"]


async def test_repr_shows_no_secret(opened, directory) -> None:
    """A traceback that prints the keystore prints a path and nothing else."""
    store = opened()
    await store.create_key(KeyType.ECDSA_P256)
    assert repr(store) == f"FileKeystore({str(directory)!r})"
    assert (directory / "keystore.key").read_text().strip() not in repr(vars(store).keys())


async def test_memory_is_bounded(opened, monkeypatch) -> None:
    """Only so many decrypted keys are kept; the others are read again."""
    monkeypatch.setattr(files, "_CACHED_KEYS", 2)
    store = opened()
    created = [await store.create_key(KeyType.ECDSA_P256) for _ in range(4)]
    for one in created:
        check(
            one.public_key, await store.sign(one.key_id, b"x", Hashing.SHA256), b"x",
            Hashing.SHA256,
        )  # fmt: skip
    assert len(store._keys) == 2
