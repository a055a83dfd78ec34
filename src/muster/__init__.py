"""Muster: a private CA, device provisioning and an IoT hub in one program."""

__version__ = "0.1.0.dev0"
