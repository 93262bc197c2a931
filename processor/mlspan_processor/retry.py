"""Waits between attempts: exponential, jittered, never shorter than what the backend asked for.

Source: the Collector's configretry (cenkalti/backoff).
"""

import random
from collections.abc import Callable

from mlspan_processor.config.schema import Retry


class Backoff:
    """The waits of one chunk; made anew for each."""

    def __init__(self, settings: Retry, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._settings = settings
        self._uniform = uniform
        self._interval = settings.initial_interval

    def next_seconds(self, retry_after_seconds: float | None, elapsed_seconds: float) -> float | None:
        """Return how long to wait before the next attempt, or None when the time is up.

        Args:
            retry_after_seconds: what the backend asked for.
            elapsed_seconds: since the first attempt.
        """
        settings = self._settings
        if not settings.enabled:
            return None
        spread = settings.randomization_factor * self._interval
        wait = self._uniform(self._interval - spread, self._interval + spread)
        self._interval = min(self._interval * settings.multiplier, settings.max_interval)
        wait = max(wait, retry_after_seconds or 0.0)
        if settings.max_elapsed_time and elapsed_seconds + wait > settings.max_elapsed_time:
            return None
        return wait
