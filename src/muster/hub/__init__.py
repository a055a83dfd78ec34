"""The hub: device registry, access, sessions and telemetry."""
