"""Stage 5: how long labels take, and whether a window's labels are mature: an immature window is never compared with a
mature one, as early labels are not like late ones.

In: delays of labels that arrived, per cohort (the predictions of one pane). Out: quantiles of the delay; the share of
predictions that has a label by each age, by Kaplan & Meier's estimator (J. Am. Stat. Assoc. 53, 1958) over cohorts of
different ages, where a label that has not come by now is censored, not missing; a verdict for a window. A cohort that
spans time has the age of its youngest prediction. Delays are counted in bins that grow by the square root of 2, from 1
s to about 3 years: quantiles are right within 20 %. Delays below 1 s (clocks that differ, labels before predictions)
count as 1 s. Memory: 440 bytes a cohort.
"""

import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

BINS: Final = 55
MIN_LABELS: Final = 30
"""Labels below which a delay distribution says nothing."""
ENOUGH: Final = 0.95
"""Share of the labels that will ever come from which a window is mature."""
_EDGES: Final = 2.0 ** (np.arange(BINS) / 2)  # upper ends in seconds; the last bin has none
_NANOSECONDS: Final = 1_000_000_000


class Delays:
    """Counts of delays; `counts` (55,) weighted labels."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.counts.nbytes

    @property
    def labels(self) -> float:
        """Weighted labels."""
        return float(self.counts.sum())

    def add(self, seconds: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> None:
        """Count delays (n,) in seconds; NaN are left out."""
        used = ~np.isnan(seconds)
        bins = np.minimum(np.searchsorted(_EDGES, seconds[used]), BINS - 1)
        self.counts += np.bincount(bins, None if weights is None else weights[used], BINS)

    def merge(self, other: "Delays") -> None:
        """Add another's labels."""
        self.counts = self.counts + other.counts

    def quantile(self, q: float) -> float | None:
        """The delay in seconds that a share q of the labels that came did not exceed; None without any."""
        below = np.cumsum(self.counts)
        if below[-1] <= 0:
            return None
        i = int(np.searchsorted(below, q * below[-1] * (1 - 1e-12)))
        return float(_EDGES[i] / 2**0.25)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {"counts": self.counts.tolist()}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """What `to_dict` described."""
        delays = cls()
        delays.counts = np.array(state["counts"], np.float64)
        return delays


class Cohort(NamedTuple):
    """Predictions of one pane.

    Attributes:
        start_ns, end_ns: the predictions' time.
        predicted: weighted predictions.
        delays: of those that have their label.
    """

    start_ns: int
    end_ns: int
    predicted: float
    delays: Delays


class Curve(NamedTuple):
    """Which share of predictions has a label by which age.

    Attributes:
        ages: (n,) seconds, increasing.
        coverage: (n,) share of all predictions that has its label by then.
        reason: "" or why there is no curve, "undecidable, because …".
    """

    ages: NDArray[np.float64]
    coverage: NDArray[np.float64]
    reason: str = ""

    @property
    def final(self) -> float | None:
        """Coverage that a window reaches in the end, as far as has been seen."""
        return float(self.coverage[-1]) if len(self.coverage) else None

    def at(self, age: float) -> float | None:
        """Coverage expected at an age in seconds."""
        if not len(self.ages):
            return None
        return float(np.interp(age, np.concatenate([[0.0], self.ages]), np.concatenate([[0.0], self.coverage])))


class Maturity(NamedTuple):
    """Whether a window may be compared.

    Attributes:
        mature: as many labels have come as will come, within 5 %.
        coverage: labelled share of its predictions.
        expected: coverage expected at its age, and `final` in the end; None where nothing is known.
        reason: "" for mature, else why not.
    """

    mature: bool
    coverage: float | None
    expected: float | None
    final: float | None
    reason: str


def curve(cohorts: Iterable[Cohort], now_ns: int) -> Curve:
    """The maturity curve of all cohorts, young ones included."""
    events, at_risk, censored = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    total = 0.0
    for cohort in cohorts:
        age = max(0.0, (now_ns - cohort.end_ns) / _NANOSECONDS)
        last = int(np.searchsorted(_EDGES, age, side="right"))  # bins that its age has passed whole
        counts = cohort.delays.counts
        came = counts[:last]
        open_ = max(0.0, cohort.predicted - float(came.sum()))
        events[:last] += came
        # Those without a label by then leave after the last whole bin.
        if last:
            censored[last - 1] += open_
        total += float(counts.sum())
    if total < MIN_LABELS:
        return Curve(np.zeros(0), np.zeros(0), f"undecidable, because only {total:.0f} labels have come so far")
    left = events + censored
    at_risk = np.cumsum(left[::-1])[::-1]
    used = at_risk > 0
    if not used.any():
        return Curve(np.zeros(0), np.zeros(0), "undecidable, because no window is old enough")
    hazard = np.divide(events, at_risk, out=np.zeros(BINS), where=used)
    coverage = 1 - np.cumprod(1 - hazard)
    seen = int(np.flatnonzero(used)[-1]) + 1
    return Curve(_EDGES[:seen], coverage[:seen])


def maturity(
    known: Curve, end_ns: int, now_ns: int, predicted: float, labels: float, enough: float = ENOUGH
) -> Maturity:
    """Whether a window that ended at `end_ns` may be compared with others.

    Args:
        known: the curve of the model's cohorts.
        end_ns, now_ns: nanoseconds since the epoch.
        predicted, labels: weighted predictions of the window, and how many have their label.
        enough: share of the final coverage that makes a window mature.
    """
    coverage = min(1.0, labels / predicted) if predicted > 0 else None
    if coverage is None:
        return Maturity(False, None, None, None, "undecidable, because the window has no predictions")
    if coverage >= enough:  # whatever will come cannot change much
        return Maturity(True, coverage, known.at(max(0.0, (now_ns - end_ns) / _NANOSECONDS)), known.final, "")
    if known.reason or not known.final:
        return Maturity(False, coverage, None, None, known.reason or "undecidable, because no label has come so far")
    age = max(0.0, (now_ns - end_ns) / _NANOSECONDS)
    expected, final = known.at(age), known.final
    assert expected is not None
    horizon = float(known.ages[-1])
    # Labels must have stopped coming well before the oldest age that was seen, or nobody knows how many will come.
    settled = known.at(horizon / 2)
    if settled is None or settled < enough * final:
        return Maturity(False, coverage, expected, None, f"undecidable, because labels still come at {_text(horizon)}")
    if expected < enough * final:
        share = expected / final
        why = f"at {_text(age)} only {share:.0%} of the labels that will come are expected"
        return Maturity(False, coverage, expected, final, why)
    return Maturity(True, coverage, expected, final, "")


def _text(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{math.ceil(seconds)} s"
