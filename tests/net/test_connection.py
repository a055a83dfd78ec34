from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path

import pytest

from muster.net.listener import Listener
from muster.net.reasons import CloseReason


async def reason_of(listener: Listener, count: int = 1) -> list[CloseReason]:
    """Wait until *count* ends were counted, and return them."""
    for _ in range(1000):
        if listener.closings.counts.total() >= count:
            break
        await asyncio.sleep(0.005)
    return list(listener.closings.counts.elements())


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
async def test_bytes_go_both_ways(listener, lines, tls, trust, version):
    """Plaintext written at one end comes out of the other, in order, in TLS 1.2 and 1.3."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust(version), server_hostname="localhost"
    )
    writer.write(b"echo one\necho two\n")
    assert await reader.readline() == b"one\n"
    assert await reader.readline() == b"two\n"
    writer.write(b"big 3000000\nwho\n")
    assert (await reader.readexactly(3_000_001)).strip(b"x") == b"\n"
    who = (await reader.readline()).split()
    assert who == [
        b"127.0.0.1",
        b"localhost",
        b"TLSv1.2" if version.value == 771 else b"TLSv1.3",
        b"0",
    ]
    writer.close()
    await writer.wait_closed()
    assert await reason_of(listener) == [CloseReason.PEER_CLOSED]
    assert lines.sessions[0].reasons == ["peer closed"]


async def test_input_of_many_reads_arrives_whole(listener, lines, tls, trust):
    """A megabyte of lines reaches the session line by line, whatever the reads were."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust(), server_hostname="localhost"
    )
    sent = [f"line {number} " + "y" * (number % 300) for number in range(6000)]
    writer.write("\n".join(sent).encode() + b"\necho done\n")
    assert await reader.readline() == b"done\n"
    assert lines.sessions[0].heard[:-1] == sent
    writer.close()
    await writer.wait_closed()


async def test_plain_connections_need_no_handshake(listener, lines):
    """The same machine runs without TLS; its peer then has no chain and no version."""
    port = await listener.open("127.0.0.1", 0, lines.application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"who\nquit\n")
    assert await reader.read() == b"127.0.0.1 None None 0\nbye\n"
    writer.close()
    await writer.wait_closed()
    assert await reason_of(listener) == [CloseReason.PROTOCOL_ENDED]


@pytest.mark.parametrize("version", VERSIONS)
async def test_close_says_close_notify(listener, lines, tls, trust, version):
    """A client can tell our orderly end from a cut: the stream ends, it does not break."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)

    def talk() -> tuple[bytes, bytes]:
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            trust(version).wrap_socket(
                raw, server_hostname="localhost", suppress_ragged_eofs=False
            ) as client,
        ):
            client.sendall(b"close enough of you\n")
            return client.recv(100), client.recv(100)

    assert await asyncio.to_thread(talk) == (b"closing\n", b"")
    assert await reason_of(listener) == [CloseReason.SESSION_ENDED]
    assert lines.sessions[0].reasons == ["session ended: enough of you"]


async def test_last_words_survive_unread_input(listener, lines):
    """What was said before closing arrives although the client was still sending."""
    port = await listener.open("127.0.0.1", 0, lines.application)

    def talk() -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"close\n" + b"more\n" * 20_000)
            raw.sendall(b"more\n" * 20_000)
            data = b""
            while chunk := raw.recv(1000):
                data += chunk
            return data

    assert await asyncio.to_thread(talk) == b"closing\n"


async def test_a_failed_handshake_ends_with_an_alert(listener, lines, tls):
    """A client that speaks only what we refuse is told so by TLS, not by a bare end of file."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)

    def talk() -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        with socket.create_connection(("127.0.0.1", port)) as raw:
            with pytest.raises(ssl.SSLError) as caught:
                context.wrap_socket(raw)
            return str(caught.value)

    assert "alert handshake failure" in (await asyncio.to_thread(talk)).lower().replace("_", " ")
    assert await reason_of(listener) == [CloseReason.HANDSHAKE_FAILED]


