"""Batch, part 10a: all that an alert of one window can rest on, and how its numbers are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.analysis.answered import Unused
from mlspan_processor.analysis.encode import Feature
from mlspan_processor.analysis.prepared import Prepared
from mlspan_processor.analysis.result import Group, Metric, Multivariate
from mlspan_processor.analysis.truth import Truth
from mlspan_processor.drift.judgement import Judgement
from mlspan_processor.sample import Sample


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that an alert can rest on.

    Attributes:
        counts: (n_cells,) of the window.
        loss_dependence: design effect of the losses, at least 1.
        segments: metrics by column and value.
        unused: answers that cannot be used.
    """

    prepared: Prepared
    sample: Sample
    metrics: Mapping[str, Metric]
    truth: Truth
    judged: Judgement | None
    counts: NDArray[np.float64]
    multivariate: Multivariate
    features: Sequence[Feature]
    loss_dependence: float
    segments: Mapping[str, Mapping[str, Group]]
    unused: Unused


def text(value: float | None) -> str:
    """A number for a sentence: three digits."""
    return "unknown" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def p_text(value: float | None) -> str:
    """A p-value for a sentence."""
    if value is None:
        return "unknown"
    return "below 1e-12" if value < 1e-12 else f"{value:.1e}" if value < 0.001 else f"{value:.3f}"
