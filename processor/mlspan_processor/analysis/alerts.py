"""Batch, part 10: what a person is told of a window: at most one alert of each kind, the most important first.

In: the Evidence of a window. Out: Alerts. Order: realised performance, estimated performance, predictions, labels, data
quality, features, features together. A window of a stationary stream raises anything at most once in a hundred
(levels.py). One alert names all metrics, columns or segments that it is about: fifty features that moved are one fact.
"""

from mlspan_processor.analysis.evidence import Evidence, p_text, text
from mlspan_processor.analysis.fallen import estimated_alert, realised_alert
from mlspan_processor.analysis.result import Alert
from mlspan_processor.analysis.shifted import column_alerts


def alerts_of(evidence: Evidence) -> tuple[Alert, ...]:
    """The window's alerts."""
    columns = column_alerts(evidence)
    found = [realised_alert(evidence), estimated_alert(evidence), *columns]
    told = [one for one in found if one is not None]
    joint = evidence.multivariate
    # Together is worth telling only where no column says more.
    if joint.drifted and not any(one.kind in {"feature_drift", "data_quality"} for one in told):
        told.append(
            Alert(
                "multivariate_drift",
                "info",
                "features",
                f"the features have shifted together (effect {text(joint.effect)}, p {p_text(joint.p_value)})"
                " although none of them has alone",
                value=joint.statistic,
                effect=joint.effect,
                p_value=joint.p_value,
            )
        )
    return tuple(told)
