"""The hub's wires."""
