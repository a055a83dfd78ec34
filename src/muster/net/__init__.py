"""Listeners, TLS, and the driver of every machine."""
