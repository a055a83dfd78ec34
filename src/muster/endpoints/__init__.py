"""One file per service and wire: parse, call one service, render."""
