"""Stage 5: which way each figure is good, and in which unit it is: what a margin or a smallest effect means for it."""

from typing import Final

HIGHER: Final = 1
LOWER: Final = -1
BETTER: Final[dict[str, int]] = {
    "accuracy": HIGHER,
    "precision": HIGHER,
    "recall": HIGHER,
    "specificity": HIGHER,
    "f1": HIGHER,
    "balanced_accuracy": HIGHER,
    "mcc": HIGHER,
    "roc_auc": HIGHER,
    "average_precision": HIGHER,
    "log_loss": LOWER,
    "brier": LOWER,
    "ece": LOWER,
    "hamming_loss": LOWER,
    "precision_micro": HIGHER,
    "recall_micro": HIGHER,
    "f1_micro": HIGHER,
    "mae": LOWER,
    "mse": LOWER,
    "rmse": LOWER,
    "r2": HIGHER,
    "mape": LOWER,
    "median_ae": LOWER,
    "bias": 0,
}
"""1 where higher is better, -1 where lower is, 0 where nearer to 0 is."""
RELATIVE: Final = frozenset({"log_loss", "mae", "mse", "rmse", "mape", "median_ae", "bias"})
"""Figures without a scale of their own: a smallest effect is relative to the value compared with."""
DEFAULT_SHARE: Final = 0.02
"""Difference that matters of a figure in [0, 1]."""
DEFAULT_RELATIVE: Final = 0.05
"""Difference that matters of the others, relative to the value compared with."""


def smallest(name: str, value: float) -> float:
    """The smallest difference of a figure that matters, unless the user says otherwise."""
    return DEFAULT_RELATIVE * abs(value) if name in RELATIVE else DEFAULT_SHARE


def direction(name: str, a: float, b: float) -> int:
    """1 where b - a > 0 is better, -1 where it is worse, 0 where it cannot be said."""
    known = BETTER.get(name, 0)
    if name == "bias" and a * b > 0:
        return -1 if a > 0 else 1
    return known


def because(reason: str) -> str:
    """A figure's short reason in full, for people.

    >>> because("labels of one class only"), because("all labels are equal"), because("")
    ('undecidable, because there are labels of one class only', 'undecidable, because all labels are equal', '')
    """
    if not reason or reason.startswith("undecidable"):
        return reason
    if any(verb in reason for verb in (" was ", " are ", " has ", " is ")):
        return f"undecidable, because {reason}"
    return f"undecidable, because there {'is' if reason.startswith('no label of') else 'are'} {reason}"
