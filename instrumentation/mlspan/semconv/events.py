"""Log event names, as registry.yaml defines them."""

from typing import Final

ML_FEEDBACK: Final = "ml.feedback"
"""The same label as a log event."""
