from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio.subprocess import PIPE, STDOUT
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from muster.errors import Kind, Problem
from muster.net.tls import ServerCertificate, TlsServer

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


async def _openssl(*arguments: str, text: bytes = b"Q\n") -> bytes:
    process = await asyncio.create_subprocess_exec(
        "openssl", *arguments,
        stdin=PIPE, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(10):
        output, _ = await process.communicate(text)
    return output


def _self_signed() -> trustme.LeafCert:
    # A root in the role of a leaf: what a thumbprint device shows.
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    key = ca.private_key_pem.bytes()
    return trustme.LeafCert(key, ca.cert_pem.bytes(), [])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["none", "self-signed", "unknown issuer", "with intermediates"])
async def test_any_client_certificate_is_taken_as_evidence(  # noqa: PLR0917 - fixtures
    listener, lines, tls, trust, stranger, version, kind
):
    """None, self-signed, unknown issuer, chain: all get in, and the chain arrives leaf first."""
    identity = {
        "none": lambda: None,
        "self-signed": _self_signed,
        "unknown issuer": lambda: stranger.issue_cert("device@example.com"),
        "with intermediates": lambda: (
            stranger.create_child_ca().create_child_ca().issue_cert("d@e.f")
        ),
    }[kind]()
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust(version, identity), server_hostname="localhost"
    )
    writer.write(b"who\n")
    assert await reader.readline()
    sent = [] if identity is None else [blob.bytes() for blob in identity.cert_chain_pems]
    expected = tuple(
        x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER) for pem in sent
    )
    assert lines.sessions[0].peer.chain == expected
    assert len(expected) == {"none": 0, "self-signed": 1, "unknown issuer": 1}.get(kind, 3)
    writer.close()


async def test_the_request_lists_no_ca(listener, lines, tls, files):
    """An empty CA list, so that no client holds its certificate back."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    for version in ("-tls1_2", "-tls1_3"):
        output = await _openssl("s_client", "-connect", f"127.0.0.1:{port}", version)
        assert b"No client certificate CA names sent" in output
        assert b"Requested Signature Algorithms" in output  # it was asked for


@pytest.mark.parametrize("version", VERSIONS)
async def test_no_session_is_resumed(  # noqa: PLR0917 - fixtures
    listener, lines, tls, trust, stranger, version
):
    """A client that offers its session again gets a full handshake, certificate and all."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    context = trust(version, stranger.issue_cert("device@example.com"))

    def twice() -> tuple[bool, bool]:
        session = None
        reused = []
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", port)) as raw,
                context.wrap_socket(raw, server_hostname="localhost", session=session) as client,
            ):
                client.sendall(b"who\n")
                assert client.recv(100).endswith(b" 1\n")
                session = client.session
                reused.append(bool(client.session_reused))
        return reused[0], reused[1]

    assert await asyncio.to_thread(twice) == (False, False)


@pytest.mark.parametrize("argument", ["-tls1_1", "-tls1"])
async def test_old_versions_are_refused(listener, lines, tls, argument):
    """TLS 1.1 and 1.0 get a protocol_version alert."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    output = await _openssl(
        "s_client", "-connect", f"127.0.0.1:{port}", argument, "-cipher", "ALL@SECLEVEL=0"
    )
    assert b"alert protocol version" in output


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), True),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"), True),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"), False),
        (("-tls1_2", "-cipher", "AES128-GCM-SHA256"), False),
        (("-tls1_3", "-groups", "X25519"), True),
        (("-tls1_3", "-groups", "P-256"), True),
        (("-tls1_3", "-groups", "P-384"), True),
        (("-tls1_3", "-groups", "X448"), False),
        (("-tls1_3", "-groups", "P-521"), False),
        (("-tls1_3", "-groups", "ffdhe2048"), False),
        (("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"), True),
    ],
)
async def test_suites_and_groups_are_the_chosen_ones(listener, lines, tls, arguments, accepted):
    """Forward secrecy and authenticated encryption, nothing beside."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    output = await _openssl("s_client", "-connect", f"127.0.0.1:{port}", *arguments)
    assert (b"alert handshake failure" not in output) is accepted
    assert (b"Cipher is (NONE)" not in output) is accepted


