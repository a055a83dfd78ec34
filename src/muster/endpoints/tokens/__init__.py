"""The token service's wire."""
