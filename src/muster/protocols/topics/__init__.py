"""Topic grammars: what devices publish and subscribe to, and what they are told."""
