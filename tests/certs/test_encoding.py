"""Certificates as text: every form that tools send, and one certificate or none."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.certs.chain import MAX_CERTIFICATE_BYTES
from muster.certs.encoding import MAX_CERTIFICATE_TEXT, certificate_der, certificate_pem
from muster.errors import Kind, Problem


def twice(pem: str) -> str:
    """Return the base64 of a PEM text."""
    return base64.b64encode(pem.encode()).decode()


FORMS = {
    "base64 of DER": lambda der: base64.b64encode(der).decode(),
    "in lines": lambda der: base64.encodebytes(der).decode(),
    "in lines with CRLF": lambda der: base64.encodebytes(der).decode().replace("\n", "\r\n"),
    "PEM": certificate_pem,
    "PEM with CRLF and blanks": lambda der: (
        "\r\n " + certificate_pem(der).replace("\n", "\r\n") + " \r\n"
    ),
    "PEM in one line": lambda der: certificate_pem(der).replace("\n", ""),
    "base64 of PEM": lambda der: twice(certificate_pem(der)),
    "base64 of PEM with CRLF": lambda der: twice(certificate_pem(der).replace("\n", "\r\n")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(root: Any, form: str) -> None:
    """Tools send PEM, base64 of DER and base64 of PEM, in lines of any length."""
    assert certificate_der(FORMS[form](root.der)) == root.der


def test_what_is_not_one_certificate_is_refused(root: Any) -> None:
    """Two, none, trailing bytes, a key, text beside, rubbish: as text and in base64."""
    pem = certificate_pem(root.der)
    for text in (
        pem + pem,
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        pem.replace("CERTIFICATE", "PRIVATE KEY"),
        pem.replace("CERTIFICATE", "X509 CERTIFICATE"),  # RFC 7468 section 5.1: not the same
        pem + "and more",
        pem[:-30],
        twice(pem),
        "hello",
        "",
    ):
        refused(twice(text))
    for text in (pem + pem, "", "   ", "not base64!", "\u0661\u0661", "-----", "\ud800"):
        refused(text)
    for der in (root.der + b"x", root.der[:-1], b"\x30\x80" * 50):
        refused(base64.b64encode(der).decode())


def test_a_certificate_has_an_end(root: Any) -> None:
    """A megabyte is not even read; the largest that is read still has to be a certificate."""
    refused("A" * 1_000_000)
    padded = root.der + b"x" * (MAX_CERTIFICATE_BYTES - len(root.der))
    assert len(FORMS["base64 of PEM with CRLF"](padded)) <= MAX_CERTIFICATE_TEXT
    refused(certificate_pem(padded + b"x"))


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300).map(certificate_pem)))
def test_no_text_is_a_bug(text: str) -> None:
    """Whatever stands in a certificate's place is refused."""
    refused(text)


def refused(text: str) -> None:
    """Check that *text* is no certificate, and that this is the caller's mistake."""
    with pytest.raises(Problem) as caught:
        certificate_der(text)
    assert caught.value.kind is Kind.MALFORMED
