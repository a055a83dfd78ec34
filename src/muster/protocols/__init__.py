"""Sans-IO protocol machines and pure grammars. Bytes in, events out; time is an argument."""
