"""Never break, slow or change the user's call: what happens when our own code fails.

Every failure of ours is counted by place and logged once per place and kind of exception; the user's call goes on
without it. With ``MLSPAN_RAISE`` in the environment (our own tests) it is raised instead, so that bugs cannot hide.
Memory: one counter per place in this package.
"""

import functools
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

RAISE_VARIABLE: Final = "MLSPAN_RAISE"

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

_logger = logging.getLogger(__name__)
_raise = os.environ.get(RAISE_VARIABLE, "").lower() in {"1", "true"}
_seen: set[tuple[str, str]] = set()
_failures: Counter[str] = Counter()


def failed(place: str) -> None:
    """Count and log the exception that is being handled; to be called in an ``except Exception`` of ours."""
    _failures[place] += 1
    error = sys.exception()
    kind = (place, type(error).__qualname__)
    if kind not in _seen:
        _seen.add(kind)
        _logger.warning("mlspan failed in %s; your call went on without it (logged once)", place, exc_info=error)
    if _raise and error is not None:
        raise error


def warn_once(place: str, message: str, *args: object) -> None:
    """Count what cannot be done as asked, and log it the first time."""
    _failures[place] += 1
    if (place, "") not in _seen:
        _seen.add((place, ""))
        _logger.warning(message, *args)


def failures() -> dict[str, int]:
    """Failures so far in this process, by place."""
    return dict(_failures)


def guarded(place: str, default: D) -> Callable[[Callable[P, R]], Callable[P, R | D]]:
    """A decorator: a failure in the function is counted and logged, and `default` is its answer."""

    def decorate(function: Callable[P, R]) -> Callable[P, R | D]:
        @functools.wraps(function)
        def guarded_function(*args: P.args, **kwargs: P.kwargs) -> R | D:
            try:
                return function(*args, **kwargs)
            except Exception:  # noqa: BLE001 - this is the place where our failures end
                failed(place)
                return default

        return guarded_function

    return decorate
