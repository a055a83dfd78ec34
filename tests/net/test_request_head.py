from __future__ import annotations

import pytest

from muster.net.request_head import RequestHead, judge_head, judge_upgrade

HOST = (b"host", b"a:8443")
CHUNKED = (b"transfer-encoding", b"chunked")


def _head(*headers, method=b"GET", target=b"/", version="1.1") -> RequestHead:
    return RequestHead(method, target, version, headers)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (_head(HOST), None),
        (_head(version="1.0"), None),
        (_head(HOST, version="1.0"), None),
        (_head(), 400),
        (_head(HOST, HOST), 400),
        (_head(HOST, HOST, version="1.0"), 400),
        (_head(HOST, version="0.9"), 505),
        (_head(HOST, version="2.0"), 505),
        (_head(HOST, method=b"CONNECT", target=b"a:443"), 501),
        (_head(HOST, method=b"OPTIONS", target=b"*"), None),
        (_head(HOST, target=b"https://A:8443/x?y=//z"), None),
        (_head(HOST, target=b"https://a/x"), 400),
        (_head(HOST, target=b"https://user@a:8443/x"), 400),
        (_head(target=b"https://a/x", version="1.0"), 400),
        (_head(HOST, CHUNKED), None),
        (_head(HOST, (b"transfer-encoding", b" CHUNKED\t")), None),
        (_head(HOST, CHUNKED, (b"content-length", b"1")), 400),
        (_head(CHUNKED, version="1.0"), 400),
        (_head(HOST, CHUNKED, CHUNKED), 501),
        (_head(HOST, (b"transfer-encoding", b"gzip, chunked")), 501),
        (_head(HOST, (b"transfer-encoding", b"chunked, gzip")), 400),
        (_head(HOST, (b"transfer-encoding", b"xchunked")), 400),
        (_head(HOST, *[(b"x", b"y")] * 9), None),
        (_head(HOST, *[(b"x", b"y")] * 10), 431),
        (_head(HOST, (b"x", b"y" * 200)), 431),
        (_head(HOST, target=b"/" + b"y" * 200), 431),
    ],
)
def test_a_head_is_judged(head, status):
    """Each rule refuses with its status, and what it leaves is served."""
    refusal = judge_head(head, most_bytes=200, most_headers=10)
    assert (refusal and refusal[0]) == status


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (_head(HOST), None),
        (_head(HOST, (b"content-length", b"0")), None),
        (_head(HOST, (b"content-length", b"5")), 400),
        (_head(HOST, CHUNKED), 400),
        (_head(HOST, version="1.0"), 400),
    ],
)
def test_an_upgrade_is_judged(head, status):
    """A WebSocket's handshake is HTTP/1.1 and has no body."""
    refusal = judge_upgrade(head)
    assert (refusal and refusal[0]) == status
