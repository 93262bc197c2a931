"""Batch: how often a window may raise an alert although nothing has changed: at most 1 % of them.

The level is split among what can alert, and the sum is the bound (Bonferroni), whatever the number of features, metrics
and segments: each part is corrected over its own members. Data quality shares the part of the columns, missing columns
and changed types need none (they are no chance events). Metrics, predictions and segments that are not there give
their share to nobody.
"""

from typing import Final

COLUMNS_LEVEL: Final = 0.006
"""Features and answers: values, missing and unseen shares, over all columns (drift.judgement)."""
MULTIVARIATE_LEVEL: Final = 0.001
"""The features together."""
REALISED_LEVEL: Final = 0.001
"""Realised performance, over the metrics of ALERTING."""
ESTIMATED_LEVEL: Final = 0.001
"""Estimated performance, over the same."""
SEGMENTS_LEVEL: Final = 0.001
"""Realised performance of segments, over columns and values."""

ALERTING: Final[dict[str, tuple[str, ...]]] = {
    "binary": ("accuracy", "f1", "roc_auc"),
    "multiclass": ("accuracy", "f1", "roc_auc"),
    "multilabel": ("f1_micro", "f1", "roc_auc"),
    "regression": ("mae",),
}
"""Per task the metrics that can alert, the first also by segment; the others are shown: a loss that matters moves
these. The least loss that alerts is `quality.names.smallest`: 0.02, or 5 % of the reference's error."""
CRITICAL: Final = 3.0
"""A realised loss of this many times the least is critical."""
