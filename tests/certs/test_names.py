"""What may be a name, and when two spellings are one."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from muster.certs.names import (
    AlternativeName,
    NameKind,
    agreed_common_name,
    alternative_name,
    is_dns_name,
    parse_name,
    parse_title,
    typed_name,
)
from muster.errors import Kind, Problem


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("dev-1", NameKind.DNS, "dev-1"),
        ("Dev_1", NameKind.DNS, "Dev_1"),
        ("a.example.test", NameKind.DNS, "a.example.test"),
        ("1234", NameKind.DNS, "1234"),
        ("10.0.0.1", NameKind.IP, "10.0.0.1"),
        ("10.0.0.1.", NameKind.DNS, "10.0.0.1."),
        ("010.0.0.1", NameKind.DNS, "010.0.0.1"),
        ("2001:DB8::1", NameKind.IP, "2001:db8::1"),
        ("0A:1B:2C", NameKind.DNS, "0A:1B:2C"),
    ],
)
def test_untyped_names_are_what_they_look_like(text, kind, value) -> None:
    """An IP address is one; all else, device ids too, is a DNS name as it stands."""
    assert alternative_name(text) == AlternativeName(kind, value)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (2, "10.0.0.1", AlternativeName(NameKind.DNS, "10.0.0.1")),
        (7, "2001:DB8:0::1", AlternativeName(NameKind.IP, "2001:db8::1")),
        (7, "dev-1", Kind.MALFORMED),
        (7, "fe80::1%eth0", Kind.MALFORMED),
        (2, "*.test", Kind.MALFORMED),
        (1, "a@b", Kind.UNSUPPORTED),
        (6, "https://a/", Kind.UNSUPPORTED),
        (-1, "a", Kind.UNSUPPORTED),
    ],
)
def test_typed_names_are_checked_for_their_type(kind, text, expected) -> None:
    """What the client says it is must hold."""
    if isinstance(expected, AlternativeName):
        assert typed_name(kind, text) == expected
        return
    with pytest.raises(Problem) as caught:
        typed_name(kind, text)
    assert caught.value.kind is expected


def subject(*values: str) -> x509.Name:
    """Return a name of common names."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value) for value in values])


@pytest.mark.parametrize(
    ("names", "stated", "agreed"),
    [
        (["dev-1"], None, "dev-1"),
        (["dev-1"], "", "dev-1"),
        (["dev-1"], "dev-1", "dev-1"),
        (["dev-1"], "CN=dev-1", "dev-1"),
        (["dev-1"], "cn=dev-1", "dev-1"),
        (["dev-1"], "CN = dev-1", None),
        (["a,b=c"], "CN=a,b=c", "a,b=c"),
        (["a,b"], r"CN=a\,b", "a,b"),
        (["a+b"], "a+b", "a+b"),
        (["dev-1"], "CN=DEV-1", None),
        (["dev-1"], "CN=dev-1,O=x", None),
        (["dev-1"], "dev-10", None),
        ([], "CN=dev-1", "dev-1"),
        ([], "dev-1", "dev-1"),
        ([], None, None),
        ([], "CN=", None),
        (["a", "b"], None, None),
    ],
)
def test_subject_and_statement_agree_or_are_refused(names, stated, agreed) -> None:
    """The forms that clients write, and nothing that could mean two things."""
    if agreed is not None:
        assert agreed_common_name(subject(*names), stated) == agreed
        return
    with pytest.raises(Problem) as caught:
        agreed_common_name(subject(*names), stated)
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a", True), ("a-b.c", True), ("x" * 63, True), ("1.2", True), ("xn--bcher-kva.test", True),
        ("x" * 64, False), ("a_b", False), ("-a", False), ("a-", False), ("a..b", False),
        ("a.", False), ("", False), ("*.a", False), (".".join(["x" * 63] * 4), False),
    ],
)  # fmt: skip
def test_host_name_syntax(text, is_one) -> None:
    """RFC 1034's preferred syntax."""
    assert is_dns_name(text) is is_one


def test_names_have_1_to_64_characters() -> None:
    """RFC 5280's bound for a common name."""
    assert parse_name("x" * 64) == "x" * 64
    for text in ("", "x" * 65):
        with pytest.raises(Problem):
            parse_name(text)


@pytest.mark.parametrize("text", ["Plant 7", "Größe", "工場", "O'Brien & Söhne, Ltd."])
def test_titles_may_be_in_any_script(text) -> None:
    """A CA's name is for people."""
    assert parse_title(text) == text


@pytest.mark.parametrize(
    "text", ["", " a", "a ", "a\nb", "a\x00", "a\u200bb", "a\u202eb", "\ue000", "x" * 65]
)
def test_titles_hold_nothing_invisible(text) -> None:
    """What people cannot see they cannot check."""
    with pytest.raises(Problem):
        parse_title(text)


def test_titles_are_counted_as_the_library_counts() -> None:
    """The longest title becomes a certificate's name; one character more is a clear refusal."""
    longest = "é" * 32
    assert x509.NameAttribute(NameOID.COMMON_NAME, parse_title(longest)).value == longest
    for text in ("é" * 33, "\ud800" * 33):
        with pytest.raises(Problem, match="64 bytes"):
            parse_title(text)