async def test_noise_is_answered_with_an_alert(listener, lines, tls):
    """Bytes that are not TLS get a TLS alert and a close, and no session is made."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01\x00\x05hello" + b"\0" * 1000)
    answer = await reader.read()
    assert answer[:1] == b"\x15"  # RFC 8446 section 5.1: alert
    assert await reason_of(listener) == [CloseReason.HANDSHAKE_FAILED]
    assert lines.sessions == []
    writer.close()


async def test_half_open_handshakes_are_cut_in_time(listener, lines, tls):
    """A client that stalls in its handshake, silent or half-way, is cut after the time-out."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    silent, writer1 = await asyncio.open_connection("127.0.0.1", port)
    halfway, writer2 = await asyncio.open_connection("127.0.0.1", port)
    writer2.write(b"\x16\x03\x01\x02\x00")
    async with asyncio.timeout(2):
        assert await silent.read() == b""
        assert await halfway.read() == b""
    assert await reason_of(listener, 2) == [CloseReason.HANDSHAKE_TIMEOUT] * 2
    writer1.close()
    writer2.close()


async def test_a_port_scan_leaves_nothing(listener, lines, tls):
    """Connect and close, hundreds of times: counted as such, and nothing is kept."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    for number in range(200):
        raw = socket.create_connection(("127.0.0.1", port))
        if number % 2:  # half of them with a reset
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        if number % 20 == 0:
            await asyncio.sleep(0)
    assert set(await reason_of(listener, 200)) == {CloseReason.NO_HANDSHAKE}
    assert listener.connection_count == 0


async def test_a_reset_is_told_to_the_session(listener, lines):
    """A peer that vanishes with a reset ends its session with that reason."""
    port = await listener.open("127.0.0.1", 0, lines.application)
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_sendall(raw, b"echo hi\n")
    assert await asyncio.get_running_loop().sock_recv(raw, 100) == b"hi\n"
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()
    assert await reason_of(listener) == [CloseReason.PEER_RESET]
    assert lines.sessions[0].reasons[0].startswith("peer reset")


@pytest.mark.parametrize("protected", [False, True])
async def test_a_client_that_never_reads_is_cut(listener, lines, tls, trust, protected):
    """Once a bounded amount has waited for a bounded time, the slow reader goes."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls if protected else None)

    def connect() -> socket.socket:
        raw = socket.create_connection(("127.0.0.1", port))
        if protected:
            return trust(ssl.TLSVersion.TLSv1_2).wrap_socket(raw, server_hostname="localhost")
        return raw

    client = await asyncio.to_thread(connect)
    await asyncio.to_thread(client.sendall, b"big 20000000\n")
    assert await reason_of(listener) == [CloseReason.SLOW_READER]
    assert lines.sessions[0].reasons[0].startswith("slow reader: took ")
    client.close()


async def test_a_client_that_never_reads_is_no_longer_read(listener, lines):
    """While answers wait for a peer, nothing more is taken from it: memory stays bounded."""
    port = await listener.open("127.0.0.1", 0, lines.application)
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    orders = b"big 100000\n" * 1_000_000
    with pytest.raises((TimeoutError, OSError)):
        await asyncio.wait_for(loop.sock_sendall(raw, orders), 2)
    assert await reason_of(listener) == [CloseReason.SLOW_READER]
    # Two reads' worth at most were obeyed, the rest stayed in the kernel.
    assert len(lines.sessions[0].heard) < 15_000
    raw.close()


async def test_a_slow_reader_that_makes_progress_is_served(listener, lines):
    """Slow is not stalled: a big answer may take many time-outs as long as it moves."""
    port = await listener.open("127.0.0.1", 0, lines.application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=10_000)
    writer.write(b"big 12000000\n")
    seen = 0
    while seen < 12_000_001:
        seen += len(await reader.read(300_000 if seen < 6_000_000 else 3_000_000))
        await asyncio.sleep(0.01)
    writer.write(b"quit\n")
    assert await reader.read() == b"bye\n"
    writer.close()


