"""Stage 5: the label refitted on the reference by logistic regression on features and score.

What `refit` does with trees, with few parameters: it learns from few rows, and goes on in straight lines where the
reference has no rows. Numbers enter as normal scores of their ranks beside a flag for missing values, categories as
one column for each of the ten most frequent.
"""

import warnings
from typing import Any, Final, Self

import numpy as np

from mlspan_processor.estimate.base import Floats, Integers, Rows, uneven
from mlspan_processor.estimate.encode import Encoder

_C: Final = 0.05
_MAX_VALUES: Final = 1_500_000


class Linear:
    """Logistic regression on features and scores."""

    def __init__(self, encoder: Encoder, model: Any, classes: Integers) -> None:
        self._encoder = encoder
        self._model = model
        self._classes = classes

    def __repr__(self) -> str:
        return "Linear()"

    @classmethod
    def fit(cls, rows: Rows, labels: Integers, *, seed: int) -> Self:
        """Fit on all of these rows, or on as many as the bound allows."""
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 heavy

        encoder = Encoder.fit(rows)
        inputs = encoder.linear_inputs(rows)
        weights = rows.weights
        bound = max(2000, _MAX_VALUES // inputs.shape[1])
        if len(rows) > bound:
            chosen = np.sort(np.random.default_rng(seed).choice(len(rows), bound, replace=False))
            inputs, labels, weights = inputs[chosen], labels[chosen], weights[chosen]
        classes = np.unique(labels)
        if len(classes) < 2:
            return cls(encoder, None, classes)
        # A few digits are enough: what is left out is far below the sampling error.
        model = LogisticRegression(C=_C, max_iter=60, tol=1e-2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(inputs, labels, sample_weight=uneven(weights))
        return cls(encoder, model, classes)

    def probabilities(self, rows: Rows) -> Floats:
        """(n, n_classes); 0 for classes without reference labels."""
        result = np.zeros((len(rows), rows.n_classes))
        if self._model is None:
            result[:, self._classes] = 1.0
        else:
            result[:, self._classes] = self._model.predict_proba(self._encoder.linear_inputs(rows))
        return result
