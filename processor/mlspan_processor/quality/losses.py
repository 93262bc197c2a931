"""Stage 5: mean losses of probabilities: log loss and Brier score, with what their bands need.

In: each row's probability of its true class, and its squared error. Rows whose probabilities lie outside [0, 1] or do
not sum to 1 (within 0.02) are counted: while there are any, neither figure exists. Memory: 56 bytes.
Source: Brier, Mon. Weather Rev. 78, 1950.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.quality.bands import Interval, positive, share
from mlspan_processor.quality.base import Figure

_OUTSIDE: Final = 1e-6
_SUM_TOLERANCE: Final = 0.02
NOTHING: Final = "no labelled probabilities"


class Losses:
    """Weighted sums of both losses and of their squares."""

    def __init__(self) -> None:
        self.weight = 0.0
        self.log_loss = 0.0
        self.log_loss_squared = 0.0
        self.brier = 0.0
        self.brier_squared = 0.0
        self.outside = 0
        self.unnormed = 0

    def proper(self, p: NDArray[np.float64], sums: bool) -> NDArray[np.bool_]:
        """(n,) which rows of p (n, width) are probabilities, that sum to 1 where `sums`; counts the others."""
        outside = ((p < -_OUTSIDE) | (p > 1 + _OUTSIDE)).any(axis=1)
        unnormed = uneven(p) if sums else np.zeros(len(p), bool)
        self.outside += int(outside.sum())
        self.unnormed += int(unnormed.sum())
        return np.asarray(~outside & ~unnormed)

    def add(self, log_loss: NDArray[np.float64], squared: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """Add rows: losses (n,) in nats, squared errors (n,), weights (n,)."""
        self.weight += float(weights.sum())
        self.log_loss += float(weights @ log_loss)
        self.log_loss_squared += float(weights @ log_loss**2)
        self.brier += float(weights @ squared)
        self.brier_squared += float(weights @ squared**2)

    def merge(self, other: "Losses") -> None:
        """Add another's rows."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def reason(self) -> str:
        """Why there are no figures of probabilities, or ""."""
        if self.outside:
            return f"undecidable, because the probabilities of {self.outside} rows lie outside [0, 1]"
        if self.unnormed:
            return f"undecidable, because the probabilities of {self.unnormed} rows do not sum to 1"
        return "" if self.weight > 0 else NOTHING

    def figures(self) -> dict[str, Figure]:
        """log_loss, brier."""
        if self.reason:
            return dict.fromkeys(("log_loss", "brier"), Figure(None, self.reason))
        return {"log_loss": Figure(self.log_loss / self.weight), "brier": Figure(self.brier / self.weight)}

    def intervals(self, ratio: float) -> dict[str, Interval]:
        """Their bands."""
        if self.reason:
            return {}
        n = self.weight * ratio
        log_loss, brier = self.log_loss / self.weight, self.brier / self.weight
        of_log = max(0.0, self.log_loss_squared / self.weight - log_loss**2) / max(n - 1, 1)
        of_brier = max(0.0, self.brier_squared / self.weight - brier**2) / max(n - 1, 1)
        return {"log_loss": positive(log_loss, n, of_log), "brier": share(brier, n, of_brier)}


def uneven(p: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(n,) which rows of p (n, width), all within [0, 1], do not sum to 1."""
    inside = ((p >= -_OUTSIDE) & (p <= 1 + _OUTSIDE)).all(axis=1)
    return np.asarray(inside & (np.abs(p.sum(axis=1, dtype=np.float64) - 1) > _SUM_TOLERANCE))
