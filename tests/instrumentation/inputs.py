"""Helpers of the capture tests: capture with given settings, and readable cells."""

import math
from typing import Any

from mlspan.budget import ByteBudget
from mlspan.capture import Input, capture_input
from mlspan.columns import CATEGORICAL
from mlspan.config import Settings
from mlspan.payload import category_code

KEY = b"mlspan"


def capture(X: object, names: tuple[str, ...] | None = None, **settings: Any) -> Input:
    """What is captured under these settings, with a fresh budget."""
    return capture_input(X, names, Settings(**settings), ByteBudget())


def code(text: str) -> int:
    """The code of a category under the default key."""
    return category_code(text, KEY)


def columns(captured: Input) -> dict[str, tuple[str, list[Any]]]:
    """Type and values of each captured column; missing is None in both kinds."""
    assert captured.schema is not None
    assert captured.cells is not None
    found = {}
    for at, (name, kind) in enumerate(zip(captured.schema.names, captured.schema.types, strict=True)):
        if kind == CATEGORICAL:
            values = [value or None for value in captured.cells.view("<u4")[:, at].tolist()]
        else:
            floats = captured.cells.view("<f4")[:, at].tolist()
            values = [None if math.isnan(value) else value for value in floats]
        found[name] = (kind, values)
    return found
