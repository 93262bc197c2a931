"""The command ``mlspan``; see main.py."""

from mlspan_processor.cli.main import main

__all__ = ["main"]
