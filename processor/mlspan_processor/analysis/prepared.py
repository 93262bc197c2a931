"""Batch, part 8: all that is known of the reference before a window is looked at.

In: the reference's Sample (at most 200,000 rows) and its answers in full. Out: a Prepared: the cells of features and
answers, their design effect, the multivariate detector, the estimator, the realised performance. Memory: the sample and
one float64 copy of a column at a time; the estimator keeps what it keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan.profile import FeatureProfile, build_profile, cells_of
from mlspan_processor.analysis.answer_profiles import Answer, answer_cells, answer_profiles
from mlspan_processor.analysis.answered import missing
from mlspan_processor.analysis.levels import MULTIVARIATE_LEVEL
from mlspan_processor.analysis.result import Group
from mlspan_processor.analysis.segmenting import groups_of
from mlspan_processor.analysis.truth import Truth, truth_of
from mlspan_processor.drift import Layout
from mlspan_processor.drift.dependence import design_effect
from mlspan_processor.drift.multivariate import Multivariate, MultivariateJudgement
from mlspan_processor.estimate import Estimate, Estimator
from mlspan_processor.quality.custom import CustomMetrics
from mlspan_processor.quality.runs import Runs
from mlspan_processor.sample import Sample

MAX_ROWS: Final = 200_000
"""Reference rows that distributions rest on; a uniform sample of a longer reference."""
MIN_ROWS: Final = 100
MAX_NEIGHBOURS: Final = 100_000
"""Rows in a row that tell how much they depend on each other."""


@dataclass(slots=True, eq=False)
class Prepared:
    """The reference, laid out for windows.

    Attributes:
        sample: its rows.
        truth: its performance, from all of its labels.
        profiles: of the features, then of the answers that it has; `layout` their cells.
        answers: what the latter are of.
        segments: its performance by segment column and value.
        dependence: (n_profiles,) design effect of the reference's rows.
        reason: why no window can be compared with it; "" where it can.
    """

    sample: Sample
    truth: Truth
    segments: Mapping[str, Mapping[str, Group]]
    profiles: tuple[FeatureProfile, ...]
    answers: tuple[Answer, ...]
    layout: Layout
    dependence: NDArray[np.float64]
    loss_dependence: float
    reason: str
    _multivariate: Multivariate | None
    _estimator: Estimator | None

    @property
    def n_inputs(self) -> int:
        """Profiles that are features."""
        return len(self.profiles) - len(self.answers)

    def counts(self, sample: Sample) -> NDArray[np.float64]:
        """(n_cells,) weighted counts of a window; rows without an answer are not counted with the answers."""
        weights = None if (sample.weights == 1.0).all() else sample.weights
        parts = [
            np.bincount(self._column(sample, j), weights, profile.n_cells).astype(np.float64)
            for j, profile in enumerate(self.profiles)
        ]
        for part in parts[self.n_inputs :]:
            part[-1] = 0.0
        return np.concatenate([np.zeros(0), *parts])

    def neighbours(self, sample: Sample) -> NDArray[np.float64]:
        """(n_profiles,) design effect of a window's rows, from `MAX_NEIGHBOURS` of them that are next to each other."""
        some = sample.take(slice(0, MAX_NEIGHBOURS)) if len(sample) > MAX_NEIGHBOURS else sample
        cells = np.empty((len(self.profiles), len(some)), np.int32)
        for j in range(len(self.profiles)):
            cells[j] = self._column(some, j) + self.layout.starts[j]
        return design_effect(self.layout, cells)

    def _column(self, sample: Sample, j: int) -> NDArray[np.intp]:
        """(n_rows,) cells of one profile; an answer that a row lacks is in the missing one."""
        profile = self.profiles[j]
        if j < self.n_inputs:
            bits = sample.cells[j]
            return cells_of(profile, bits if profile.codes is not None else bits.view(np.float32))
        return answer_cells(sample, self.answers[j - self.n_inputs], profile)

    def estimates(self, window: Sample) -> dict[str, Estimate]:
        """Estimated performance of a window by metric; empty without an estimator."""
        return self._estimator.estimate(window) if self._estimator is not None else {}

    def joint(self, window: Sample) -> MultivariateJudgement:
        """The features of a window together."""
        if self._multivariate is None:
            why = self.reason or "undecidable, because there are fewer than two features to look at together"
            return MultivariateJudgement(None, None, None, False, why)
        return self._multivariate.judge(window, MULTIVARIATE_LEVEL)


def prepare(
    sample: Sample,
    everything: Sample,
    texts: Mapping[str, Mapping[int, str]],
    model: bool,
    custom: CustomMetrics | None = None,
) -> Prepared:
    """Look at the reference.

    Args:
        sample: the rows that distributions and estimates rest on.
        everything: all rows, without features.
        texts: readable categories by feature.
        model: whether there is a model to speak of, with predictions.
        custom: the user's own metrics.
    """
    features = build_profile(np.ascontiguousarray(sample.cells.T), sample.names, sample.types, labels=texts).features
    answered = answer_profiles(sample)
    profiles = (*features, *(profile for _, profile in answered))
    layout = Layout(profiles)
    few = len(sample) < MIN_ROWS
    reason = f"undecidable, because the reference has {len(sample)} rows; {MIN_ROWS} are needed" if few else ""
    prepared = Prepared(
        sample,
        truth_of(everything, custom) if model else Truth(),
        groups_of(everything, {}) if model else {},
        profiles,
        tuple(answer for answer, _ in answered),
        layout,
        np.ones(len(profiles)),
        loss_dependence(everything),
        reason,
        Multivariate.fit(sample) if len(sample.names) > 1 and not few else None,
        Estimator.fit(sample) if model else None,
    )
    if profiles and not few:
        prepared.dependence = prepared.neighbours(sample)
    return prepared


def loss_dependence(sample: Sample) -> float:
    """Design effect of the rows' losses, in their order: how much longer the bands of performance have to be.

    Runs of hundreds of rows are looked for where a column of times says that the order means something.
    """
    known = ~missing(sample.labels) & ~missing(sample.predictions)
    if sample.task == "regression":
        losses = np.abs(sample.labels[known] - sample.predictions[known])
    else:
        wrong = (sample.labels[known] != sample.predictions[known]).astype(np.float64)
        losses = wrong if wrong.ndim == 1 else wrong.mean(axis=1)
    if len(losses) < MIN_ROWS or losses.min() == losses.max():
        return 1.0
    profile = build_profile(losses.astype(np.float32)[:, None], ["loss"], ["numeric"]).features
    cells = cells_of(profile[0], losses.astype(np.float32))
    effect = float(design_effect(Layout(profile), cells[None, :].astype(np.int32))[0])
    if sample.times is not None:
        runs = Runs()
        runs.add(losses[np.isfinite(losses)].astype(np.float64))
        effect = max(effect, runs.design_effect)
    return effect
