"""What the commands share: where text goes."""

import sys


def fail(message: str) -> int:
    """Write a message to stderr; return the exit code 1."""
    sys.stderr.write(f"mlspan: {message}\n")
    return 1


def say(message: str) -> None:
    """Write a line to stdout."""
    sys.stdout.write(message + "\n")
