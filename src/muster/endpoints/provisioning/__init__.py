"""The wires of provisioning."""
