"""The CA's wires."""
