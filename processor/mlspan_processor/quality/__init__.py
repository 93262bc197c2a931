"""Stage 5: realised performance once labels arrive. KINDS is the table: one file and one row for each kind of
task."""

from collections.abc import Callable
from typing import Any, Final

from mlspan_processor.quality.base import Figure, Labelled, Quality, Sums, wilson
from mlspan_processor.quality.classification import Classification
from mlspan_processor.quality.multilabel import Multilabel
from mlspan_processor.quality.regression import Regression

__all__ = ["KINDS", "Classification", "Figure", "Labelled", "Multilabel", "Quality", "Regression", "Sums", "wilson"]

KINDS: Final[dict[str, Callable[[int], Any]]] = {
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": lambda n_classes: Regression(),  # noqa: ARG005 every kind is made from the number of classes
}
