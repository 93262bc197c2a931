"""Stage 5: are probabilities what they say? Reliability bins and the expected calibration error.

In: how sure the model was and whether it was right: the probability of the last class and whether it came (two
classes), the largest probability and whether its class came (more). Out: 15 bins of equal width (scikit-learn's
calibration_curve, strategy "uniform") and the ECE, Σ share of rows · |share right - mean confidence| (Naeini et al.,
AAAI 2015; Guo et al., ICML 2017). The plain ECE of few rows is too large: a perfectly calibrated model's is that of the
noise in the bins. It is debiased: gaps in proportion to those seen (noise included, so that none is 0) are taken such
that the ECE expected of them, with the bins' binomial noise, is the one that was seen; 0 when noise alone explains it.
The band holds the gaps whose expected ECE is within z standard deviations of the one seen. Gaps with normal noise are
folded normals, so no simulation is needed. The idea of subtracting the noise: Kumar, Liang & Ma, NeurIPS 2019.
Memory: 360 bytes.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mlspan_processor.quality.bands import Band, Interval
from mlspan_processor.quality.base import Figure, wilson

BINS: Final = 15
_EDGES: Final = np.linspace(0.0, 1.0, BINS + 1)


def bins_of(confidence: NDArray[np.float64]) -> NDArray[np.intp]:
    """The bin of each probability, in the same shape."""
    return np.searchsorted(_EDGES[1:-1], confidence)


class ReliabilityBin(NamedTuple):
    """One bin of confidence.

    Attributes:
        start, end: of the confidence.
        rows: weighted rows.
        confidence: their mean confidence.
        share: of them that were right; low, high: its 95 % band.
    """

    start: float
    end: float
    rows: float
    confidence: float
    share: float
    low: float
    high: float


class Calibration:
    """Sums by bin; rows of `table` (3, 15) are weights, weighted confidence, weight of rows that were right."""

    def __init__(self) -> None:
        self.table = np.zeros((3, BINS))

    def add(self, confidence: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64]) -> None:
        """Add rows (n,)."""
        bins = bins_of(confidence)
        for row, values in enumerate((weights, weights * confidence, weights * right)):
            self.table[row] += np.bincount(bins, values, BINS)

    def merge(self, other: "Calibration") -> None:
        """Add another's rows."""
        self.table = self.table + other.table

    def bins(self, ratio: float) -> list[ReliabilityBin]:
        """Bins with rows, lowest confidence first; `ratio`: effective rows per weighted row."""
        result = []
        for i in np.flatnonzero(self.table[0] > 0).tolist():
            rows, confidence, right = self.table[:, i].tolist()
            low, high = wilson(right / rows, rows * ratio)
            edges = float(_EDGES[i]), float(_EDGES[i + 1])
            result.append(ReliabilityBin(*edges, rows, confidence / rows, right / rows, low, high))
        return result

    def plain(self) -> float | None:
        """The ECE without the correction."""
        total = self.table[0].sum()
        return float(np.abs(self.table[2] - self.table[1]).sum() / total) if total > 0 else None

    def ece(self, ratio: float) -> Figure:
        """The debiased ECE."""
        gaps = self._gaps(ratio)
        if gaps is None:
            return Figure(None, "no labelled probabilities")
        return Figure(gaps.at(0.0))

    def interval(self, ratio: float) -> Interval:
        """Its band."""

        def interval(z: float) -> Band | None:
            gaps = self._gaps(ratio)
            return None if gaps is None else (gaps.at(z), min(1.0, gaps.at(-z)))

        return interval

    def _gaps(self, ratio: float) -> "_Gaps | None":
        used = self.table[0] > 0
        if not used.any():
            return None
        rows, confidence, right = self.table[:, used]
        confidence = np.clip(confidence / rows, 0.0, 1.0)
        return _Gaps(rows / rows.sum(), right / rows - confidence, confidence, rows * ratio)


class _Gaps:
    """Gaps (n_bins,) between the share that was right and the confidence, with the bins' shares of rows, confidence and
    effective rows."""

    def __init__(
        self,
        shares: NDArray[np.float64],
        gaps: NDArray[np.float64],
        confidence: NDArray[np.float64],
        n: NDArray[np.float64],
    ) -> None:
        self._shares, self._confidence, self._n = shares, confidence, n
        self._seen = float(shares @ np.abs(gaps))
        self._shape = np.sqrt(gaps**2 + self._variance(confidence)) * np.where(gaps < 0, -1.0, 1.0)

    def at(self, z: float) -> float:
        """The ECE under which the one seen is z standard deviations above its mean; 0 where none is."""
        low, high = 0.0, 1.0
        if self._deviations(0.0) <= z:
            return 0.0
        while self._deviations(high) > z and high < 1e6:
            high *= 2
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._deviations(middle) > z else (low, middle)
        return float(high * (self._shares @ np.abs(self._shape)))

    def _variance(self, truth: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(truth * (1 - truth), 1e-12) / self._n

    def _deviations(self, scale: float) -> float:
        """How many standard deviations the ECE seen lies above the one expected of gaps `scale` times the shape."""
        gaps = scale * self._shape
        # Noise is that of rows which are right as often as these gaps say: of few rows, all may happen to be right.
        noise = np.sqrt(self._variance(np.clip(self._confidence + gaps, 0.0, 1.0)))
        true = np.abs(gaps)
        folded = noise * math.sqrt(2 / math.pi) * np.exp(-0.5 * (true / noise) ** 2)
        folded = folded + true * (1 - 2 * ndtr(-true / noise))
        variance = noise**2 + true**2 - folded**2
        spread = math.sqrt(float(self._shares**2 @ np.maximum(variance, 0.0)))
        return (self._seen - float(self._shares @ folded)) / max(spread, 1e-15)
