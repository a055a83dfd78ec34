"""The resource manager's wire."""
