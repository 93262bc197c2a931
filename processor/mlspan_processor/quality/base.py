"""Stage 5: what every kind of quality has in common: sums over labelled predictions that merge by addition.

In: predictions with their true labels, in any order and any portions. Out: figures, or the reason why there
is none: one class only, no labels, no probabilities give `None` with a reason, never a number that means
something else. Counts are weighted by how many rows each captured row stands for.
"""

import math
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.sample import EPSILON

if TYPE_CHECKING:
    from mlspan_processor.quality.bands import Interval

MAX_CLASSES: Final = 64
"""Classes told apart in a confusion matrix; further ones share its last row and column."""
MAX_SCORED_CLASSES: Final = 32
"""Classes up to which probabilities are kept for AUROC, log loss and Brier score."""


class Figure(NamedTuple):
    """A quality figure: its value, or None and why; `bound` how far the exact value may be off, 0 when it is
    exact."""

    value: float | None
    reason: str = ""
    bound: float = 0.0


class Labelled(NamedTuple):
    """Predictions with their labels, n rows.

    Attributes:
        labels: (n,) float64 class indices or numbers; (n, n_outputs) of 0 and 1 for multilabel.
        predictions: like labels; class MAX_CLASSES is another class; NaN for rows without.
        scores: (n, width) float32 or float64, or None; width 1 is the last of two classes, else one column a class.
        score_kind: payload.SCORE_PROBABILITY or SCORE_RAW.
        weights: (n,) rows that each stands for.
        epsilon: see sample.EPSILON.
    """

    labels: NDArray[np.float64]
    predictions: NDArray[np.float64]
    scores: NDArray[np.float32] | NDArray[np.float64] | None
    score_kind: int
    weights: NDArray[np.float64]
    epsilon: float = EPSILON


class Quality(Protocol):
    """Mergeable quality statistics of one kind of task."""

    predicted: float
    labelled: float
    rows: int

    def update(self, batch: Labelled) -> None:
        """Add rows; those with a NaN label or neither prediction nor score are left out."""

    def update_predictions(self, batch: Labelled) -> None:
        """Add only the predictions of rows whose scores were added before."""

    def update_scores(self, batch: Labelled) -> None:
        """Add only the scores of rows whose predictions were added before."""

    def merge(self, other: Self) -> None:
        """Add another's rows."""

    def figures(self) -> dict[str, Figure]:
        """Every figure of the task by name."""

    def intervals(self) -> "dict[str, Interval]":
        """The band of every figure that has a value, at so many standard normal deviations."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""


class Sums:
    """The counts that every kind keeps.

    Attributes:
        predicted: weighted captured rows that a label could be for.
        labelled: weighted rows with a label; `squares` the sum of their squared weights.
        rows: labelled rows, unweighted.
    """

    def __init__(self) -> None:
        self.predicted = 0.0
        self.labelled = 0.0
        self.squares = 0.0
        self.rows = 0

    @property
    def effective(self) -> float:
        """Kish's effective number of labelled rows."""
        return self.labelled**2 / self.squares if self.squares else 0.0

    @property
    def ratio(self) -> float:
        """Kish's effective rows per weighted row; 1 without any."""
        return self.labelled / self.squares if self.squares else 1.0

    @property
    def coverage(self) -> float | None:
        """Labelled share of the predicted rows, None without any."""
        return min(1.0, self.labelled / self.predicted) if self.predicted > 0 else None

    def add_labelled(self, weights: NDArray[np.float64]) -> None:
        """Count labelled rows."""
        self.labelled += float(weights.sum())
        self.squares += float((weights * weights).sum())
        self.rows += len(weights)

    def merge_sums(self, other: "Sums") -> None:
        """Add another's counts."""
        self.predicted += other.predicted
        self.labelled += other.labelled
        self.squares += other.squares
        self.rows += other.rows


def wilson(share: float, n: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share among n rows (J. Am. Stat. Assoc. 22, 1927); (0, 1) for n =
    0."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))
