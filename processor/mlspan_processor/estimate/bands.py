"""Stage 5: how far the realised value may be from its estimate.

Five parts, added as variances: the sampling error of the realised value in this window, which is itself a draw; that
of the reference that the estimate was learnt from (the same per row, over the reference's rows); what the estimate
was wrong by beyond sampling in windows made from the reference; and a share of how far the chosen method stands from
plain CBPE (regression: from the reference's own value) in this window, which is large where a shift puts the estimate
to the test; and a share of how well window and reference rows can be told apart, since no estimate without labels
knows whether the labels moved along. The band is 1.96 standard deviations either way, cut off at a figure's natural
limits; where it then holds every value from one limit to the other, there is no estimate.
"""

from typing import Final, NamedTuple, Self

import numpy as np

from mlspan_processor.estimate.base import Floats

Z: Final = 1.959963984540054
DISTANCE: Final = 1.0
"""Share of the distance from the simple method that counts as a standard deviation; settled on data sets that the
benchmark does not use."""


SHIFT: Final = 0.2
"""Standard deviation of an error, in those of one row, where window and reference have nothing in common; settled
likewise."""


class Judged(NamedTuple):
    """Estimates of one window.

    Attributes:
        values: (n_metrics,) estimates, NaN where there is none.
        simple: (n_metrics,) estimates of the simple method.
        sampling: (n_metrics,) standard deviations of the realised values.
        shift: from 0 (window and reference rows are alike) to 1 (they can always be told apart).
    """

    values: Floats
    simple: Floats
    sampling: Floats
    shift: float = 0.0


class Spread(NamedTuple):
    """What is known of a model's estimates from made windows.

    Attributes:
        excess: (n_metrics,) standard deviation of the error beyond sampling error.
    """

    excess: Floats

    @classmethod
    def fit(cls, windows: list[Judged], realised: list[Floats]) -> Self:
        """From estimates of windows whose realised values are known, out of fold."""
        if not windows:
            return cls(np.zeros(0))
        error = np.stack([one.values for one in windows]) - np.stack(realised)
        sampling = np.stack([one.sampling for one in windows])
        distance = DISTANCE * np.stack([one.values - one.simple for one in windows])
        beyond = error**2 - sampling**2 - distance**2
        known = np.isfinite(beyond)
        total = np.where(known, beyond, 0.0).sum(axis=0)
        return cls(np.sqrt(np.maximum(total / np.maximum(known.sum(axis=0), 1), 0.0)))

    def band(self, judged: Judged, rows: float, reference_rows: float) -> tuple[Floats, Floats]:
        """Lower and upper ends (n_metrics,) before they are cut off."""
        variance = judged.sampling**2 * (1 + rows / reference_rows) + self.excess**2
        variance = variance + (DISTANCE * np.nan_to_num(judged.values - judged.simple)) ** 2
        variance = variance + (SHIFT * judged.shift * judged.sampling) ** 2 * rows
        half = Z * np.sqrt(variance)
        return judged.values - half, judged.values + half
