"""The server's TLS files: made once, replaced whole, kept from others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from muster.certs.server import LEAF_LIFETIME, server_names
from muster.errors import Kind, Problem
from muster.net.server_identity import ServerIdentity

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_first_start_makes_everything_and_the_next_nothing(tmp_path: Path) -> None:
    """Clients install the root once: a restart must not make another."""
    identity = ServerIdentity(tmp_path / "tls")
    assert identity.ensure(["localhost"], now=NOW)
    root = identity.ca_file.read_bytes()
    again = ServerIdentity(tmp_path / "tls")
    assert not again.ensure(["localhost"], now=NOW)
    assert again.ca_file.read_bytes() == root


def test_keys_are_for_the_owner_only(tmp_path: Path) -> None:
    """Modes are set when the file is made, not afterwards."""
    identity = ServerIdentity(tmp_path / "tls")
    identity.ensure(["localhost"], now=NOW)
    assert (tmp_path / "tls").stat().st_mode & 0o077 == 0
    for name in ("ca-key.pem", "server-key.pem"):
        assert (tmp_path / "tls" / name).stat().st_mode & 0o777 == 0o600


def test_a_new_name_makes_a_new_certificate_under_the_same_root(tmp_path: Path) -> None:
    """Hubs come while the server runs; clients keep the root they have."""
    identity = ServerIdentity(tmp_path / "tls")
    identity.ensure(["localhost"], now=NOW)
    root = identity.ca_file.read_bytes()
    assert identity.ensure(["127.0.0.2"], now=NOW)
    leaf = x509.load_pem_x509_certificate(identity.certificate_file.read_bytes())
    assert server_names(leaf) == {"localhost", "127.0.0.2"}
    assert identity.ca_file.read_bytes() == root


def test_a_certificate_near_its_end_is_replaced(tmp_path: Path) -> None:
    """A server that runs for years does not fall off."""
    identity = ServerIdentity(tmp_path / "tls")
    identity.ensure(["localhost"], now=NOW)
    later = NOW + LEAF_LIFETIME - timedelta(days=1)
    assert identity.ensure(["localhost"], now=later)
    leaf = x509.load_pem_x509_certificate(identity.certificate_file.read_bytes())
    assert leaf.not_valid_after_utc > later + timedelta(days=300)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The start stops with the command that mends it."""
    identity = ServerIdentity(tmp_path / "tls")
    identity.ensure(["localhost"], now=NOW)
    identity.key_file.chmod(0o644)
    with pytest.raises(Problem, match="chmod 600") as caught:
        identity.ensure(["localhost"], now=NOW)
    assert caught.value.kind is Kind.FORBIDDEN


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    """An operator learns which file to restore."""
    identity = ServerIdentity(tmp_path / "tls")
    identity.ensure(["localhost"], now=NOW)
    (tmp_path / "tls" / name).write_text("not PEM")
    with pytest.raises(Problem, match=name) as caught:
        identity.ensure(["localhost"], now=NOW)
    assert caught.value.kind is Kind.MALFORMED
