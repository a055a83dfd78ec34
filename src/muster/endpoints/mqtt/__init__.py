"""What every MQTT wire shares: the front door, WebSockets, the contract."""
