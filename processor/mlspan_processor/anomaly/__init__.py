"""Stage 6: anomaly on series, and incidents. DETECTORS is the table of detectors: one file and one row for each.

Every series that the processor makes (quality, drift, latency, rate, errors) is watched by a detector; JOINT watches
all series of a model together. What they find becomes incidents (incidents.py): one event for what goes wrong together.
"""

from typing import Final

from mlspan_processor.anomaly.base import Detector, JointDetector, Verdict
from mlspan_processor.anomaly.change_point import ChangePoint
from mlspan_processor.anomaly.history import History
from mlspan_processor.anomaly.joint import Joint
from mlspan_processor.anomaly.residuals import Settings
from mlspan_processor.anomaly.static import Static

__all__ = [
    "DETECTORS",
    "JOINT",
    "ChangePoint",
    "Detector",
    "History",
    "Joint",
    "JointDetector",
    "Settings",
    "Static",
    "Verdict",
]

DETECTORS: Final[dict[str, type[Static] | type[History] | type[ChangePoint]]] = {
    "static": Static,
    "history": History,
    "change_point": ChangePoint,
}
JOINT: Final = Joint
