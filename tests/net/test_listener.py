from __future__ import annotations

import asyncio
import resource
import socket
import ssl

import pytest

from muster.errors import Kind, Problem
from muster.net.admission import Limits
from muster.net.listener import Listener, within_file_limit
from muster.net.reasons import CloseReason


async def test_a_port_in_use_is_named(listener, lines):
    """The error says which address it is and what to do."""
    port = await listener.open("127.0.0.1", 0, lines.application)
    other = Listener()
    with pytest.raises(Problem, match=f"127.0.0.1:{port} is in use: stop the program") as caught:
        await other.open("127.0.0.1", port, lines.application)
    assert caught.value.kind is Kind.CONFLICT
    with pytest.raises(Problem, match="already open"):
        await listener.open("127.0.0.1", port, lines.application)
    await other.close()


@pytest.mark.parametrize("host", ["203.0.113.9", "no such host", "x" * 300])
async def test_an_address_of_another_machine_is_refused(listener, lines, host):
    """What is not an address here is refused in words, not with a traceback."""
    with pytest.raises(Problem) as caught:
        await listener.open(host, 0, lines.application)
    assert caught.value.kind is Kind.MALFORMED
    assert host in caught.value.detail


async def test_addresses_come_and_go(listener, lines):
    """A hub gets an address of its own at run time and gives it up; others go on serving."""
    first = await listener.open("127.0.0.1", 0, lines.application)
    second = await listener.open("127.0.0.2", first, lines.application)
    assert second == first
    assert listener.addresses == [("127.0.0.1", first), ("127.0.0.2", first)]
    reader, writer = await asyncio.open_connection("127.0.0.2", second)
    writer.write(b"echo two\n")
    assert await reader.readline() == b"two\n"
    await listener.close_address("127.0.0.2", second)
    await listener.close_address("127.0.0.2", second)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", second)
    writer.write(b"echo still\n")
    assert await reader.readline() == b"still\n"  # who is connected stays
    again = await listener.open("127.0.0.2", first, lines.application)
    assert again == first
    writer.close()


async def test_a_name_with_two_addresses_gets_one_port(listener, lines):
    """`localhost` may be 127.0.0.1 and ::1; both answer on the port that was returned."""
    port = await listener.open("localhost", 0, lines.application)
    found = await asyncio.get_running_loop().getaddrinfo("localhost", port)
    for address in {address[0] for *_kind, address in found}:
        assert await _is_served(port, address) or ":" in address
        _reader, writer = await asyncio.open_connection(address, port)
        writer.close()


async def test_close_ends_everything_in_order(lines, tls, trust):
    """Stop accepting, close what is open with a reason, give up handshakes, report."""
    listener = Listener(Limits(linger_timeout=0.3))
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust(), server_hostname="localhost"
    )
    half, half_writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"echo hi\n")
    assert await reader.readline() == b"hi\n"
    report, rest, half_rest, again = await asyncio.gather(
        listener.close(2.0), reader.read(), half.read(), listener.close()
    )
    assert (rest, half_rest) == (b"", b"")
    assert (report.connections, report.cut) == (2, 0)
    assert again is report
    assert lines.sessions[0].reasons == ["shutdown"]
    assert listener.closings.counts == {CloseReason.SHUTDOWN: 2}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises(Problem):
        await listener.open("127.0.0.1", 0, lines.application)
    writer.close()
    half_writer.close()


async def test_close_waits_for_answers_in_flight(lines):
    """What a session has under way when the program stops is still sent."""
    listener = Listener()
    port = await listener.open("127.0.0.1", 0, lines.application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"echo hi\n")
    assert await reader.readline() == b"hi\n"
    closing = asyncio.create_task(listener.close(2.0))
    await asyncio.sleep(0.1)
    lines.sessions[0].do_later("committed after the stop")
    assert await reader.read() == b"committed after the stop\n"
    writer.close()
    assert (await closing).cut == 0


