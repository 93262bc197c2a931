"""Stage 5: from counts to a judgement, in two gates: is the difference real, and is it large enough to matter?

In: a Table (features, then the model's answers: they are features of the layout like the others; labels likewise).
Out: a Judgement: p-values, effects and flags of every feature, for three questions kept apart: have its *values*
shifted, has its share of *missing* values, are there more *unseen* values than new rows always bring?
Gate 1, significance: each feature's tests share its level by fixed weights, Benjamini-Hochberg over features. Without
drift at most a share `level` of windows raises anything, at every number of rows, reference noise included; rows that
depend on their neighbours count for fewer (`dependence`).
Gate 2, effect: values, in standard deviations (`effect.shift_of`): .07 is a mean that moved by .07 sd, a spread
that grew by 5 %, or a category that went from 20 % to 23 % of rows; missing and unseen, in shares of rows. What
sampling alone is expected to give is taken off, so that effects of small and large windows compare.
Undecidable, with the reason instead of a number: too few rows, or a reference of fewer than 100. A constant that takes
another value, and a feature whose values all went missing, are decided. Source: Benjamini & Hochberg, J. R. Stat. Soc.
B 57, 1995; Cohen, Statistical Power Analysis, 1988 (w); Good, Biometrika 40, 1953 (unseen categories).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlspan_processor.drift import Drift, adjusted, measure
from mlspan_processor.drift.base import Floats, Layout, Table
from mlspan_processor.drift.combine import joined
from mlspan_processor.drift.dependence import MAX_REFERENCE_DEPENDENCE, of_window
from mlspan_processor.drift.effect import shift_of
from mlspan_processor.drift.shape import shape_p
from mlspan_processor.drift.shares import TINY, beyond_extreme, differs, risen

QUESTION_WEIGHTS: Final = (0.9, 0.05, 0.05)
"""Of a feature's level: values, missing, unseen. The last two are single changes that show themselves in a few rows."""
_QUESTIONS: Final = ("values", "missing", "unseen")


@dataclass(frozen=True, slots=True)
class Limits:
    """What it takes to raise something.

    Attributes:
        level: share of windows without drift that may raise anything, over all features and answers. With the
            multivariate detector's it is a third of 1 %, so that of any 1,000 windows hardly ever more than ten do.
        min_effect: smallest shift of values that matters, in standard deviations.
        min_share: smallest change of the share of missing or unseen values that matters.
        min_rows, min_reference_rows: fewer (effective) rows decide nothing.
        multivariate_level: the same of `multivariate.Multivariate`, on top.
    """

    level: float = 0.003
    min_effect: float = 0.07
    min_share: float = 0.005
    min_rows: int = 30
    min_reference_rows: int = 100
    multivariate_level: float = 0.0005


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The answer to one question for every feature; arrays (n_features,), NaN where undecidable.

    Attributes:
        p_value: of this question's test alone.
        p_adjusted: corrected over questions and features; significant where at most the level.
        effect: in standard deviations (values), or change of the share of rows (missing, unseen), less what is expected
            without drift.
        drifted: both gates passed.
    """

    p_value: Floats
    p_adjusted: Floats
    effect: Floats
    drifted: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What is to be said of a window; arrays (n_features,), NaN where undecidable.

    Attributes:
        drift: the distances.
        values, missing, unseen: the three questions.
        p_value: of each feature, its questions joined; `p_adjusted` over features.
        effect: of the values.
        drifted: any of the three.
        material: the second gate alone, for any of the three.
        reasons: "" or why nothing was decided of the feature.
        names: the features.
        rows, reference_rows: (n_features,) effective rows, dependence taken off.
    """

    drift: Drift
    values: Verdict
    missing: Verdict
    unseen: Verdict
    p_value: Floats
    p_adjusted: Floats
    effect: Floats
    drifted: NDArray[np.bool_]
    material: NDArray[np.bool_]
    reasons: tuple[str, ...]
    names: tuple[str, ...]
    rows: Floats
    reference_rows: Floats

    @property
    def any(self) -> bool:
        """Whether anything is raised."""
        return bool(self.drifted.any())

    def causes(self, feature: int) -> tuple[str, ...]:
        """Which questions a feature is raised for."""
        return tuple(name for name in _QUESTIONS if getattr(self, name).drifted[feature])


