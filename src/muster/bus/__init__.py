"""Notices between the parts of the program."""
