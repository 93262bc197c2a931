"""Durations as Go writes them ("1m30s", "500ms"): text in, seconds out.

Source: https://pkg.go.dev/time#ParseDuration. A bare number is an error there unless it is 0; so it is here.
"""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_VALID = 'a duration such as "500ms", "10s" or "1m30s"'


def parse_duration(value: object) -> float:
    """Return seconds; raise ValueError that says what a duration looks like.

    >>> parse_duration("1m30s")
    90.0
    """
    if isinstance(value, str):
        text = value.strip()
        if text == "0":
            return 0.0
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return float(sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts))
    elif value == 0 and not isinstance(value, bool):
        return 0.0
    raise ValueError(f"expected {_VALID}")


def format_duration(seconds: float) -> str:
    """Return the shortest Go spelling.

    >>> format_duration(90.0), format_duration(0.2), format_duration(0)
    ('1m30s', '200ms', '0s')
    """
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{hours:g}h" if hours else "", f"{minutes:g}m" if minutes else "", f"{rest:g}s" if rest else ""]
    return "".join(parts) or "0s"


Duration = Annotated[
    float, Field(ge=0, strict=False), BeforeValidator(parse_duration), PlainSerializer(format_duration)
]
"""Seconds, written as a Go duration in YAML."""

PositiveDuration = Annotated[
    float, Field(gt=0, strict=False), BeforeValidator(parse_duration), PlainSerializer(format_duration)
]
"""A Duration that may not be zero."""
