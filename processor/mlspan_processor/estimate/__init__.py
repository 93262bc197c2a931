"""Stage 5: estimated performance without labels.

METHODS is the table: one file and one row for each. CBPE, linear and refit tell class probabilities; blend, weighted
and prior make better ones of them for a model or a window; loss is the one for regressions. `Estimator` chooses.
"""

from collections.abc import Mapping
from typing import Any, Final

from mlspan_processor.estimate.base import Estimate
from mlspan_processor.estimate.blend import Blend
from mlspan_processor.estimate.cbpe import CBPE
from mlspan_processor.estimate.choice import METRICS, Estimator
from mlspan_processor.estimate.linear import Linear
from mlspan_processor.estimate.loss import Loss
from mlspan_processor.estimate.prior import ratio_of
from mlspan_processor.estimate.refit import Refit
from mlspan_processor.estimate.weighted import density_ratio

__all__ = ["METHODS", "METRICS", "Estimate", "Estimator"]

METHODS: Final[Mapping[str, Any]] = {
    "cbpe": CBPE,
    "linear": Linear,
    "refit": Refit,
    "blend": Blend,
    "weighted": density_ratio,
    "prior": ratio_of,
    "loss": Loss,
}
