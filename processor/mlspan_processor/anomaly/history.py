"""Stage 6: thresholds from history: the detector that every series of the processor is watched with.

Robust and free of assumptions on the distribution: outliers, steps, bursts, moved levels and changed spread, against
level and season, each by its own past. How it judges is told in residuals, what it looks at in rarity;
benchmarks/bench_nab.py runs this class as it is.
"""

from typing import ClassVar

from mlspan_processor.anomaly.residuals import Residuals


class History(Residuals):
    """All statistics, one threshold for them together."""

    name: ClassVar[str] = "history"
    PLAIN: ClassVar[tuple[str, ...]] = ("point", "jump", "short", "long", "spread")
    SEASONAL: ClassVar[tuple[str, ...]] = ("point", "short", "long")
    FOLLOWS: ClassVar[bool] = True
