"""The command line: one module per noun. `main.py` puts them together and owns the exit codes."""
