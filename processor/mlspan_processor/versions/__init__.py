"""Stage 5: two versions of a model on the same metrics, with intervals of the difference."""

from mlspan_processor.versions.compare import ComparedMetric, Comparison, Verdict, compare

__all__ = ["ComparedMetric", "Comparison", "Verdict", "compare"]
