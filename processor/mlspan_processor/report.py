"""Stage 6, part 3: one model version's drift and quality over a window, for people and programs (JSON).

In: a Model and a time range. Out: plain dicts. Every figure that cannot be given is None, with the reason
beside it where a person would ask. The drift table is sorted by effect: the Jensen-Shannon distance less what
sampling alone would give.
"""

import math
from typing import Any

from mlspan_processor.model import Model
from mlspan_processor.quality import Classification, wilson
from mlspan_processor.quality.names import because
from mlspan_processor.window import OPEN_END


def report(model: Model, start: int | None, end: int | None) -> dict[str, Any]:
    """A model version's report; the trailing windows when neither start nor end is given.

    Args:
        model: the model version.
        start, end: nanoseconds since the epoch, or None for open.
    """
    return {
        "model": {"name": model.name, "version": model.version, "task": model.task, "classes": model.classes},
        "reference": _reference(model),
        "drift": _drift(model, start, end),
        "quality": _quality(model, start, end),
        "spans": model.spans,
        "rows": model.rows,
        "late_rows": model.late,
        "rows_ahead_of_time": model.ahead,
        "weight_unknown_ratio": model.unknown_weight / model.spans if model.spans else None,
        "unknown_features": model.unknown_features,
        "retyped_features": model.retyped_features,
    }


def status(model: Model) -> dict[str, Any]:
    """A model version's line in the list of models."""
    return {
        "name": model.name,
        "version": model.version,
        "task": model.task,
        "last_seen_ns": model.last_seen,
        "spans": model.spans,
        "rows": model.rows,
        "panes": len(model.drift),
        "quality_panes": len(model.quality),
        "reference": _reference(model),
        "bytes": model.nbytes,
    }


def _reference(model: Model) -> dict[str, Any]:
    if model.reference is None:
        learnt = model.learner.rows if model.learner else 0
        return {"state": "learning", "rows": learnt, "source": None, "performance": {}}
    profile = model.reference.profile
    return {
        "state": "ready",
        "rows": profile.rows,
        "source": profile.source,
        "performance": dict(profile.performance),
    }


def _drift(model: Model, start: int | None, end: int | None) -> dict[str, Any]:
    if model.reference is None:
        return {"reason": "the reference is still being learnt", "rows": 0, "features": []}
    counts, first, last = model.drift_window(start, end)
    drift = model.measure(counts)
    if drift is None:
        return {"reason": "no rows in the window", "rows": 0, "features": []}
    features = []
    for i, feature in enumerate(model.reference.features):
        is_input = i < model.reference.n_inputs
        finite = counts.finite[i] if is_input else 0.0
        row: dict[str, Any] = {
            "name": feature.name,
            "kind": "input" if is_input else feature.name.partition(" ")[0],
            "type": feature.type,
            "rows": float(drift.rows[i]),
            "effect": _number(drift.effect[i]),
            "p_value": _number(drift.p_value[i]),
            "p_adjusted": _number(drift.p_adjusted[i]),
            "missing": _number(drift.missing[i]),
            "reference_missing": _number(drift.reference_missing[i]),
            "unseen": _number(drift.unseen[i]),
            "mean": _number(counts.sums[i] / finite) if finite > 0 and feature.codes is None else None,
            "reference_mean": _number(feature.mean),
            "reference_std": _number(feature.std),
        }
        row.update({name: _number(scores[i]) for name, scores in drift.scores.items()})
        features.append(row)
    features.sort(key=lambda row: (row["effect"] is None, -(row["effect"] or 0.0)))
    return {
        "reason": "",
        "rows": counts.rows,
        "effective_rows": counts.rows * counts.effective_ratio,
        "start_ns": first or None,
        "end_ns": last if last < OPEN_END else None,
        "features": features,
    }


def _quality(model: Model, start: int | None, end: int | None) -> dict[str, Any]:
    quality, first, last = model.quality_window(start, end)
    figures = {
        name: {
            "value": _number(figure.value),
            "reason": because(figure.reason),
            "bound": figure.bound,
        }
        for name, figure in quality.figures().items()
    }
    result: dict[str, Any] = {
        "predicted_rows": quality.predicted,
        "labels": quality.rows,
        "coverage": quality.coverage,
        "start_ns": first or None,
        "end_ns": last if last < OPEN_END else None,
        "realised": figures,
        "accuracy_interval": None,
        "reference": dict(model.reference.profile.performance) if model.reference else {},
    }
    if isinstance(quality, Classification) and (accuracy := quality.figures()["accuracy"].value) is not None:
        result["accuracy_interval"] = list(wilson(accuracy, quality.effective))
    return result


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
