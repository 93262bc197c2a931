"""Batch, part 4a: what the model is for, and its answers as class indices or numbers.

What task.py (one answer a row) and outputs.py (several) make of a file's Answers, and all later parts take.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.analysis.answers import Probabilities
from mlspan_processor.sample import EPSILON, Task

MAX_INVALID: Final = 0.1
"""Share of invalid probabilities (outside [0, 1], or of a row that does not sum to 1) above which none of a window's,
or of the reference's, is used."""
EDGE: Final = 1e-6
"""How far outside counts as inside."""
SUM_TOLERANCE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Model:
    """What the model is for.

    Attributes:
        task: None when neither label, prediction nor probability is known.
        classes: texts; the outputs' names for multilabel; () for regression.
        inferred: sentences on what was not said but concluded.
        strange: classes that only the current file's labels have.
    """

    task: Task | None
    classes: tuple[str, ...]
    inferred: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()


class Unused(NamedTuple):
    """What of a window's answers cannot be used.

    Attributes:
        probabilities: why none of them is, "undecidable, because …"; "" where they are.
        derived: whether the predictions follow from the probabilities.
        strange: labels of classes that neither the reference nor the model knows, of so many `labels`.
        classes: which these are, for people.
    """

    probabilities: str = ""
    derived: bool = False
    strange: int = 0
    labels: int = 0
    classes: str = ""


@dataclass(slots=True, eq=False)
class Answered:
    """The answers of n rows.

    Attributes:
        predictions, labels: (n,) float64 class indices or numbers, NaN where there is none; (n, n_outputs) of 0 and 1,
            NaN rows, for multilabel.
        scores: (n, 1) or (n, n_classes) probabilities, NaN rows where there are none; None without.
        scores_reason: why there are none although there are columns.
        notes: what was left out, for people.
        invalid: (n,) rows whose probabilities are invalid; None for no row.
        invalid_how: what they do, "lie outside [0, 1]".
        derived: whether the predictions follow from the probabilities.
        strange: (n,) rows whose label is of a class that neither the reference nor the model knows; None for no row.
        strange_classes: which these are, for people.
    """

    predictions: NDArray[np.float64]
    labels: NDArray[np.float64]
    scores: Probabilities | None
    scores_reason: str = ""
    notes: list[str] = field(default_factory=list)
    invalid: NDArray[np.bool_] | None = None
    invalid_how: str = ""
    derived: bool = False
    strange: NDArray[np.bool_] | None = None
    strange_classes: str = ""

    @property
    def epsilon(self) -> float:
        """What the log loss clips the probabilities to, by their type."""
        return EPSILON if self.scores is None else float(np.finfo(self.scores.dtype).eps)

    def unused(self, rows: NDArray[np.intp]) -> Unused:
        """What of a window cannot be used; gives up its probabilities where too many of them are invalid."""
        why = self.drop_invalid("the window", rows)
        if self.strange is None:
            return Unused(why, self.derived)
        strange = self.strange[rows]
        labels = int((strange | ~np.isnan(self.labels[rows])).sum())
        return Unused(why, self.derived, int(strange.sum()), labels, self.strange_classes)

    def drop_invalid(self, whose: str, rows: "NDArray[np.intp] | slice" = slice(None)) -> str:
        """Give up the probabilities of these rows where more than `MAX_INVALID` of them are invalid, and say why."""
        if self.invalid is None or self.scores is None:
            return ""
        wrong = int(self.invalid[rows].sum())
        every = wrong + int((~np.isnan(self.scores[rows]).any(axis=1)).sum())
        if wrong <= MAX_INVALID * every:
            return ""
        self.scores[rows] = np.nan
        if self.derived:
            self.predictions[rows] = np.nan
        return f"undecidable, because {wrong / every:.0%} of the probabilities of {whose} {self.invalid_how}"


class Scores(NamedTuple):
    """(n, width) probabilities, NaN rows where there are none that can be used; which rows (n,) have invalid ones, and
    what these do, "lie outside [0, 1]"."""

    values: Probabilities
    invalid: NDArray[np.bool_]
    how: str


def valid(given: Probabilities, complete: bool, name: str, notes: list[str]) -> Scores:
    """The probabilities that can be used.

    Args:
        given: (n, width) as they came, NaN where missing.
        complete: whether those of a row must sum to 1.
        name: the file's, for the note.
        notes: what was left out, for people.
    """
    missing = np.isnan(given).any(axis=1)
    with np.errstate(invalid="ignore"):
        outside = ((given < -EDGE) | (given > 1 + EDGE)).any(axis=1) & ~missing
        off = np.abs(given.sum(axis=1) - 1) > SUM_TOLERANCE if complete else np.zeros(len(given), bool)
    invalid = outside | (off & ~missing)
    how = "lie outside [0, 1]" if outside.any() else "do not sum to 1"
    if invalid.any():
        count = int(invalid.sum())
        notes.append(f"{name}: probabilities that {how} are not used: {count:,} of {len(given):,} rows")
    values = np.clip(given, 0.0, 1.0)
    values[missing | invalid] = np.nan
    return Scores(values, invalid, how)


def missing(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) rows without an answer: of several outputs, without any of them."""
    gaps = np.isnan(values)
    return gaps if gaps.ndim == 1 else np.asarray(gaps.any(axis=1))
