"""Stage 5: performance by segment: of a feature's bin, a category, a resource attribute, a model version.

`figures` is for rows in memory (a Sample with segments); `SegmentedQuality` keeps the same in mergeable sums, bounded,
and `judged` says which values are worse than the other rows beyond chance. `cut` makes segments of features by the
reference's quantiles; `fairness` compares groups. A column that is a segment is no feature: it is in
`Sample.segments` only, unless it is named among the features as well.
"""

from mlspan_processor.segments.accumulate import MISSING, OTHER, SegmentedQuality
from mlspan_processor.segments.cut import Cut, cut
from mlspan_processor.segments.fairness import Fairness, FairnessFigure, GroupRates, fairness, fairness_of, undecided
from mlspan_processor.segments.figures import Difference, SegmentFigures, figures, judged

__all__ = [
    "MISSING",
    "OTHER",
    "Cut",
    "Difference",
    "Fairness",
    "FairnessFigure",
    "GroupRates",
    "SegmentFigures",
    "SegmentedQuality",
    "cut",
    "fairness",
    "fairness_of",
    "figures",
    "judged",
    "undecided",
]
