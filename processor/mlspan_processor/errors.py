"""Errors before the start: what is wrong with a configuration, or what keeps a part from starting.

::

    StartError            the processor cannot start; exit code 1
    └── ConfigError       the configuration is wrong; holds every Problem found, not only the first

What goes wrong with data after the start is in records.py (RetryableError, PermanentError).
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class StartError(Exception):
    """A part cannot start; the message names it and its endpoint."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration.

    Attributes:
        path: the key as the Collector writes it, "exporters::zipkin::endpoint"; empty for the file as a
        whole. message: what is wrong, with the value in quotes, and what would be valid.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(StartError):
    """All problems of one configuration."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"the configuration has {count}:\n{lines}")


def quoted(names: Iterable[str]) -> str:
    """Return the names sorted, quoted and joined, or "none"."""
    return ", ".join(f'"{name}"' for name in sorted(names)) or "none"


def hint(wrong: str, valid: Iterable[str], what: str) -> str:
    """Return "; did you mean …" where a valid name is near, and always the list of valid names.

    >>> hint("endpont", ["endpoint", "tls"], "keys")
    '; did you mean "endpoint"? Valid keys: "endpoint", "tls"'
    """
    names = list(valid)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    nearest = f'; did you mean "{near[0]}"?' if near else "."
    return f"{nearest} Valid {what}: {quoted(names)}"
