"""Batch, part 9: one window against the reference.

In: a Prepared and the window's rows. Out: a Window with everything but its place in the file. The judgement itself is
that of the other stages: drift.judgement for columns, drift.multivariate for all of them together, estimate for
performance without labels, quality.realised with them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.analysis.alerts import alerts_of
from mlspan_processor.analysis.answer_profiles import ROLES, Answer
from mlspan_processor.analysis.answered import Unused
from mlspan_processor.analysis.encode import Feature
from mlspan_processor.analysis.evidence import Evidence
from mlspan_processor.analysis.levels import COLUMNS_LEVEL
from mlspan_processor.analysis.prepared import Prepared, loss_dependence
from mlspan_processor.analysis.result import ColumnDrift, Metric, Moment, Multivariate, Window, number
from mlspan_processor.analysis.segmenting import fairness_of, groups_of
from mlspan_processor.analysis.truth import Truth, truth_of
from mlspan_processor.drift import Table
from mlspan_processor.drift.judgement import Judgement, Limits, judge
from mlspan_processor.estimate import Estimate
from mlspan_processor.quality.custom import CustomMetrics
from mlspan_processor.quality.names import because
from mlspan_processor.quality.realised import OF_SCORES, Realised
from mlspan_processor.sample import Sample

LIMITS: Final = Limits(level=COLUMNS_LEVEL)
MAX_ESTIMATED: Final = 100_000
"""Rows of a window that estimates and the multivariate detector rest on."""
_NUMBERS_ONLY: Final = "undecidable, because the column holds no numbers"
_CONSTANT: Final = "undecidable, because the reference is constant"


@dataclass(frozen=True, slots=True)
class Context:
    """What is the same for all windows.

    Attributes:
        features: all of them, those that cannot be compared with their reason.
        scores_reason: why a metric of probabilities cannot be had.
        no_estimate: why nothing is estimated, "" where it is.
        custom: the user's own metrics.
        predictions_reason: why no other metric can be had, where predictions follow from probabilities.
    """

    features: tuple[Feature, ...]
    has_model: bool
    scores_reason: str = ""
    no_estimate: str = ""
    custom: CustomMetrics | None = None
    predictions_reason: str = ""

    def of(self, unused: Unused) -> "Context":
        """That of one window."""
        if not unused.probabilities:
            return self
        return replace(
            self,
            scores_reason=unused.probabilities,
            no_estimate=self.no_estimate or unused.probabilities,
            predictions_reason=unused.probabilities if unused.derived else "",
        )


def judge_window(
    prepared: Prepared,
    context: Context,
    unused: Unused,
    sample: Sample,
    everything: Sample,
    start: Moment,
    end: Moment,
) -> Window:
    """Judge one window.

    Args:
        prepared: the reference.
        context: see Context.
        unused: what of its answers cannot be used.
        sample: the window's rows with their features, a uniform sample of very many.
        everything: all of its rows, without features.
        start, end: of the window.
    """
    context = context.of(unused)
    counts = prepared.counts(sample)
    judged = _columns(prepared, sample, counts)
    fewer = _fewer(sample)
    truth = truth_of(everything, context.custom) if context.has_model else Truth()
    estimates = prepared.estimates(fewer) if context.has_model and not context.no_estimate else {}
    metrics = _metrics(prepared, context, truth.realised, estimates)
    joint = prepared.joint(fewer)
    multivariate = Multivariate(
        number(joint.statistic),
        number(joint.p_value),
        number(joint.effect),
        bool(joint.drifted) if joint.p_value is not None else None,
        joint.reason,
    )
    drift = {key: _drift(prepared, judged, j) for j, key in enumerate(_keys(prepared))}
    inputs = {
        one.name: drift.pop(one.name) if not one.reason else ColumnDrift(one.type, reason=one.reason)
        for one in context.features
    }
    several = range(len(sample.classes)) if sample.task == "multilabel" else ()
    answers = {name: drift.get(Answer(name), _absent(prepared, name, bool(several))) for name in ROLES}
    outputs = {
        sample.classes[k]: {name: drift.get(Answer(name, k), _absent(prepared, name)) for name in ROLES}
        for k in several
    }
    segments = groups_of(everything, prepared.segments) if context.has_model else {}
    evidence = Evidence(
        prepared,
        sample,
        metrics,
        truth,
        judged,
        counts,
        multivariate,
        context.features,
        max(prepared.loss_dependence, loss_dependence(everything)) if context.has_model else 1.0,
        segments,
        unused,
    )
    return Window(
        start=start,
        end=end,
        rows=len(everything),
        sampled_rows=len(sample),
        metrics=metrics,
        features=inputs,
        prediction=answers["prediction"],
        score=answers["score"],
        label=answers["label"],
        outputs=outputs,
        multivariate=multivariate,
        segments=segments,
        fairness=fairness_of(everything) if context.has_model else {},
        calibration=truth.reliability,
        alerts=alerts_of(evidence),
    )


def _columns(prepared: Prepared, sample: Sample, counts: NDArray[np.float64]) -> Judgement | None:
    """Drift of every column; None where there is none or the reference is too small."""
    if prepared.reason or not len(prepared.layout):
        return None
    table = Table.of(prepared.layout, counts, _ratio(sample), _ratio(prepared.sample))
    return judge(table, LIMITS, prepared.neighbours(sample), prepared.dependence)


def _fewer(sample: Sample) -> Sample:
    """The sample, or every k-th row of a large one, for what holds its rows as float64."""
    return sample if len(sample) <= MAX_ESTIMATED else sample.take(slice(None, None, -(-len(sample) // MAX_ESTIMATED)))


def _ratio(sample: Sample) -> float:
    squares = float(sample.weights @ sample.weights)
    return float(sample.weights.sum()) / squares if squares else 1.0


def _keys(prepared: Prepared) -> Iterable[str | Answer]:
    """A key for each profile: features and answers may have equal names."""
    yield from (profile.name for profile in prepared.profiles[: prepared.n_inputs])
    yield from prepared.answers


def _absent(prepared: Prepared, name: str, several: bool = False) -> ColumnDrift:
    if several:
        return ColumnDrift(reason="undecidable, because there are several outputs, each with a drift of its own")
    reasons = {
        "prediction": "no predictions in the reference",
        "score": "no probabilities in the reference",
        "label": "no labels in the reference",
    }
    return ColumnDrift(reason=prepared.reason or f"undecidable, because there are {reasons[name]}")


def _drift(prepared: Prepared, judged: Judgement | None, j: int) -> ColumnDrift:
    profile = prepared.profiles[j]
    if judged is None:
        return ColumnDrift(profile.type, reason=prepared.reason)
    drift = judged.drift
    scores = {name: number(values[j]) for name, values in drift.scores.items()}
    reason = judged.reasons[j]
    undecided = not np.isfinite(judged.p_value[j])
    if drift.missing[j] == drift.reference_missing[j] == 1:
        return ColumnDrift(profile.type, missing=1.0, reference_missing=1.0, reason=reason)
    if not reason and None in (scores["ks"], scores["wasserstein"]):
        constant = profile.codes is None and not profile.std > 0
        reason = f"wasserstein: {_CONSTANT}" if constant else f"ks, wasserstein: {_NUMBERS_ONLY}"
    return ColumnDrift(
        type=profile.type,
        psi=scores["psi"],
        js=scores["jensen_shannon"],
        ks=scores["ks"],
        wasserstein=scores["wasserstein"],
        chi2=scores["chi2"],
        p_value=number(judged.p_value[j]),
        p_adjusted=number(judged.p_adjusted[j]),
        effect=number(judged.effect[j]),
        drifted=None if undecided else bool(judged.drifted[j]),
        missing=number(drift.missing[j]),
        reference_missing=number(drift.reference_missing[j]),
        unseen=number(drift.unseen[j]),
        reason=reason,
    )


def _metrics(
    prepared: Prepared, context: Context, truth: Mapping[str, Realised], estimates: Mapping[str, Estimate]
) -> dict[str, Metric]:
    names = list(dict.fromkeys([*truth, *estimates]))
    none = Estimate(None, None, None, context.no_estimate or "undecidable, because this is not estimated")
    result = {}
    for name in names:
        real, estimate = truth.get(name), estimates.get(name, none)
        before = prepared.truth.realised.get(name)
        value = None if real is None else number(real.value)
        reasons = []
        if value is None:
            why = because(real.reason if real is not None else "it is not measured")
            if told := context.scores_reason if name in OF_SCORES else context.predictions_reason:
                why = because(told)
            reasons.append(f"realised: {why}")
        if number(estimate.value) is None:
            reasons.append(f"estimated: {estimate.reason}")
        result[name] = Metric(
            realised=value,
            estimated=number(estimate.value),
            low=number(estimate.low),
            high=number(estimate.high),
            labels=0 if real is None else int(real.labels),
            realised_low=None if real is None else number(real.low),
            realised_high=None if real is None else number(real.high),
            reference=None if before is None else number(before.value),
            reference_low=None if before is None else number(before.low),
            reference_high=None if before is None else number(before.high),
            method=estimate.method,
            reason="; ".join(reasons),
        )
    return result
