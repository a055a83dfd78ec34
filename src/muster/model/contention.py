"""Several writers of one thing: how often to try again, and what to say when it is no use.

Whoever changes what is stored reads it, decides, and replaces the very version it read. When
somebody else was faster, it reads and decides again; a caller who named a version hears of it then.
"""

from __future__ import annotations

from muster.errors import Kind, Problem

# Losing one race is chance and the second read settles it. Five in a row is a crowd, to which
# trying on would only add: each attempt is a read and a transaction.
ATTEMPTS = 5
# By then the others' changes, each of which takes milliseconds, are through.
_RETRY_SECONDS = 1


def contended(what: str) -> Problem:
    """Return the refusal of a change to *what* that lost `ATTEMPTS` races.

    `UNAVAILABLE`, because nothing is wrong with the change: clients repeat that by themselves.
    """
    return Problem(Kind.UNAVAILABLE, f"others keep changing {what}", retry_after=_RETRY_SECONDS)
