"""Batch, part 10c: have predictions, labels or features shifted, has the quality of the data fallen?

In: Evidence. Out: at most one alert of each kind, which names all columns that it is about, the largest effect first.
The judgement (significant, and large enough) is drift.judgement's; here it gets its words.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mlspan.profile import CATEGORICAL, FeatureProfile
from mlspan_processor.analysis.encode import Feature
from mlspan_processor.analysis.evidence import Evidence, p_text, text
from mlspan_processor.analysis.result import Alert, Severity
from mlspan_processor.drift.base import Floats
from mlspan_processor.drift.judgement import Limits
from mlspan_processor.drift.shares import risen

_LIMITS: Final = Limits()
_NAMED: Final = 5
"""Columns that a message names."""
_MORE_SILENT: Final = 0.1
_SILENT_LEVEL: Final = 1e-4
_GONE: Final = 0.99
"""Rows without an answer from which on the answers are gone."""


def column_alerts(evidence: Evidence) -> list[Alert | None]:
    """Alerts about predictions, labels, data quality and features."""
    judged, prepared = evidence.judged, evidence.prepared
    gone = [one for one in evidence.features if one.lost]
    if judged is None:
        return [_quality(evidence, [], [], gone, [])]
    n = prepared.n_inputs
    # Numbers beyond the reference's range are a shift of the feature, not bad data.
    outside = judged.unseen.drifted & prepared.layout.numeric
    moved = [j for j in _by_effect(judged.values.effect, judged.values.drifted | outside) if j < n]
    moved_answers = [n + i for i in range(len(prepared.answers)) if judged.drifted[n + i]]
    moved_answers.sort(key=lambda j: -float(np.nan_to_num(judged.effect[j])))
    labels = [j for j in moved_answers if prepared.answers[j - n].role == "label"]
    answers = [j for j in moved_answers if j not in labels]
    return [
        _answers(evidence, answers),
        # Outcomes that move with the predictions are one fact, and it was told.
        None if answers else _labels(evidence, labels),
        _quality(
            evidence,
            [j for j in _by_effect(judged.missing.effect, judged.missing.drifted) if j < n],
            [j for j in _by_effect(judged.unseen.effect, judged.unseen.drifted & ~outside) if j < n],
            gone,
            _silent(evidence),
        ),
        _features(evidence, moved),
    ]


def _by_effect(effect: Floats, drifted: NDArray[np.bool_]) -> list[int]:
    found = np.flatnonzero(drifted)
    return [int(j) for j in found[np.argsort(-np.nan_to_num(effect[found]), kind="stable")]]


def _answers(evidence: Evidence, places: Sequence[int]) -> Alert | None:
    """Predictions that have shifted, else scores; of several outputs that with the largest effect is told."""
    n, answers = evidence.prepared.n_inputs, evidence.prepared.answers
    said = [j for j in places if answers[j - n].role == "prediction"]
    what = "predictions" if said else "probabilities"
    return _told("prediction_drift", what, evidence, said or places, [*said, *(j for j in places if j not in said)])


def _labels(evidence: Evidence, places: Sequence[int]) -> Alert | None:
    return _told("label_drift", "labels", evidence, places, places)


def _told(kind: Any, what: str, evidence: Evidence, first: Sequence[int], places: Sequence[int]) -> Alert | None:
    judged, prepared = evidence.judged, evidence.prepared
    if not first or judged is None:
        return None
    j = first[0]
    effect, p = float(judged.effect[j]), float(judged.p_adjusted[j])
    before, now, told = _moved(evidence, j)
    output = prepared.answers[j - prepared.n_inputs].output
    of = "" if output is None else f" of {evidence.sample.classes[output]}"
    message = f"{what}{of} have shifted: {told} (effect {text(effect)}, p {p_text(p)})"
    if len(first) > 1:
        message += f"; those of {len(first) - 1} more outputs have" if len(first) > 2 else "; those of another have"
    subject = ", ".join(prepared.profiles[place].name for place in places)
    return Alert(kind, "warning", subject, message, now, before, effect, p)


def _features(evidence: Evidence, moved: list[int]) -> Alert | None:
    judged = evidence.judged
    if not moved or judged is None:
        return None
    names = [evidence.prepared.profiles[j].name for j in moved]
    told = [
        f"{name} (effect {text(judged.values.effect[j])}, {_moved(evidence, j)[2]})"
        for name, j in list(zip(names, moved, strict=True))[:_NAMED]
    ]
    more = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    some = "1 feature has" if len(moved) == 1 else f"{len(moved)} features have"
    first = moved[0]
    before, now, _ = _moved(evidence, first)
    return Alert(
        "feature_drift",
        "warning",
        ", ".join(names),
        f"{some} shifted, of {evidence.prepared.n_inputs}: {', '.join(told)}{more}",
        now,
        before,
        float(judged.values.effect[first]),
        float((judged.values if judged.values.drifted[first] else judged.unseen).p_adjusted[first]),
    )


class _Silent(NamedTuple):
    """Predictions or probabilities that many more rows lack than in the reference, or labels that say nothing."""

    name: str
    now: float
    before: float
    p: float
    told: str


def _silent(evidence: Evidence) -> list[_Silent]:
    """Answers that are gone, unusable, or missing more often by _MORE_SILENT, beyond chance."""
    prepared, found = evidence.prepared, []
    for j, answer in enumerate(prepared.answers, prepared.n_inputs):
        if answer.role == "label":
            continue  # they may come later
        start = int(prepared.layout.starts[j])
        # Rows without an answer are counted nowhere.
        cells = slice(start, start + prepared.profiles[j].n_cells - 1)
        now, before = (
            1 - float(counts[cells].sum() / rows.weights.sum())
            for counts, rows in ((evidence.counts, evidence.sample), (prepared.layout.reference, prepared.sample))
        )
        if now - before < _MORE_SILENT:
            continue
        n, m = (len(rows) / float(prepared.dependence[j]) for rows in (evidence.sample, prepared.sample))
        pooled = (now * n + before * m) / (n + m)
        error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        p = float(ndtr((before - now) / error)) if error > 0 else 0.0
        if p < _SILENT_LEVEL:
            name = prepared.profiles[j].name
            found.append(_Silent(name, now, before, p, f"{now:.1%} of the rows have no {name}, was {before:.1%}"))
    return found + _strange(evidence)


def _strange(evidence: Evidence) -> list[_Silent]:
    """Labels of classes that neither the reference nor the model knows: more than new rows always bring."""
    prepared, unused = evidence.prepared, evidence.unused
    share = unused.strange / max(1, unused.labels)
    if unused.labels < _LIMITS.min_rows or share < _LIMITS.min_share:
        return []
    label = next((j for j, one in enumerate(prepared.answers, prepared.n_inputs) if one.role == "label"), None)
    dependence = 1.0 if label is None else float(prepared.dependence[label])
    known = prepared.sample.labels[~np.isnan(prepared.sample.labels)]
    # Good's estimate of what is yet to be seen: the classes that were seen once.
    once = int((np.unique(known, return_counts=True)[1] == 1).sum())
    rows = len(known) or len(prepared.sample)
    p = float(risen(unused.strange / dependence, unused.labels / dependence, once, rows))
    told = f"{share:.1%} of the labels are of classes that neither the reference nor the model knows ({unused.classes})"
    return [_Silent("label", share, 0.0, p, told)] if p < _SILENT_LEVEL else []


def _quality(
    evidence: Evidence, missing: list[int], unseen: list[int], gone: Sequence[Feature], silent: Sequence[_Silent]
) -> Alert | None:
    """Columns that are gone or changed, answers that are, shares of missing and of unseen values."""
    if not (missing or unseen or gone or silent):
        return None
    parts = [one.told for one in silent[:_NAMED]]
    if silent and evidence.unused.probabilities:
        parts.append(evidence.unused.probabilities.removeprefix("undecidable, because "))
    parts += [f"{one.name}: {one.reason.removeprefix('undecidable, because ')}" for one in gone[:_NAMED]]
    names = [one.name for one in silent] + [one.name for one in gone]
    judged, profiles = evidence.judged, evidence.prepared.profiles
    value = before = effect = p = None
    if silent:
        value, before, p = silent[0].now, silent[0].before, silent[0].p
        effect = value - before
    for verdict, places, what in (
        (None if judged is None else judged.missing, missing, "missing"),
        (None if judged is None else judged.unseen, unseen, "never seen in the reference"),
    ):
        for j in places:
            assert judged is not None
            assert verdict is not None
            now = float((judged.drift.missing if what == "missing" else judged.drift.unseen)[j])
            was = float(judged.drift.reference_missing[j]) if what == "missing" else 0.0
            if value is None:
                value, before, effect, p = now, was, now - was, float(verdict.p_adjusted[j])
            names.append(profiles[j].name)
            if len(parts) < _NAMED:
                parts.append(f"{now:.1%} of {profiles[j].name} is {what}" + (f", was {was:.1%}" if was else ""))
    names = list(dict.fromkeys(names))
    more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    severity: Severity = "critical" if gone or any(one.now > _GONE for one in silent) else "warning"
    return Alert("data_quality", severity, ", ".join(names), "; ".join(parts) + more, value, before, effect, p)


def _moved(evidence: Evidence, j: int) -> tuple[float | None, float | None, str]:
    """What was and is: the mean of numbers, or their share out of range where that is all there is; the share of
    the category that moved most; and a phrase with both."""
    layout, judged = evidence.prepared.layout, evidence.judged
    assert judged is not None
    profile: FeatureProfile = evidence.prepared.profiles[j]
    cells = slice(int(layout.starts[j]), int(layout.starts[j]) + profile.n_cells - 1)
    before, now = layout.reference[cells], evidence.counts[cells]
    if not before.sum() > 0 or not now.sum() > 0:
        return None, None, "no values"
    before, now = before / before.sum(), now / now.sum()
    if profile.type != CATEGORICAL and not layout.boolean[j]:
        if judged.unseen.drifted[j] and not judged.values.drifted[j]:
            range_ = f"the reference's {text(profile.min)} to {text(profile.max)}"
            return 0.0, float(judged.drift.unseen[j]), f"{judged.drift.unseen[j]:.1%} are outside {range_}"
        centers = np.asarray(layout.centers[cells])
        was, is_ = float(before @ centers), float(now @ centers)
        spread_was, spread = (float(np.sqrt(max(0.0, p @ (centers - p @ centers) ** 2))) for p in (before, now))
        if abs(is_ - was) >= abs(spread - spread_was):
            return was, is_, f"mean {text(was)} to {text(is_)}"
        return was, is_, f"spread {text(spread_was)} to {text(spread)}"
    k = int(np.argmax(np.abs(now - before)))
    return float(before[k]), float(now[k]), f"share of {_category(profile, k)} {before[k]:.1%} to {now[k]:.1%}"


def _category(profile: FeatureProfile, k: int) -> str:
    if profile.codes is None:
        return "true" if k == len(profile.counts) - 3 else "other values"
    if k < len(profile.codes):
        text = profile.labels[k] if profile.labels is not None else ""
        return f'"{text}"' if text else f"code {profile.codes[k]:08x}"
    return "other categories" if k == len(profile.codes) else "unseen categories"
