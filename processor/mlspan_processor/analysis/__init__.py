"""Batch: a file judged against a reference with the code that judges the stream; `mlspan analyze` in Python."""

from mlspan_processor.analysis.errors import AnalysisError
from mlspan_processor.analysis.result import (
    Alert,
    Analysis,
    ColumnDrift,
    Group,
    Incident,
    Metric,
    Multivariate,
    Window,
    schema,
)
from mlspan_processor.analysis.run import analyze

__all__ = [
    "Alert",
    "Analysis",
    "AnalysisError",
    "ColumnDrift",
    "Group",
    "Incident",
    "Metric",
    "Multivariate",
    "Window",
    "analyze",
    "schema",
]