def test_hybrid_key_exchange_is_chosen_where_both_have_it(tls):
    """A client with X25519MLKEM768 gets it by default."""
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
    client.set_connect_state()
    server = tls.connection()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(100_000))
    assert server.get_group_name() == "X25519MLKEM768"


async def test_names_choose_the_certificate(listener, lines, trust, issue):
    """By server name, by wildcard, and by the address dialled; anything else gets the default."""
    tls = TlsServer(
        issue("localhost"),
        names={
            "Hub1.example.com": issue("hub1.example.com"),
            "*.wild.example.com": issue("*.wild.example.com"),
            "127.0.0.2": issue("127.0.0.2"),
        },
    )
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    await listener.open("127.0.0.2", port, lines.application, tls)
    for address, name in [
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "hub1.example.com"),
        ("127.0.0.1", "HUB1.example.com"),
        ("127.0.0.1", "a.wild.example.com"),
        ("127.0.0.2", "127.0.0.2"),
        ("127.0.0.2", "hub1.example.com"),
    ]:
        _reader, writer = await asyncio.open_connection(
            address, port, ssl=trust(), server_hostname=name
        )
        writer.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust(), server_hostname="b.a.wild.example.com"
        )


async def test_alpn_offers_what_the_application_speaks(listener, lines, trust, certificate):
    """http/1.1 is chosen when offered; a port without ALPN ignores it."""
    web = TlsServer(certificate, alpn=["http/1.1"])
    port = await listener.open("127.0.0.1", 0, lines.application, web)
    plain = await listener.open("127.0.0.1", 0, lines.application, TlsServer(certificate))
    for number, offered, chosen in [
        (port, ["h2", "http/1.1"], "http/1.1"),
        (port, ["h2"], None),
        (plain, ["http/1.1"], None),
    ]:
        context = trust()
        context.set_alpn_protocols(offered)
        _reader, writer = await asyncio.open_connection(
            "127.0.0.1", number, ssl=context, server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        writer.close()


def test_a_wrong_certificate_or_key_is_refused_in_words(ca, tmp_path: Path):
    """Swapped, encrypted, damaged or unfit files are refused before anything listens."""
    leaf, other = ca.issue_cert("localhost"), ca.issue_cert("localhost")
    chain, key = leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    for bad_chain, bad_key, words in [
        (b"", key, "not PEM certificates"),
        (b"nonsense", key, "not PEM certificates"),
        (chain, b"", "not an unencrypted PEM private key"),
        (
            chain,
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "PEM private key",
        ),
        (chain, encrypted, "not an unencrypted PEM private key"),
        (chain, other.private_key_pem.bytes(), "does not belong"),
    ]:
        with pytest.raises(Problem, match=words) as caught:
            ServerCertificate.from_pem(bad_chain, bad_key)
        assert caught.value.kind is Kind.MALFORMED
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "c.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "k.pem"))
    assert ServerCertificate.from_files(tmp_path / "c.pem", tmp_path / "k.pem").chain


def test_a_failed_reload_keeps_the_old_certificate(certificate, ca):
    """A broken renewal must not take the server down."""
    tls = TlsServer(certificate)
    before = tls.connection().get_context()
    leaf = trustme.CA().issue_cert("localhost")
    broken = ServerCertificate(
        certificate.chain,
        serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None),
    )
    with pytest.raises(Problem, match="cannot be used"):
        tls.reload(broken)
    assert tls.connection().get_context() is before


@pytest.mark.parametrize(
    ("option", "offered", "chosen"),
    [
        ("-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256", "AES128-GCM"),
        ("-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256", "CHACHA20"),
        ("-ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256", "AES_128_GCM"),
        ("-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "CHACHA20"),
    ],
)
async def test_the_cheapest_suite_is_chosen(  # noqa: PLR0917 - fixtures
    listener, lines, tls, option, offered, chosen
):
    """AES-128 wherever it is offered, unless the client would rather have no AES at all."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    version = "-tls1_2" if option == "-cipher" else "-tls1_3"
    output = await _openssl("s_client", "-connect", f"127.0.0.1:{port}", version, option, offered)
    _before, _said, after = output.partition(b"Cipher is ")
    assert chosen.encode() in after.split(b"\n")[0]
