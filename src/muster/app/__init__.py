"""The composition root: the only package that knows concrete classes.

| module | what |
| --- | --- |
| `directory` | the data directory: its lock, its secrets, its ready file |
| `composition` | every part of the program, put together |
| `server` | listeners, background work, start and ordered stop |
"""

from muster.app.server import run

__all__ = ["run"]
