"""A monitor in one sentence, for ``mlspan validate``: what, of which models, over which window, when, and who is told.

>>> sentence(Monitor(name="x", metric="errors"), 1000, 1000, ()).split("; ")[1]
'alarms when one is far above the 250 or more before it'
"""

from collections.abc import Sequence

from mlspan_processor.anomaly.rarity import WARM_UP
from mlspan_processor.config.durations import format_duration
from mlspan_processor.monitors.metrics import CUSTOM, FIGURES, GAPS, RATES, VERSIONS, Watched, watched
from mlspan_processor.monitors.settings import DEFAULT_DURATION, Monitor

_FAR = {"low": "far below", "high": "far above", "both": "far from"}
_MOVED = {"low": "fell", "high": "rose", "both": "moved"}


def sentence(monitor: Monitor, min_rows: int, min_labels: int, targets: Sequence[str]) -> str:
    """The monitor in words.

    Args:
        monitor: it.
        min_rows, min_labels: the sizes of windows that say nothing else.
        targets: names of all of `notify`, told where the monitor names nobody.
    """
    row = watched(monitor.metric)
    told = targets if monitor.notify is None else monitor.notify
    parts = [
        f"{what(monitor)} of {', '.join(monitor.models)}{_of_part(monitor)}, {_window(monitor, min_rows, min_labels)}",
        f"alarms when {_when(monitor, row)}",
        monitor.severity,
        f"tells {', '.join(told) or 'nobody'}",
    ]
    return "; ".join(parts)


def what(monitor: Monitor) -> str:
    """What is watched: "realised accuracy"."""
    phrase = watched(monitor.metric).phrase
    return f"{monitor.kind} {phrase}" if monitor.metric in FIGURES else phrase


def _of_part(monitor: Monitor) -> str:
    if monitor.segments:
        return f" where {' or '.join(monitor.segments)}"
    return "" if monitor.features == ["*"] else f" (features {', '.join(monitor.features)})"


def _window(monitor: Monitor, min_rows: int, min_labels: int) -> str:
    window = monitor.window
    labels = (monitor.metric in FIGURES and monitor.kind == "realised") or monitor.metric in {*GAPS, VERSIONS}
    labels |= monitor.metric.startswith(CUSTOM)
    if monitor.uses == "risk" and labels:
        return "at every label"
    if window is not None and window.duration is not None:
        return f"in windows of {format_duration(window.duration)}"
    if window is None and monitor.metric in RATES:
        return f"in windows of {format_duration(DEFAULT_DURATION)}"
    rows = window.rows if window is not None and window.rows else min_labels if labels else min_rows
    return f"in windows of {rows:,} {'labels' if labels else 'rows'}"


def _when(monitor: Monitor, row: Watched) -> str:
    least = f" by more than {monitor.min_effect:g}" if monitor.min_effect is not None else ""
    match monitor.uses:
        case "static":
            assert monitor.threshold is not None
            limits = ((monitor.threshold.below, "below"), (monitor.threshold.above, "above"))
            passed = " or ".join(f"{side} {limit:g}" for limit, side in limits if limit is not None)
            return f"one is {passed}" + (" with its whole band" if monitor.metric in GAPS else "")
        case "drift":
            size = least or " by more than the smallest effect that matters"
            return f"one differs from the reference significantly (level {monitor.level:g} of a window) and{size}"
        case "risk":
            size = least or " by more than the tolerance"
            proof = f"at level {monitor.level:g} of all time" if monitor.kind == "realised" else "with its whole band"
            return f"it is worse than the reference{size}, {proof}"
        case "versions":
            size = least or " by more than the smallest difference that matters"
            return f"one is worse{size}, over windows of labels of the same time"
        case "history":
            return f"one is {_FAR[row.bad]} the {WARM_UP} or more before it{least}"
        case "change_point":
            return f"it {_MOVED[row.bad]} and stays there{least}, after {WARM_UP} or more"
        case "joint":
            return "it is unusual together with the model's other series"
