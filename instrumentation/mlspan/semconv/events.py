"""Log event names, as registry.yaml defines them."""

from typing import Final

ML_FEEDBACK: Final = "ml.feedback"
"""The same label as a log event."""

ML_PROFILE: Final = "ml.profile"
"""One stack in which much of a call's time was spent. An event of the call's span, on calls after a slow one."""

ML_ANOMALY: Final = "ml.anomaly"
"""An incident opened, was updated or closed. The record has the trace and span id of the incident's span."""
