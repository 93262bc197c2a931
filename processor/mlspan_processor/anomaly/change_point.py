"""Stage 6: runs of values that history makes unlikely: a level that moves, noise that grows or stops.

For a series whose single outliers are nobody's business. Means of the last 10 and 50 residuals and the change from
value to value, each against its own past, so that no independence has to be assumed: the means of an autocorrelated
series vary more, and their tails say so. A moved level is followed once it is confirmed (see residuals), so that the
next change is judged from where the series is now.
"""

from typing import ClassVar

from mlspan_processor.anomaly.residuals import Residuals


class ChangePoint(Residuals):
    """Level shifts and changes of spread."""

    name: ClassVar[str] = "change_point"
    PLAIN: ClassVar[tuple[str, ...]] = ("short", "long", "spread")
    SEASONAL: ClassVar[tuple[str, ...]] = ("short", "long")
    FOLLOWS: ClassVar[bool] = True