async def test_close_cuts_who_does_not_leave(lines, until):
    """A peer that neither reads nor closes cannot hold the program up."""
    listener = Listener(Limits(linger_timeout=30))
    port = await listener.open("127.0.0.1", 0, lines.application)
    raw = socket.create_connection(("127.0.0.1", port))
    raw.sendall(b"big 30000000\n")
    await until(lambda: lines.sessions and lines.sessions[0].heard)
    report = await asyncio.wait_for(listener.close(0.2), 3)
    assert (report.connections, report.cut) == (1, 1)
    assert listener.connection_count == 0
    raw.close()


async def test_close_cancels_late_tasks(listener):
    """Tasks get the deadline, then they are cancelled and counted."""
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    listener.tasks.start(forever(), name="forever")
    report = await listener.close(0.05)
    assert report.tasks_cancelled == 1
    assert cancelled.is_set()
    assert listener.tasks.tasks == set()


async def test_a_failing_task_is_logged(listener, capsys):
    """A bug in a task is not silent."""

    async def fail() -> None:
        raise RuntimeError("a bug in a task")

    task = listener.tasks.start(fail(), name="failing")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert "a bug in a task" in capsys.readouterr().out


async def _is_served(port: int, source: str) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(b"echo in\n")
        answer = await reader.readline()
        writer.close()
    except ConnectionError:
        return False
    return answer == b"in\n"


async def test_newcomers_beyond_the_cap_are_refused(lines, until):
    """Beyond the caps a newcomer is turned away, and who is connected stays."""
    listener = Listener(Limits(connections=3, connections_per_address=2))
    port = await listener.open("127.0.0.1", 0, lines.application)
    held = []
    for source in ("127.0.0.1", "127.0.0.1", "127.0.0.9"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        writer.write(b"echo in\n")
        assert await reader.readline() == b"in\n"
        held.append((reader, writer))
    for source in ("127.0.0.1", "127.0.0.10"):
        assert not await _is_served(port, source)
    assert listener.closings.counts[CloseReason.TOO_MANY_CONNECTIONS] == 2
    held[0][1].close()
    await held[0][1].wait_closed()
    await until(lambda: listener.connection_count == 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
    writer.write(b"echo in\n")
    assert await reader.readline() == b"in\n"
    writer.close()
    for _reader, writer in held:
        writer.close()
    await listener.close(0.1)


async def test_half_open_connections_do_not_keep_others_out(lines, tls, trust):
    """At the cap of unfinished handshakes the oldest gives way to a healthy newcomer."""
    listener = Listener(Limits(handshakes=50, handshakes_per_address=20, handshake_timeout=60))
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    half_open = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
    for _ in range(5):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust(), server_hostname="localhost"
        )
        writer.write(b"echo in\n")
        assert await reader.readline() == b"in\n"
        writer.close()
    assert listener.closings.counts[CloseReason.HANDSHAKE_EVICTED] >= 20
    for _reader, writer in half_open:
        writer.close()
    await listener.close(0.1)


async def test_reload_swaps_the_certificate_for_new_connections(listener, lines, tls, trust, issue):
    """A renewed certificate is shown without a restart; open connections stay."""
    port = await listener.open("127.0.0.1", 0, lines.application, tls)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust(), server_hostname="localhost"
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust(), server_hostname="new.example.com"
        )
    tls.reload(issue("new.example.com"))
    _, second = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust(), server_hostname="new.example.com"
    )
    writer.write(b"echo still\n")
    assert await reader.readline() == b"still\n"
    writer.close()
    second.close()


def test_connections_fit_the_open_files(monkeypatch):
    """The soft limit is raised as far as it goes; beyond that the caps give way."""
    now = {"limit": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _which: now["limit"])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, pair: now.update(limit=pair))
    assert within_file_limit(Limits(connections=2000)) == Limits(connections=2000)
    assert now["limit"] == (2256, 4096)
    fitted = within_file_limit(Limits())
    assert now["limit"] == (4096, 4096)
    assert (fitted.connections, fitted.connections_per_address) == (3840, 1920)
    assert (fitted.handshakes, fitted.handshakes_per_address) == (960, 480)
    now["limit"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert within_file_limit(Limits()) == Limits()
