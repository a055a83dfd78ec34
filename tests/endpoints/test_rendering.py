from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.endpoints.rendering import encode_json, json_response
from muster.ids import ETag

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_both_forms_say_the_same(document: object) -> None:
    """What is written is JSON and reads back, escaped or not; Node reads only ASCII right."""
    plain, escaped = encode_json(document), encode_json(document, ascii_only=True)
    assert json.loads(plain) == json.loads(escaped) == document
    assert escaped.isascii()
    assert escaped == json.dumps(document, separators=(",", ":")).encode()


def test_identifiers_are_text() -> None:
    """They are subclasses of str, in lists and in objects alike."""
    assert encode_json({"etag": ETag("abc"), "all": [ETag("d")]}) == b'{"etag":"abc","all":["d"]}'


def test_nothing_is_turned_into_text_silently() -> None:
    """A value that JSON does not have is a bug."""
    with pytest.raises(TypeError):
        encode_json({"key": object()})


def test_an_answer() -> None:
    """Status, headers and media type are the caller's."""
    answer = json_response({"a": "é"}, 201, {"x-a": "b"}, ascii_only=True)
    assert (answer.status_code, answer.body) == (201, b'{"a":"\\u00e9"}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-a"] == "b"
