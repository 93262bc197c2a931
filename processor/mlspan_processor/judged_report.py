"""Stage 6, part 3, for the report: what is judged of a model version, JSON-able.

In: what is watched (monitors/watch.py), incidents. Out: verdicts on the last closed window, estimated beside realised
performance window by window, how the test of risk stands. What cannot be said is None with the reason beside it.
"""

from typing import Any, Final

from mlspan_processor.model import Model
from mlspan_processor.monitors.groups import fairness_report
from mlspan_processor.monitors.watch import Watch
from mlspan_processor.monitors.words import describe, finite
from mlspan_processor.quality.bands import bands
from mlspan_processor.quality.names import because

WINDOWS: Final = 20
"""Of estimates that are shown, the newest."""
_QUANTILES: Final = (0.5, 0.95)


def judged(model: Model, watch: Watch | None) -> dict[str, Any]:
    """Verdicts on a model version."""
    if watch is None:
        return {"drift": None, "performance": None, "segments": [], "fairness": {}}
    return {
        "drift": _drift(watch),
        "performance": _performance(model, watch),
        "segments": _segments(watch),
        "fairness": fairness_report(watch.fairness),
    }


def _drift(watch: Watch) -> dict[str, Any] | None:
    window, reference = watch.drift, watch.model.reference
    if window is None or reference is None or len(window.judgement.effect) != len(reference.features):
        return None
    judgement = window.judgement
    features: list[dict[str, Any]] = [
        {
            "name": feature.name,
            "drifted": bool(judgement.drifted[j]),
            "causes": list(judgement.causes(j)),
            "effect": finite(judgement.effect[j]),
            "p_adjusted": finite(judgement.p_adjusted[j]),
            "message": describe(_metric(judgement.causes(j)), window, reference, j) if judgement.drifted[j] else "",
            "reason": judgement.reasons[j],
        }
        for j, feature in enumerate(reference.features)
    ]
    features.sort(key=lambda one: (not one["drifted"], -(one["effect"] or 0.0)))
    return {
        "start_ns": window.start,
        "end_ns": window.end,
        "rows": window.counts.rows,
        "level": window.limits.level,
        "min_effect": window.limits.min_effect,
        "drifted": int(judgement.drifted.sum()),
        "alarm": window.look.alarm,
        "multivariate": _together(watch),
        "features": features,
    }


def _together(watch: Watch) -> dict[str, Any]:
    window = watch.together.last
    if window is None:
        nothing = dict.fromkeys(("start_ns", "end_ns", "statistic", "p_value", "effect", "drifted"))
        return {**nothing, "message": "", "reason": watch.together.reason}
    judgement = window.judgement
    return {
        "start_ns": window.start,
        "end_ns": window.end,
        "statistic": finite(judgement.statistic),
        "p_value": finite(judgement.p_value),
        "effect": finite(judgement.effect),
        "drifted": judgement.drifted if not judgement.reason else None,
        "message": judgement.text if judgement.drifted else "",
        "reason": judgement.reason,
    }


def _metric(causes: tuple[str, ...]) -> str:
    return "drift" if not causes or "values" in causes else causes[0]


def _performance(model: Model, watch: Watch) -> dict[str, Any]:
    performance = watch.performance
    windows = []
    for window in list(performance.windows)[-WINDOWS:]:
        quality = model.quality.sum(window.start, window.end)
        known = bands(quality, design_effect=performance.design_effect(quality.rows))
        windows.append(
            {
                "start_ns": window.start,
                "end_ns": window.end,
                "rows": window.rows,
                "labels": quality.rows,
                "coverage": quality.coverage,
                "estimated": {
                    name: {
                        "value": one.value,
                        "low": one.low,
                        "high": one.high,
                        "reason": one.reason,
                        "method": one.method,
                    }
                    for name, one in window.estimates.items()
                },
                "realised": {
                    name: {"value": finite(figure.value), **_ends(known.get(name)), "reason": because(figure.reason)}
                    for name, figure in quality.figures().items()
                },
            }
        )
    tests = []
    for (level, tolerance), test in performance.tests.items():
        verdict = test.verdict()
        tests.append(
            {
                "level": level,
                "tolerance": tolerance,
                "alarm": verdict.alarm,
                "risk": verdict.risk,
                "limit": verdict.limit,
                "e_value": finite(verdict.e_value),
                "labels": verdict.labels,
                "reason": verdict.reason,
            }
        )
    return {
        "reference": performance.figures,
        "reason": performance.reason,
        "delay_seconds": {f"{quantile:g}": performance.delays.quantile(quantile) for quantile in _QUANTILES},
        "risk": tests,
        "windows": windows,
    }


def _segments(watch: Watch) -> list[dict[str, Any]]:
    return [
        {
            "segment": one.segment,
            "value": one.value,
            "labels": one.labels,
            "figures": {
                name: {
                    "value": finite(figure.value),
                    "low": figure.low,
                    "high": figure.high,
                    "reason": because(figure.reason),
                }
                for name, figure in one.figures.items()
            },
            "worse": dict(one.worse),
            "reason": one.reason,
        }
        for one in watch.segments()
    ]


def _ends(band: tuple[float, float] | None) -> dict[str, float | None]:
    return {"low": band[0], "high": band[1]} if band is not None else {"low": None, "high": None}