async def test_a_big_last_word_arrives(listener, lines):
    """Closing does not cut off what was said just before, however long it is."""
    port = await listener.open("127.0.0.1", 0, lines.application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"big 9000000\nquit\n")
    size = 0
    while chunk := await reader.read(65536):
        size += len(chunk)
        await asyncio.sleep(0.001)
    assert size == 9_000_001 + len(b"bye\n")
    writer.close()


async def test_pausing_reading_holds_the_peer_back(listener, lines, tls, trust, until):
    """A session that has enough gets nothing more until it resumes, and then everything."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust(), server_hostname="localhost"
    )
    writer.write(b"pause\n")
    await writer.drain()
    await until(lambda: lines.sessions and lines.sessions[0].heard)
    writer.write(b"echo after\n")
    await asyncio.sleep(0.02)
    assert lines.sessions[0].heard == ["pause"]
    assert await reader.readline() == b"after\n"
    writer.close()


async def test_a_bug_in_a_session_ends_only_its_connection(listener, lines):
    """An exception is logged, its connection closed, and the others go on."""
    port = await listener.open("127.0.0.1", 0, lines.application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"fail\n")
    assert await reader.read() == b""
    assert await reason_of(listener) == [CloseReason.INTERNAL]
    other_writer.write(b"echo still here\n")
    assert await other_reader.readline() == b"still here\n"
    writer.close()
    other_writer.close()


async def test_a_client_key_update_is_answered(listener, lines, tls, files):
    """TLS 1.3 housekeeping in the middle of a stream does not disturb it (openssl s_client)."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(files / "ca.pem"),
        "-servername", "localhost", "-tls1_3", "-verify_return_error",
        stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"K\n")
    await process.stdin.drain()
    await asyncio.sleep(0.2)
    process.stdin.write(b"echo after the update\n")
    await process.stdin.drain()
    async with asyncio.timeout(5):
        while (line := await process.stdout.readline()) != b"after the update\n":
            assert line
    process.stdin.write(b"Q\n")
    await process.wait()


async def test_renegotiation_is_refused(listener, lines, tls, files):
    """A TLS 1.2 client that renegotiates gets no new handshake out of us."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(files / "ca.pem"),
        "-tls1_2",
        stdin=PIPE, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"R\n")
    await process.stdin.drain()
    async with asyncio.timeout(5):
        output, _ = await process.communicate()
    assert b"no renegotiation" in output


async def test_too_many_certificates_are_refused_politely(listener, lines, tls, trust, stranger):
    """A chain of eleven ends with close_notify and never becomes a session."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    leaf = stranger.issue_cert("device@example.com")
    context = trust()
    with leaf.private_key_and_cert_chain_pem.tempfile() as path:
        with Path(path).open("ab") as chain:
            chain.writelines(stranger.cert_pem.bytes() for _ in range(11))
        context.load_cert_chain(path)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    assert await reader.read() == b""
    assert await reason_of(listener) == [CloseReason.TOO_MANY_CERTIFICATES]
    assert lines.sessions == []
    writer.close()


async def test_a_huge_chain_is_refused(listener, lines, tls, trust, stranger):
    """More than 100 KB of certificates never gets through the handshake."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    leaf = stranger.issue_cert("device@example.com")
    context = trust(ssl.TLSVersion.TLSv1_2)
    with leaf.private_key_and_cert_chain_pem.tempfile() as path:
        with Path(path).open("ab") as chain:
            chain.writelines(stranger.cert_pem.bytes() for _ in range(300))
        context.load_cert_chain(path)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    assert await reason_of(listener) == [CloseReason.HANDSHAKE_FAILED]
