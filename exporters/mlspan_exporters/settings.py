"""Stage 8, settings: the kinds of values that the exporters' `Config` models share.

Reads what YAML gives; a value that cannot be right is a ValueError that repeats it in quotes and tells what
would be. Keys are the Collector's wherever it has the same setting.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr

DURATION_UNITS_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
HEADER_NAME = re.compile(r"[0-9A-Za-z_.-]+")
HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def duration_seconds(value: object) -> float:
    """Return a duration as Go writes them, in seconds; 0 needs no unit.

    >>> duration_seconds("1m30s")
    90.0

    Raises:
        ValueError: for anything else, a bare number among it (the Collector would read it as nanoseconds).
    """
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if isinstance(value, str) and re.fullmatch(f"(?:{DURATION_PART.pattern})+", value):
        return sum(float(n) * DURATION_UNITS_SECONDS[unit] for n, unit in DURATION_PART.findall(value))
    msg = f'duration "{value}" is not understood: write a number with a unit, "300ms", "5s" or "1h30m"'
    raise ValueError(msg)


def duration_text(seconds: float) -> str:
    """Return `seconds` as `duration_seconds` reads it: how a default is written in documentation.

    >>> duration_text(300), duration_text(0.25)
    ('5m', '250ms')
    """
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds * 1000:g}ms"


Duration = Annotated[float, BeforeValidator(duration_seconds), PlainSerializer(duration_text)]
"""Seconds in Python, "5m" in the configuration file."""


def _sendable(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            msg = f'header name "{name}" is not valid: use letters, digits, "-", "_" and "."'
            raise ValueError(msg)
        if not HEADER_VALUE.fullmatch(value.get_secret_value()):
            msg = f'the value of header "{name}" is not valid: use printable ASCII on one line'
            raise ValueError(msg)
    return headers


Headers = Annotated[dict[str, SecretStr], AfterValidator(_sendable)]
"""Header names and values; the values are hidden in every representation, since they carry credentials."""


class Settings(BaseModel):
    """A block of settings: unknown keys are errors, values do not change after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def headers_field(what: str) -> Headers:
    """Return the field `headers`, described for `what` it is sent with."""
    field: Headers = Field(
        default_factory=dict,
        description=f"Headers sent with every {what}, for example an authorization token.",
    )
    return field
