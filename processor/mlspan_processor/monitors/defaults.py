"""The monitors that exist without any configuration: DEFAULTS is the table, most important first.

Alarms are rare by construction: realised performance by an anytime-valid test (level over the whole life of a model
version), everything in windows only where it is significant for this many rows and features *and* large, and confirmed
by a second window. Drift of features is a diagnosis: it joins an incident, and opens one of severity "info" by itself.
"""

from typing import Final

from mlspan_processor.monitors.metrics import TOGETHER, VERSIONS
from mlspan_processor.monitors.settings import TOGETHER_LEVEL, Monitor, Threshold

DEFAULTS: Final[tuple[Monitor, ...]] = (
    Monitor(name="performance", metric="performance", severity="critical"),
    Monitor(name="estimated performance", metric="performance", kind="estimated", severity="warning"),
    Monitor(
        name="group fairness", metric="demographic_parity_ratio", threshold=Threshold(below=0.8), severity="warning"
    ),
    Monitor(name="version", metric=VERSIONS, severity="warning"),
    Monitor(name="errors", metric="errors", min_effect=0.01, severity="critical"),
    Monitor(name="failing", metric="errors", method="static", threshold=Threshold(above=0.5), severity="critical"),
    Monitor(name="prediction drift", metric="prediction_drift", min_effect=0.2, severity="warning"),
    Monitor(name="missing values", metric="missing", min_effect=0.02, severity="warning"),
    Monitor(name="unseen values", metric="unseen", min_effect=0.02, severity="warning"),
    Monitor(name="latency", metric="latency", severity="warning"),
    Monitor(name="rate", metric="rate", severity="info"),
    Monitor(name="multivariate drift", metric=TOGETHER, level=TOGETHER_LEVEL, severity="info"),
    Monitor(name="feature drift", metric="drift", min_effect=0.2, severity="info"),
)


def with_defaults(monitors: list[Monitor], use_defaults: bool = True) -> tuple[Monitor, ...]:
    """All monitors that run: the user's, and the default ones that they do not replace."""
    named = {one.name: one for one in monitors}
    chosen = [named.pop(one.name, one) for one in DEFAULTS] if use_defaults else []
    return tuple(one for one in (*chosen, *named.values()) if one.enabled)
