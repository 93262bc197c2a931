"""The pipeline's first step: what a service that answers in milliseconds writes in place of a column transformer."""

from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

UNKNOWN = -1.0


class CodesOfTexts(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A frame as an array, texts by their position among the values seen in training; -1: not seen there.

    scikit-learn's `OrdinalEncoder` in a `ColumnTransformer` says the same, and takes most of a small request's time.

    Args:
        columns: which of the frame's columns are texts.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Learn the values of each text column of a frame (n_rows, n_columns)."""
        self.codes_ = {
            name: {value: float(code) for code, value in enumerate(sorted(X[name].unique()))} for name in self.columns
        }
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray[Any, Any]:
        """The frame (n_rows, n_columns) as float64 of the same shape."""
        out = np.empty(X.shape)
        for j, name in enumerate(X.columns):
            codes = self.codes_.get(name)
            values = X[name].to_numpy()
            out[:, j] = values if codes is None else [codes.get(value, UNKNOWN) for value in values]
        return out
