"""The command line, a leaf: it imports every room, and no room imports it."""

from retinashift.cli.commands import app, main

__all__ = ["app", "main"]
