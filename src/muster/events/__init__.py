"""The event log of hubs: embedded, on local files. `log.EmbeddedEventLog` is the way in."""