def judge(
    table: Table,
    limits: Limits = DEFAULT_LIMITS,
    dependence: float | Floats = 1.0,
    reference_dependence: float | Floats | None = None,
) -> Judgement:
    """Judge a window.

    Args:
        table: reference and window.
        limits: what it takes.
        dependence: design effect of the window's rows, one for all or (n_features,): from `dependence`. Of windows
            of fewer than 1,000 rows, which may not show it, at least the reference's.
        reference_dependence: of the reference's; None where it is not known: taken to be as the window's, and in any
            case at most MAX_REFERENCE_DEPENDENCE.
    """
    layout = table.layout
    drift = measure(table)
    reference = dependence if reference_dependence is None else reference_dependence
    own = of_window(dependence, reference, table.window_rows)
    whole = table.window_rows / own, table.reference_rows / np.minimum(reference, MAX_REFERENCE_DEPENDENCE)
    reasons = _reasons(table, limits, drift)
    decided = np.array([not reason for reason in reasons], bool)
    present = tuple(
        rows * (1 - np.nan_to_num(share))
        for rows, share in zip(whole, (drift.missing, drift.reference_missing), strict=True)
    )
    n, m = present
    p_missing = differs(drift.missing * whole[0], whole[0], drift.reference_missing * whole[1], whole[1])
    # Where nothing is missing on either side there is nothing to see, and its part of the level goes to the values.
    any_missing = (np.nan_to_num(drift.missing) > 0) | (np.nan_to_num(drift.reference_missing) > 0)
    p_unseen, expected_unseen = _unseen(table, n, m)
    raw = np.stack([shape_p(table, n, m), np.where(any_missing, p_missing, np.nan), p_unseen])
    raw[:, ~decided] = np.nan
    weights = np.repeat(np.array(QUESTION_WEIGHTS)[:, None], len(layout), axis=1)
    weights[0] += np.where(any_missing, 0.0, weights[1])
    weights[1] = np.where(any_missing, weights[1], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weighted = np.where(np.isnan(raw), np.nan, raw / weights)
    p = np.fmin.reduce(weighted, axis=0, initial=np.inf) if len(layout) else np.zeros(0)
    p = np.where(np.isfinite(p), np.minimum(p, 1.0), np.nan)
    p_adjusted = adjusted(p)
    # A question's own adjusted value: its feature's, raised by as much as it is weaker than the feature's best.
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.minimum(weighted / np.maximum(p, TINY) * p_adjusted, 1.0)
    decided_share = np.where(decided, 1.0, np.nan)
    effects = (
        shift_of(table, n, m, expected_unseen) * decided_share,
        (drift.missing - drift.reference_missing) * decided_share,
        (drift.unseen - expected_unseen) * decided_share,
    )
    smallest = limits.min_effect, limits.min_share, limits.min_share
    with np.errstate(invalid="ignore"):
        large = [np.abs(effect) >= least for effect, least in zip(effects, smallest, strict=True)]
        drifted = [(one <= limits.level) & enough for one, enough in zip(each, large, strict=True)]
    values, missing, unseen = map(Verdict, raw, each, effects, drifted)
    return Judgement(
        drift,
        values,
        missing,
        unseen,
        p_value=p,
        p_adjusted=p_adjusted,
        effect=effects[0],
        drifted=np.logical_or.reduce(drifted),
        material=np.logical_or.reduce(large),
        reasons=reasons,
        names=layout.names,
        rows=whole[0],
        reference_rows=whole[1],
    )


def _reasons(table: Table, limits: Limits, drift: Drift) -> tuple[str, ...]:
    reasons = []
    nothing = (drift.missing == 1) & (drift.reference_missing == 1)
    columns = (table.window_rows.tolist(), table.reference_rows.tolist(), nothing.tolist())
    for rows, reference, empty in zip(*columns, strict=True):
        if reference < limits.min_reference_rows:
            need = limits.min_reference_rows
            reasons.append(f"undecidable, because the reference has {reference:.0f} rows, fewer than {need}")
        elif rows < limits.min_rows:
            need = limits.min_rows
            reasons.append(f"undecidable, because the window has {rows:.0f} rows, fewer than {need}")
        else:
            reasons.append("undecidable, because all values are missing" if empty else "")
    return tuple(reasons)


def _unseen(table: Table, n: Floats, m: Floats) -> tuple[Floats, Floats]:
    """P-values and the expected shares of unseen values (n_features,)."""
    layout = table.layout
    if not len(layout):
        return np.zeros(0), np.zeros(0)
    present = layout.by_feature(table.present()[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(n / present)
        reference_ratio = np.nan_to_num(m / layout.by_feature(table.present()[0]))
    first, last = layout.starts, layout.missing - 1
    # Only infinities lie beyond the reference's own range: what it has of them is no news.
    infinite = np.stack([layout.reference[at] * reference_ratio for at in (first, last)])
    sides = np.stack(
        [
            np.where(known > 0, risen(found, n, known, m), beyond_extreme(found, n, m))
            for known, found in zip(infinite, [table.window[at] * ratio for at in (first, last)], strict=True)
        ]
    )
    numbers = joined(sides, np.full((2, 1), 0.5))
    once, twice = _rare(layout, reference_ratio)
    # A category that the reference has once is one that a new row would not find there; Esty's variance of their share.
    trust = (once + 1) / (once + 1 + 2 * twice)
    categories = risen(table.window[last] * ratio, n, (once + 1) * trust, np.maximum(m, once + 1) * trust)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(layout.numeric, 2 / (m + 1) + infinite.sum(axis=0) / m, np.minimum(once / m, 1.0))
    unseen = np.where(layout.numeric, numbers, categories)
    # Without a value there is no range to lie out of; booleans have all the values there are.
    return np.where((n > 0) & (m > 0), unseen, np.nan), np.nan_to_num(expected, posinf=1.0)


def _rare(layout: Layout, ratio: Floats) -> tuple[Floats, Floats]:
    """Categories (n_features,) that the reference has once, and twice, in effective rows."""
    counts = layout.reference * ratio[layout.feature]
    usable = ~layout.numeric[layout.feature] & ~layout.is_missing & ~layout.is_unseen
    once = layout.by_feature((usable & (counts > 0) & (counts < 1.5)).astype(np.float64))
    return once, layout.by_feature((usable & (counts >= 1.5) & (counts < 2.5)).astype(np.float64))


def summary(judgement: Judgement, feature: int) -> dict[str, Any]:
    """One feature's figures by name, None where undecidable, for reports and JSON."""
    figures: dict[str, Any] = {name: _number(scores[feature]) for name, scores in judgement.drift.scores.items()}
    figures.update(
        p_value=_number(judgement.p_value[feature]),
        p_adjusted=_number(judgement.p_adjusted[feature]),
        effect=_number(judgement.effect[feature]),
        drifted=bool(judgement.drifted[feature]),
        causes=list(judgement.causes(feature)),
        missing=_number(judgement.drift.missing[feature]),
        reference_missing=_number(judgement.drift.reference_missing[feature]),
        unseen=_number(judgement.drift.unseen[feature]),
    )
    if judgement.reasons[feature]:
        figures["reason"] = judgement.reasons[feature]
    return figures


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
