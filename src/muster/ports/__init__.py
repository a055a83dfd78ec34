"""What services need of the world, named by the need: Protocol classes of one to six methods.

Whoever implements a port says so nowhere; `app.py` puts the two together and the contract tests
in `tests/contract` hold each implementation to the port's docstrings.
"""
